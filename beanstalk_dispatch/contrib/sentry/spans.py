"""Spans in either of the SDK's two APIs, and the two that Sentry's Queues page is made of.

https://docs.sentry.io/platforms/python/tracing/instrumentation/custom-instrumentation/queues-module/
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import sentry_sdk

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import BatchError
from beanstalk_dispatch.execution.observers import Publication
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.safe_task import Retry, SafeTask
from beanstalk_dispatch.sqs.fifo import queue_rules

from .privacy import TASK_OP

ORIGIN: Final = "auto.queue.beanstalk_dispatch"
SYSTEM: Final = "aws_sqs"


def _is_streaming() -> bool:
    """``trace_lifecycle="stream"``, in which the older span API does nothing but warn."""
    options = sentry_sdk.get_client().options
    experiments = options.get("_experiments") or {}
    return (options.get("trace_lifecycle") or experiments.get("trace_lifecycle")) == "stream"


def is_posted(delivery: Delivery) -> bool:
    """Whether the message came by HTTP. Its body is then bytes, and elsewhere a string."""
    return isinstance(delivery.body, bytes)


class Span:
    """A span, as a context manager if it is active: then later spans become its children."""

    def __init__(self, span: Any, *, is_streamed: bool) -> None:
        self._span = span
        self._is_streamed = is_streamed

    @classmethod
    def segment(
        cls, op: str, name: str, headers: Mapping[str, str], sampling_context: Mapping[str, Any]
    ) -> Self:
        """The first span of this process, which continues the trace that ``headers`` carry.

        A ``traces_sampler`` gets ``sampling_context``.
        """
        if _is_streaming():
            sentry_sdk.traces.continue_trace(dict(headers))
            sentry_sdk.Scope.set_custom_sampling_context(dict(sampling_context))
            attributes = _span_attributes(op) | {"sentry.segment.name.source": "task"}
            span = sentry_sdk.traces.start_span(name, attributes=attributes, parent_span=None)
            return cls(span, is_streamed=True)
        transaction = sentry_sdk.continue_trace(
            dict(headers), op=op, name=name, source="task", origin=ORIGIN
        )
        started = sentry_sdk.start_transaction(
            transaction, custom_sampling_context=dict(sampling_context)
        )
        return cls(started, is_streamed=False)

    @classmethod
    def child(cls, op: str, name: str, *, active: bool = True) -> Self:
        """A child of the current span."""
        if _is_streaming():
            span: Any = sentry_sdk.traces.start_span(
                name, attributes=_span_attributes(op), active=active
            )
            return cls(span, is_streamed=True)
        return cls(sentry_sdk.start_span(op=op, name=name, origin=ORIGIN), is_streamed=False)

    def __enter__(self) -> Self:
        self._span.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._span.__exit__(*exc_info)

    def end(self) -> None:
        """End a span that was not entered."""
        if self._is_streamed:
            self._span.end()
        else:
            self._span.finish()

    def set(self, data: Mapping[str, Any]) -> None:
        put = self._span.set_attribute if self._is_streamed else self._span.set_data
        for name, value in data.items():
            if value is not None:
                put(name, value)

    def set_status(self, *, failed: bool) -> None:
        if self._is_streamed:
            self._span.status = "error" if failed else "ok"
        else:
            self._span.set_status("internal_error" if failed else "ok")

    def headers(self) -> dict[str, str]:
        """What a message carries so that its consumer continues this trace."""
        return trace_headers(span=self._span)


def _span_attributes(op: str) -> dict[str, Any]:
    return {"sentry.op": op, "sentry.origin": ORIGIN}


def trace_headers(**span: Any) -> dict[str, str]:
    return dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers(**span))


def _has_current() -> bool:
    """Outside of any span, one of ours would be the root of a trace nobody asked for."""
    if _is_streaming():
        return sentry_sdk.traces.get_current_span() is not None
    return sentry_sdk.get_current_span() is not None


# --- the producer ----------------------------------------------------------------------------


@contextmanager
def publishing(publications: Sequence[Publication], queue: str) -> Iterator[None]:
    """Give each message the trace's headers, and surround it with a queue.publish span."""
    messages = [each.message for each in publications]
    spans = [_start_publish_span(message, queue) for message in messages] if _has_current() else []
    headers = [span.headers() for span in spans] or [trace_headers()] * len(messages)
    for message, each in zip(messages, headers, strict=True):
        message.headers = {**message.headers, **each}
    unsent: Mapping[int, str] | None = {}
    try:
        yield
    except BaseException as exc:
        unsent = exc.unsent if isinstance(exc, BatchError) else None
        raise
    finally:
        for position, span in enumerate(spans):
            span.set({"messaging.message.body.size": len(publications[position].body)})
            span.set_status(failed=unsent is None or position in unsent)
            span.end()


def _start_publish_span(message: Message, queue: str) -> Span:
    span = Span.child("queue.publish", message.function, active=False)
    span.set(
        {
            "messaging.system": SYSTEM,
            "messaging.destination.name": queue,
            "messaging.message.id": message.id,
        }
    )
    return span


# --- the consumer ----------------------------------------------------------------------------


@contextmanager
def processing(task: SafeTask, delivery: Delivery, message: Message) -> Iterator[None]:
    """Continue the message's trace, or begin one if the task's class says so."""
    name = message.function
    headers = message.headers if getattr(task, "sentry_propagate_traces", True) else {}
    job = {
        "function": name,
        "queue": delivery.queue,
        "task_id": message.id,
        "attempt": message.attempt,
        "receive_count": delivery.receive_count,
    }
    segment = Span.segment(TASK_OP, name, headers, {"beanstalk_dispatch": job})
    with segment, Span.child("queue.process", name) as process:
        sentry_sdk.get_current_scope().set_transaction_name(name, source="task")
        process.set(
            {
                "messaging.system": SYSTEM,
                "messaging.destination.name": delivery.queue,
                "messaging.message.id": message.id,
                "messaging.message.body.size": len(delivery.body),
                "messaging.message.retry.count": _count_retries(delivery, message),
                "messaging.message.receive.latency": _latency_ms(delivery, message),
            }
        )
        yield
        failed = failure_of(delivery) is not None
        if delivery.outcome is Outcome.RETRY and not _is_retried_by_hiding(delivery):
            _start_publish_span(message, delivery.queue).end()
        for span in (segment, process):
            span.set_status(failed=failed)


def failure_of(delivery: Delivery) -> BaseException | None:
    """What went wrong in a run. A granted Retry is control flow, and so is TaskCancelled."""
    is_granted = delivery.outcome is Outcome.RETRY and isinstance(delivery.exception, Retry)
    is_cancelled = delivery.outcome is Outcome.CANCELLED
    return None if is_granted or is_cancelled else delivery.exception


def _count_retries(delivery: Delivery, message: Message) -> int:
    receives = 0 if _is_retried_by_hiding(delivery) else delivery.receive_count - 1
    return message.attempt - 1 + receives


def _is_retried_by_hiding(delivery: Delivery) -> bool:
    """In a poller of a FIFO queue, a retry is another receive of the same message."""
    return queue_rules(delivery.queue).retries_by_visibility and not is_posted(delivery)


def _latency_ms(delivery: Delivery, message: Message) -> float | None:
    """Milliseconds since SQS got this message; a retry is a later message than the first."""
    times = [moment for moment in (message.sent_at, delivery.sent_at) if moment is not None]
    return max((time.time() - max(times)) * 1000, 0.0) if times else None
