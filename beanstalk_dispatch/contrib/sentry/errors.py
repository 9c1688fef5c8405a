"""One event per failure, with the facts of its task, in a scope of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, Final

from beanstalk_dispatch.exceptions import (
    MessageError,
    TaskCut,
    TaskFailed,
    TaskTimeout,
    UnknownFunction,
)
from beanstalk_dispatch.logging.throttle import Throttle
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome
from beanstalk_dispatch.process import state
from beanstalk_dispatch.running.attempt import undelivered
from beanstalk_dispatch.running.limits.thread_frames import frame_of
from beanstalk_dispatch.safe_task import SafeTask

from . import privacy, spans
from .client import is_sending
from .privacy import NAME
from .sdk import sentry_sdk
from .variables import REPORT_RECEIVES, REPORT_RETRIES, get_values

_REFUSED: Final = (MessageError, UnknownFunction)
"""The errors that anyone who can send to the queue can cause: one event of each kind a minute."""
_refusals: Final = Throttle()
state.declare(_refusals.forget)

_SCOPE: Final = "sentry.scope"
"""The note of a run with the scope around the whole delivery."""
_CONTEXT: Final = "sentry.context"
"""The note of a run with the context in which its attempt runs, while it runs."""
_handled: ContextVar[BaseException | None] = ContextVar("handled", default=None)
"""The failure that was reported, or that is not wanted. It may pass through several runs."""


class TaskStuck(Exception):
    """The error of a task whose time has passed and that cannot be interrupted, with its stack."""


@contextmanager
def scope_of(delivery: RunView) -> Iterator[None]:
    """Remove the tags, user and breadcrumbs that are set inside."""

    def add_hint(event: privacy.Event, hint: Any) -> privacy.Event:
        is_sending()  # adopts a client that the task has set up
        # For privacy.clean, which then knows whose event it is. With EXECUTE_SYNCHRONOUSLY, a task
        # may run inside of another.
        hint[NAME] = (*hint.get(NAME, ()), delivery)
        return event

    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        # A span's breadcrumb is on the current scope, which old SDKs share between threads.
        sentry_sdk.get_current_scope().clear_breadcrumbs()
        facts, message = spans.facts_of(delivery), delivery.message
        context = facts | {
            "message_id": delivery.message_id,
            "sent_at": message.sent_at if message else None,
            "first_received_at": delivery.first_received_at,
            "body_size": len(delivery.body),
            "periodic_task": delivery.task_name,
            "scheduled_at": delivery.scheduled_at,
        }
        if message and privacy.may_send_arguments():
            context |= {"args": list(message.args), "kwargs": dict(message.kwargs)}
        tags = {name: str(value) for name, value in _without_none(facts).items()}
        scope.set_tags({name: value for name, value in tags.items() if value})  # Sentry drops ""
        scope.set_context(NAME, _without_none(context))
        scope.add_event_processor(add_hint)
        yield
        trace = spans.trace_headers()
    # The line about the delivery's outcome, which is logged after the attempt, is of its trace.
    if (outer := delivery.notes.get(_SCOPE)) is not None:
        outer.generate_propagation_context(trace)


def _without_none(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


# --- the three places that see a failure -----------------------------------------------------


@contextmanager
def reporting(task: SafeTask, delivery: RunView) -> Iterator[None]:
    """Report the failure of the attempt inside, once its hooks have ended.

    A hook may be interrupted, and an event that is interrupted may be lost or sent twice.
    """
    delivery.notes[_CONTEXT] = copy_context()
    try:
        yield
    finally:
        del delivery.notes[_CONTEXT]
    if (failure := spans.failure_of(delivery)) is not None:
        report_failure(task, failure, delivery)


def report_unless_observed(task: SafeTask, exception: BaseException, delivery: RunView) -> None:
    """Report a failure at once if ``reporting`` will not: then no consumer runs the task."""
    if _CONTEXT not in delivery.notes:
        with scope_of(delivery):
            report_failure(task, exception, delivery)


@contextmanager
def delivering(delivery: RunView) -> Iterator[None]:
    """Give a delivery a scope of its own, and report failures that no SentrySafeTask has seen.

    These are a refused message, and a retry that was not sent.
    """
    with sentry_sdk.isolation_scope() as scope:
        delivery.notes[_SCOPE] = scope
        yield
        exception, outcome = delivery.exception, delivery.outcome
        is_failure = outcome is not None and OUTCOMES[outcome].is_failure
        is_reported = exception is _handled.get() or isinstance(exception, TaskFailed)
        if exception is None or is_reported or not is_failure:
            return
        repeated = _refusals.count(str(outcome)) if isinstance(exception, _REFUSED) else 0
        if repeated is not None:
            with scope_of(delivery):
                _capture_failure(exception, delivery, {"repeated": str(repeated)})


def report_stuck(delivery: RunView | None, thread_id: int) -> None:
    """Send an event with the stack of a thread that cannot be interrupted, in its task's scope."""
    delivery = delivery or undelivered()
    function = spans.facts_of(delivery)["function"] or "a task"
    exception = TaskStuck(f"{function} cannot be interrupted")
    exception.__traceback__ = _traceback_of(thread_id)
    members = {"fingerprint": [NAME, "stuck", function], "level": "fatal"}
    context: Context | None = delivery.notes.get(_CONTEXT)
    if context is not None:
        context.copy().run(_capture, exception, delivery, members)
    else:
        with scope_of(delivery):
            _capture(exception, delivery, members)


