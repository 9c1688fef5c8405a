"""One event per failure, with what a task is known by, in a scope of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import sentry_sdk
from sentry_sdk.utils import event_from_exception

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.execution.observers import Observer
from beanstalk_dispatch.outcomes import OUTCOMES, Outcome
from beanstalk_dispatch.safe_task import SafeTask

from . import privacy, spans
from .environment import REPORT_RETRIES, get_values
from .setup import init_on_first_use

logger = logging.getLogger("beanstalk_dispatch.sentry")

NAME: Final = "beanstalk_dispatch"
"""The event's mechanism and its context."""

_reported: ContextVar[BaseException | None] = ContextVar("reported", default=None)
_covered: ContextVar[object] = ContextVar("covered", default=None)


class ScopeObserver(Observer):
    """Gives each run a scope of its own, and reports a refused delivery."""

    @contextmanager
    def delivering(self, delivery: Delivery) -> Iterator[None]:
        yield
        report_delivery(delivery)

    @contextmanager
    def attempting(self, task: SafeTask, delivery: Delivery) -> Iterator[None]:
        init_on_first_use()
        if delivery.message is None or not spans.is_sending():
            yield
            return
        with scope_of(delivery):
            yield


class ReportObserver(Observer):
    """Reports a failure that the task's ``on_error`` has not reported."""

    @contextmanager
    def attempting(self, task: SafeTask, delivery: Delivery) -> Iterator[None]:
        yield
        if (failure := spans.failure_of(delivery)) is not None:
            report_failure(task, failure, delivery)


@contextmanager
def scope_of(delivery: Delivery) -> Iterator[None]:
    """Tags, user and breadcrumbs that are set inside are gone afterwards."""
    message = delivery.message
    args, kwargs = (message.args, message.kwargs) if message else ((), {})
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        tags, context = _describe(delivery)
        if privacy.may_send_arguments():
            context |= {"args": list(args), "kwargs": dict(kwargs)}
        scope.set_tags(tags)
        scope.set_context(NAME, context)
        # On the current scope, where it runs after that of Sentry's Django integration.
        sentry_sdk.get_current_scope().add_event_processor(privacy.scrubber(args, kwargs))
        yield


def _describe(delivery: Delivery) -> tuple[dict[str, str], dict[str, Any]]:
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
    """Send the failure to Sentry, unless it will be retried and such failures are not wanted."""
    wanted = getattr(task, "sentry_report_retries", None)
    if wanted is None:
        wanted = get_values()[REPORT_RETRIES]
    outcome = delivery.outcome or Outcome.FAILED
    try:
        if outcome is not Outcome.RETRY or wanted:
            report(exception, outcome, delivery)
    except Exception as exc:
        logger.error("could not report the failure to Sentry error=%s", exc, exc_info=exc)


def report(exception: BaseException, outcome: Outcome, delivery: Delivery | None) -> None:
    """Send one event, and none for the same exception again."""
    if _reported.get() is not exception and spans.is_sending():
        _reported.set(exception)
        _capture(exception, outcome, delivery)


def _capture(exception: BaseException, outcome: Outcome, delivery: Delivery | None) -> None:
    event, hint = event_from_exception(
        exception,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": NAME, "handled": False},
    )
    event["tags"] = {"outcome": str(outcome)}
    if isinstance(exception, TaskTimeout):
        # A timeout strikes anywhere; its stack says little about what it has in common.
        function = delivery.message.function if delivery and delivery.message else ""
        event["fingerprint"] = [NAME, "timeout", function]
    sentry_sdk.capture_event(event, hint=hint)


def report_delivery(delivery: Delivery) -> None:
    """Report what no SentrySafeTask has seen: a refused message, a retry that was not sent."""
    reported = _reported.get()
    _reported.set(None)
    if not spans.is_sending():
        return
    if spans.is_posted(delivery):
        _drop_body_of_what_follows()
    exception, outcome = delivery.exception, delivery.outcome
    if exception is None or outcome is None or exception is reported:
        return
    if OUTCOMES[outcome].is_failure:
        with scope_of(delivery):
            _capture(exception, outcome, delivery)


def _drop_body_of_what_follows() -> None:
    """Of the request's own transaction, for one; once in each scope, which may outlive it."""
    scope = sentry_sdk.get_current_scope()
    if _covered.get() is not scope:
        _covered.set(scope)
        scope.add_event_processor(privacy.drop_body)
