"""The trace from the code that schedules a task to the task, in either of the SDK's two span APIs.

Sentry's Queues page is made of the spans queue.publish and queue.process.
https://docs.sentry.io/platforms/python/tracing/instrumentation/custom-instrumentation/queues-module/
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.exceptions import BatchError
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import UNWANTED, Outcome
from beanstalk_dispatch.observers import Publication
from beanstalk_dispatch.safe_task import Retry, SafeTask

from .privacy import NAME, TASK_OP
from .sdk import sentry_sdk

_ORIGIN: Final = f"auto.queue.{NAME}"

Span: TypeAlias = Any
"""A span of the SDK: of its older API, or of the streaming one, which older SDKs lack."""


def _is_streaming() -> bool:
    """Return True with ``trace_lifecycle="stream"``, in which the older span API only warns."""
    options = sentry_sdk.get_client().options
    experiments = options.get("_experiments") or {}
    return (options.get("trace_lifecycle") or experiments.get("trace_lifecycle")) == "stream"


def _start_segment(name: str, headers: Mapping[str, str], context: Mapping[str, Any]) -> Span:
    """Start a task's first span.

    It continues the trace of ``headers``; a sampler gets ``context``.
    """
    if _is_streaming():
        sentry_sdk.traces.continue_trace(dict(headers))
        sentry_sdk.Scope.set_custom_sampling_context(dict(context))
        attributes = _origin_of(TASK_OP) | {"sentry.segment.name.source": "task"}
        return sentry_sdk.traces.start_span(name, attributes=attributes, parent_span=None)
    transaction = sentry_sdk.continue_trace(
        dict(headers), op=TASK_OP, name=name, source="task", origin=_ORIGIN
    )
    return sentry_sdk.start_transaction(transaction, custom_sampling_context=dict(context))


def _start_child(op: str, name: str, *, active: bool = True) -> Span:
    """Start a child of the current span. Only in an active one later spans become its children."""
    if _is_streaming():
        return sentry_sdk.traces.start_span(name, attributes=_origin_of(op), active=active)
    return sentry_sdk.start_span(op=op, name=name, origin=_ORIGIN)


def _origin_of(op: str) -> dict[str, Any]:
    return {"sentry.op": op, "sentry.origin": _ORIGIN}


def _set_data(span: Span, data: Mapping[str, Any]) -> None:
    put = span.set_attribute if hasattr(span, "set_attribute") else span.set_data
    for name, value in data.items():
        if value is not None:
            put(name, value)


def _set_status(span: Span, *, failed: bool) -> None:
    if hasattr(span, "set_attribute"):
        span.status = "error" if failed else "ok"
    else:
        span.set_status("internal_error" if failed else "ok")


def trace_headers(span: Span = None) -> dict[str, str]:
    """Return the headers of a message with which its consumer continues the current trace."""
    return dict(sentry_sdk.get_current_scope().iter_trace_propagation_headers(span=span))


def _has_current() -> bool:
    """Return True in a span. Outside of any, one of ours would be the root of an unwanted trace."""
    module = sentry_sdk.traces if _is_streaming() else sentry_sdk
    return module.get_current_span() is not None


# --- the producer ----------------------------------------------------------------------------


@contextmanager
def publishing(publications: Sequence[Publication], queue: str) -> Iterator[None]:
    """Give each message the trace's headers, and surround it with a queue.publish span."""
    messages = [each.message for each in publications]
    spans = [_start_publish_span(message, queue) for message in messages] if _has_current() else []
    headers = [trace_headers(span) for span in spans] or [trace_headers()] * len(messages)
    for publication, each in zip(publications, headers, strict=True):
        publication.headers.update(each)
    unsent: Mapping[int, str] | None = {}
    try:
        yield
    except BaseException as exc:
        unsent = exc.unsent if isinstance(exc, BatchError) else None
        raise
    finally:
        for position, span in enumerate(spans):
            _set_data(span, {"messaging.message.body.size": len(publications[position].body)})
            _set_status(span, failed=unsent is None or position in unsent)
            _end(span)


def _start_publish_span(message: Message, queue: str) -> Span:
    span = _start_child("queue.publish", message.function, active=False)
    _set_data(span, _message_data(message, queue))
    return span


def _message_data(message: Message, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": "aws_sqs",
        "messaging.destination.name": queue,
        "messaging.message.id": message.id,
    }


def _end(span: Span) -> None:
    """End a span that was not entered."""
    (span.end if hasattr(span, "end") else span.finish)()


# --- the consumer ----------------------------------------------------------------------------


def facts_of(delivery: RunView) -> dict[str, Any]:
    """Return the facts of a task for the tags of its events and for a ``traces_sampler``."""
    message = delivery.message
    return {
        "function": message.function if message else delivery.task_name,
        "queue": delivery.queue,
        "task_id": message.id if message else delivery.message_id,
        "attempt": message.attempt if message else None,
        "receive_count": delivery.receive_count,
    }


@contextmanager
def processing(task: SafeTask, delivery: RunView, message: Message) -> Iterator[None]:
    """Continue the message's trace, or begin one if the task's class says so."""
    name = message.function
    headers = message.headers if getattr(task, "sentry_propagate_traces", True) else {}
    segment = _start_segment(name, headers, {NAME: facts_of(delivery)})
    with segment, _start_child("queue.process", name) as process:
        _set_data(
            process,
            _message_data(message, delivery.queue)
            | {
                "messaging.message.body.size": len(delivery.body),
                "messaging.message.retry.count": _count_retries(delivery, message),
                "messaging.message.receive.latency": _latency_ms(delivery, message),
            },
        )
        yield
        if delivery.outcome is Outcome.RETRY and not _is_retried_by_hiding(delivery):
            _end(_start_publish_span(message, delivery.queue))
        for span in (segment, process):
            _set_status(span, failed=failure_of(delivery) is not None)


def failure_of(delivery: RunView) -> BaseException | None:
    """Return the failure of a run. A granted Retry and an unwanted task are none."""
    is_granted = delivery.outcome is Outcome.RETRY and isinstance(delivery.exception, Retry)
    is_unwanted = delivery.outcome in UNWANTED
    return None if is_granted or is_unwanted else delivery.exception


def _count_retries(delivery: RunView, message: Message) -> int:
    receives = 0 if _is_retried_by_hiding(delivery) else delivery.receive_count - 1
    return message.attempt - 1 + receives


def _is_retried_by_hiding(delivery: RunView) -> bool:
    """Return True in a poller of a FIFO queue, where a retry is another receive of the message.

    The body of a message that came by HTTP is bytes, and elsewhere it is a string.
    """
    return is_fifo(delivery.queue) and isinstance(delivery.body, str)


def _latency_ms(delivery: RunView, message: Message) -> float | None:
    """Return milliseconds since SQS got this message; a retry is a later message than the first."""
    times = [moment for moment in (message.sent_at, delivery.sent_at) if moment is not None]
    return max((time.time() - max(times)) * 1000, 0.0) if times else None