def _traceback_of(thread_id: int) -> TracebackType | None:
    """Return the present position of a thread as a traceback, as if it had raised there."""
    traceback = None
    frame = frame_of(thread_id)
    while frame is not None:
        traceback = TracebackType(traceback, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return traceback


# --- what is sent ----------------------------------------------------------------------------


def report_failure(task: SafeTask, exception: BaseException, delivery: RunView) -> None:
    """Send one event, unless the task will be retried and such failures are not wanted."""
    wanted = getattr(task, "sentry_report_retries", None)
    if wanted is None:
        wanted = get_values()[REPORT_RETRIES]
    if (delivery.outcome is not Outcome.RETRY or wanted) and _handled.get() is not exception:
        _handled.set(exception)
        ignored = getattr(task, "sentry_ignore", ())
        if not isinstance(exception, ignored if isinstance(ignored, type) else tuple(ignored)):
            _capture_failure(exception, delivery, {})


def _capture_failure(
    exception: BaseException, delivery: RunView, more_tags: dict[str, str]
) -> None:
    receives = get_values()[REPORT_RECEIVES]
    if receives and delivery.receive_count not in receives and not delivery.is_final:
        return
    tags = {
        "outcome": str(delivery.outcome or Outcome.FAILED),
        "final": "yes" if delivery.is_final else "no",
        "dead_lettered": "yes" if delivery.is_dead_lettered else "no",
    }
    members: dict[str, Any] = {"tags": tags | more_tags}
    if isinstance(exception, TaskCut) and exception.stacks:
        members["extra"] = {"stacks": exception.stacks}
    if isinstance(exception, TaskTimeout):
        # It strikes anywhere; its stack says little about what timeouts have in common.
        members["fingerprint"] = [NAME, "timeout", spans.facts_of(delivery)["function"]]
    _capture(exception, delivery, members)


def _capture(exception: BaseException, delivery: RunView, members: dict[str, Any]) -> None:
    """Send the event.

    It is the one place that sends; ``members`` replace those of the exception.
    """
    event, hint = sentry_sdk.utils.event_from_exception(
        exception,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": NAME, "handled": False},
    )
    event.update(members)  # type: ignore[typeddict-item]
    # The hint is there also if the scope could not be made.
    sentry_sdk.capture_event(event, hint={**hint, NAME: (delivery,)})
