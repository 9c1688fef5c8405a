"""TracingObserver: the spans and the metrics of sends and deliveries."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Final

from opentelemetry import context as contexts
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from beanstalk_dispatch import __version__, signals
from beanstalk_dispatch.exceptions import BatchError
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.observers import Observer, Publication
from beanstalk_dispatch.safe_task import SafeTask

from . import attributes

NAME: Final = "beanstalk_dispatch"
FLUSH_SECONDS: Final = 5.0
"""The seconds that a flush may take, unless its signal says another number."""
_ATTEMPTED: Final = "beanstalk_dispatch.contrib.opentelemetry"
"""The note of a run that its attempt has a process span. A child's parent gets its name."""
_BOUNDARIES: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 900)
"""The boundaries of durations, in seconds."""


class TracingObserver(Observer):
    """An observer that traces sends and deliveries, each delivery linked to its creation."""

    continues_trace: ClassVar[bool] = False
    """Make a delivery's span a child of its creation, instead of linking them."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(NAME, __version__)
        meter = metrics.get_meter(NAME, __version__)
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}")
        self._consumed = meter.create_counter("messaging.client.consumed.messages", "{message}")
        self._duration = meter.create_histogram(
            "messaging.process.duration", "s", explicit_bucket_boundaries_advisory=_BOUNDARIES
        )
        signals.worker_stopped.connect(flush)
        signals.invocation_finished.connect(flush)

    @contextmanager
    def publishing(self, publications: Sequence[Publication], queue: str) -> Iterator[None]:
        """Give each message the context of its creation, and surround the send with a span."""
        creations: list[Span] = []
        if len(publications) > 1:
            creations = [self._create(each.message, queue) for each in publications]
        unsent: tuple[int, str] = (0, "")
        try:
            with self._sending(publications, queue, creations) as span:
                for each, creation in zip(publications, creations or [span], strict=True):
                    _inject(creation, each.headers)
                try:
                    yield
                except BaseException as exc:
                    count = len(exc.unsent) if isinstance(exc, BatchError) else len(publications)
                    unsent = count, type(exc).__qualname__
                    span.set_attribute(attributes.ERROR_TYPE, unsent[1])
                    raise
        finally:
            self._count_sent(queue, len(publications), *unsent)

    @contextmanager
    def delivering(self, delivery: RunView) -> Iterator[None]:
        """Count a delivery. One without an attempt gets its process span at its end."""
        began, clock = time.time_ns(), time.perf_counter()
        yield
        seconds = time.perf_counter() - clock
        labels = attributes.of_metrics(delivery)
        self._consumed.add(1, labels)
        if _ATTEMPTED in delivery.notes:
            self._duration.record(seconds, labels)
        else:
            _end(self._start(delivery, start_time=began)[0], delivery)

    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        """Surround an attempt with its process span, which is the current one in the task."""
        delivery.notes[_ATTEMPTED] = None
        span, context = self._start(delivery)
        token = contexts.attach(trace.set_span_in_context(span, context))
        try:
            yield
        finally:
            contexts.detach(token)
            _end(span, delivery)

    def retrying(self, delivery: RunView) -> AbstractContextManager[object]:
        """Surround the sending of a retry, which keeps the context of its creation."""
        return self._tracer.start_as_current_span(
            f"send {delivery.queue}", kind=SpanKind.PRODUCER,
            attributes={
                **attributes.of_operation("send", delivery.queue),
                **(attributes.of_message(delivery.message) if delivery.message else {}),
            },
        )  # fmt: skip

    def _create(self, message: Message, queue: str) -> Span:
        """Return the span of a message of a batch, which has ended."""
        span = self._tracer.start_span(
            f"create {queue}", kind=SpanKind.PRODUCER,
            attributes={**attributes.of_operation("create", queue),
                        **attributes.of_message(message)},
        )  # fmt: skip
        span.end()
        return span

    def _sending(
        self, publications: Sequence[Publication], queue: str, creations: Sequence[Span]
    ) -> AbstractContextManager[Span]:
        """Return the span of a send as a context manager, in which it is current."""
        values: attributes.Attributes = {"messaging.batch.message_count": len(publications)}
        if not creations:
            values = attributes.of_message(publications[0].message)
        return self._tracer.start_as_current_span(
            f"send {queue}", kind=SpanKind.CLIENT if creations else SpanKind.PRODUCER,
            attributes={**attributes.of_operation("send", queue), **values},
            links=[Link(each.get_span_context()) for each in creations],
        )  # fmt: skip

    def _count_sent(self, queue: str, count: int, unsent: int, error: str) -> None:
        labels = attributes.of_operation("send", queue)
        if sent := count - unsent:
            self._sent.add(sent, labels)
        if unsent:
            self._sent.add(unsent, {**labels, attributes.ERROR_TYPE: error})

    def _start(self, delivery: RunView, *, start_time: int | None = None) -> tuple[Span, Context]:
        """Return the process span of a delivery, and its context with the message's baggage.

        Its parent is the span of the request or the receive, or the creation if the observer
        continues traces.
        """
        context = _created_in(delivery)
        links: Sequence[Link] = ()
        if not self.continues_trace:
            creation = trace.get_current_span(context).get_span_context()
            links = [Link(creation)] if creation.is_valid else ()
            context = trace.set_span_in_context(trace.get_current_span(), context)
        span = self._tracer.start_span(
            f"process {delivery.queue}", context=context, kind=SpanKind.CONSUMER,
            attributes=attributes.of_operation("process", delivery.queue), links=links,
            start_time=start_time,
        )  # fmt: skip
        if span.is_recording():
            span.set_attributes(attributes.of_delivery(delivery))
        return span, context


class ContinuingObserver(TracingObserver):
    """A TracingObserver that makes one trace of a request and of its tasks."""

    continues_trace = True


def _created_in(delivery: RunView) -> Context:
    """Return the context that the message of a delivery carries; an empty one without it."""
    if delivery.message is None or not delivery.message.headers:
        return Context()
    return propagate.extract(delivery.message.headers, Context())


def _inject(span: Span, headers: dict[str, str]) -> None:
    """Add a span's context to headers. Baggage is a list, and Sentry's may be in it already."""
    baggage = headers.pop("baggage", "")
    propagate.inject(headers, trace.set_span_in_context(span))
    if baggage:
        headers["baggage"] = ",".join(filter(None, (baggage, headers.get("baggage"))))


def _end(span: Span, delivery: RunView) -> None:
    """End a process span. Only a failure is an error: a retry, a duplicate and others are not."""
    if span.is_recording():
        outcome = attributes.of_outcome(delivery)
        span.set_attributes(outcome)
        if attributes.ERROR_TYPE in outcome:
            span.set_status(Status(StatusCode.ERROR, str(outcome[attributes.OUTCOME])))
            if delivery.exception is not None:
                span.record_exception(delivery.exception)
    span.end()


def flush(*, seconds: float = FLUSH_SECONDS, **_: Any) -> None:
    """Export the waiting spans and metrics: the process is about to end, or to be suspended."""
    milliseconds = int(min(seconds, FLUSH_SECONDS) * 1000)
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force_flush = getattr(provider, "force_flush", None)
        if force_flush is not None:  # those of the API have none
            force_flush(timeout_millis=milliseconds)
