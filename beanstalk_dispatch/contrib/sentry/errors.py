"""One event per failure, with what a task is known by, in a scope of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

import sentry_sdk
from sentry_sdk.scope import use_isolation_scope, use_scope
from sentry_sdk.utils import event_from_exception

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import MessageError, TaskTimeout, UnknownFunction
from beanstalk_dispatch.execution.thread_frames import frame_of
from beanstalk_dispatch.log_lines import Refusals
from beanstalk_dispatch.outcomes import OUTCOMES, Outcome
from beanstalk_dispatch.safe_task import SafeTask

from . import privacy, spans
from .variables import REPORT_RECEIVES, REPORT_RETRIES, get_values

NAME: Final = "beanstalk_dispatch"
"""The event's mechanism and its context."""

_REFUSED: Final = (MessageError, UnknownFunction)
"""What anyone who can send to the queue can cause: one event of each kind in a minute."""
_refusals: Final = Refusals()
os.register_at_fork(after_in_child=_refusals.forget_all)

_reported: ContextVar[BaseException | None] = ContextVar("reported", default=None)


class TaskStuck(Exception):
    """The time limit has passed, and the thread cannot be interrupted. Its stack is the event's."""


# Those in which an attempt runs, by the id() of its delivery, for what other threads report.
_scopes: Final[dict[int, tuple[sentry_sdk.Scope, sentry_sdk.Scope]]] = {}


def is_observed(delivery: Delivery) -> bool:
    """Whether a failure of this delivery's task will be reported after its hooks."""
    return id(delivery) in _scopes


@contextmanager
def reporting(task: SafeTask, delivery: Delivery) -> Iterator[None]:
    """Report the failure of the attempt inside, once its hooks have ended.

    A hook may be interrupted, and an event that is interrupted may be lost or sent twice.
    """
    _scopes[id(delivery)] = sentry_sdk.get_isolation_scope(), sentry_sdk.get_current_scope()
    try:
        yield
    finally:
        del _scopes[id(delivery)]
    if (failure := spans.failure_of(delivery)) is not None:
        report_failure(task, failure, delivery)


@contextmanager
def scope_of(delivery: Delivery) -> Iterator[None]:
    """Tags, user and breadcrumbs that are set inside are gone afterwards."""
    message = delivery.message
    args, kwargs = (message.args, message.kwargs) if message else ((), {})
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        # A span's breadcrumb is on the current scope, which old SDKs share between threads.
        sentry_sdk.get_current_scope().clear_breadcrumbs()
        tags, context = _tags_and_context(delivery)
        if privacy.may_send_arguments():
            context |= {"args": list(args), "kwargs": dict(kwargs)}
        scope.set_tags(tags)
        scope.set_context(NAME, context)
        # On the current scope, where it runs after that of Sentry's Django integration.
        scrub = privacy.scrubber(tags.get("function"), args, kwargs)
        sentry_sdk.get_current_scope().add_event_processor(scrub)
        yield
        trace = spans.trace_headers()
    # The line about the delivery's outcome, which is logged after the attempt, is of its trace.
    sentry_sdk.get_isolation_scope().generate_propagation_context(trace)


def _tags_and_context(delivery: Delivery) -> tuple[dict[str, str], dict[str, Any]]:
    """An event's tags and its context."""
    message = delivery.message
    tags = {
        "function": message.function if message else delivery.task_name,
        "queue": delivery.queue,
        "task_id": message.id if message else delivery.message_id,
        "attempt": message.attempt if message else None,
        "receive_count": delivery.receive_count,
    }
    context = tags | {
        "message_id": delivery.message_id,
        "sent_at": message.sent_at if message else None,
        "first_received_at": delivery.first_received_at,
        "body_size": len(delivery.body),
        "periodic_task": delivery.task_name,
        "scheduled_at": delivery.scheduled_at,
    }
    return (
        {name: str(value) for name, value in tags.items() if value is not None},
        {name: value for name, value in context.items() if value is not None},
    )


def report_failure(task: SafeTask, exception: BaseException, delivery: Delivery) -> None:
    """Send one event, unless the task will be retried and such failures are not wanted."""
    wanted = getattr(task, "sentry_report_retries", None)
    if wanted is None:
        wanted = get_values()[REPORT_RETRIES]
    if (delivery.outcome is not Outcome.RETRY or wanted) and _reported.get() is not exception:
        _reported.set(exception)
        if not isinstance(exception, tuple(getattr(task, "sentry_ignore", ()))):
            _capture_failure(exception, delivery)


@contextmanager
def delivering(delivery: Delivery) -> Iterator[None]:
    """Give a delivery a scope of its own, and report what no SentrySafeTask has seen.

    That is a refused message, or a retry that was not sent.
    """
    with sentry_sdk.isolation_scope():
        yield
        reported = _reported.get()
        _reported.set(None)
        exception, outcome = delivery.exception, delivery.outcome
        if exception is None or outcome is None or exception is reported:
            return
        if not OUTCOMES[outcome].is_failure:
            return
        repeated = _refusals.count(outcome) if isinstance(exception, _REFUSED) else 0
        if repeated is not None:
            with scope_of(delivery):
                sentry_sdk.get_isolation_scope().set_tag("repeated", str(repeated))
                _capture_failure(exception, delivery)


def report_stuck(delivery: Delivery | None, thread_id: int) -> None:
    """Send an event with the stack of a thread that cannot be interrupted, in its task's scope."""
    function = _function_of(delivery)
    exception = TaskStuck(f"{function} cannot be interrupted")
    exception.__traceback__ = _traceback_of(thread_id)
    scopes = _scopes.get(id(delivery))
    with ExitStack() as stack:
        if scopes is not None:
            isolation, current = (scope.fork() for scope in scopes)
            stack.enter_context(use_isolation_scope(isolation))
            stack.enter_context(use_scope(current))
        elif delivery is not None:
            stack.enter_context(scope_of(delivery))
        _capture_exception(exception, fingerprint=[NAME, "stuck", function], level="fatal")


def _traceback_of(thread_id: int) -> TracebackType | None:
    """Where a thread is now, as if it had raised there."""
    traceback = None
    frame = frame_of(thread_id)
    while frame is not None:
        traceback = TracebackType(traceback, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return traceback


def _function_of(delivery: Delivery | None) -> str:
    return delivery.message.function if delivery and delivery.message else ""


def _capture_failure(exception: BaseException, delivery: Delivery) -> None:
    receives = get_values()[REPORT_RECEIVES]
    if receives and delivery.receive_count not in receives and not delivery.is_final:
        return
    tags = {
        "outcome": str(delivery.outcome or Outcome.FAILED),
        "final": _yes_or_no(delivery.is_final),
        "dead_lettered": _yes_or_no(delivery.is_dead_lettered),
    }
    # A timeout strikes anywhere; its stack says little about what it has in common.
    is_timeout = isinstance(exception, TaskTimeout)
    fingerprint = [NAME, "timeout", _function_of(delivery)] if is_timeout else None
    _capture_exception(exception, tags=tags, fingerprint=fingerprint)


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _capture_exception(exception: BaseException, **members: Any) -> None:
    event, hint = event_from_exception(
        exception,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": NAME, "handled": False},
    )
    given: Any = {name: value for name, value in members.items() if value is not None}
    event.update(given)
    sentry_sdk.capture_event(event, hint=hint)
