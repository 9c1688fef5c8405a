"""SentrySafeTask, and the observers with which it is watched by Sentry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Final, TypeAlias

from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.observers import Observer, OwnObserver, Publication, observed
from beanstalk_dispatch.running.attempt import undelivered
from beanstalk_dispatch.safe_task import SafeTask

from . import crons, errors, setup, spans
from .client import is_sending

logger = logging.getLogger("beanstalk_dispatch.sentry")

Watch: TypeAlias = AbstractContextManager[object]


class _SentryObserver(OwnObserver):
    """An observer that has ``watch`` surround an attempt, if there is a client to send with.

    The limit of Watching is for all of them together.
    """

    def __init__(self, watch: Callable[[SafeTask, RunView, Message], Watch]) -> None:
        self._watch = watch

    def attempting(self, task: SafeTask, delivery: RunView) -> Watch:
        setup.init_on_first_use()
        if delivery.message is None or not is_sending():
            return nullcontext()
        return self._watch(task, delivery, delivery.message)


class ScopeObserver(_SentryObserver):
    """An observer that gives each run a scope of its own, and reports a refused delivery."""

    def delivering(self, delivery: RunView) -> Watch:
        return errors.delivering(delivery) if is_sending() else nullcontext()


class TraceObserver(_SentryObserver):
    """An observer that continues one trace from the process that schedules to the task."""

    def publishing(self, publications: Sequence[Publication], queue: str) -> Watch:
        return spans.publishing(publications, queue) if is_sending() else nullcontext()


class CheckInObserver(_SentryObserver):
    """An observer that sends check-ins of periodic tasks."""


class ReportObserver(_SentryObserver):
    """An observer that reports a failure when the hooks have ended, outside of any time limit."""


# Each surrounds those after it: an event is sent from inside of the scope and the trace.
_PARTS: Final = (
    ScopeObserver(lambda task, delivery, message: errors.scope_of(delivery)),
    TraceObserver(spans.processing),
    CheckInObserver(crons.checking_in),
    ReportObserver(lambda task, delivery, message: errors.reporting(task, delivery)),
)


class Watching(Observer):
    """An observer that has all of Sentry's observers watch. An error of one is not that of others.

    All objects of this class and its subclasses are equal, so that only the first of them watches.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Watching)

    def __hash__(self) -> int:
        return hash(Watching)

    def publishing(self, publications: Sequence[Publication], queue: str) -> Watch:
        return observed(_PARTS, "publishing", publications, queue)

    def delivering(self, delivery: RunView) -> Watch:
        return observed(_PARTS, "delivering", delivery)

    def attempting(self, task: SafeTask, delivery: RunView) -> Watch:
        return observed(_PARTS, "attempting", task, delivery)


class SentryObserver(Watching):
    """An observer that sends failures, traces and check-ins of all tasks to Sentry.

    It does so beside any class, also one that BEANSTALK_DISPATCH_SAFE_TASK names.
    """

    def __init__(self) -> None:
        """Set the SDK up, if that has not been done and there is a SENTRY_DSN."""
        setup.init_on_first_use()


class SentrySafeTask(SafeTask):
    """A SafeTask whose failures, traces and check-ins are in Sentry."""

    observers: ClassVar[Sequence[Observer]] = (Watching(),)
    sentry_report_retries: bool | None = None
    """Report a failure that will be retried, too. None: SENTRY_REPORT_RETRIES, else no."""
    sentry_ignore: type[BaseException] | Sequence[type[BaseException]] = ()
    """The exceptions that are not reported."""
    sentry_monitor: bool = True
    """Send check-ins if the task is periodic."""
    sentry_propagate_traces: bool = True
    """Continue the trace of the process that has scheduled the task. False: begin a trace."""
    sentry_checkin_margin: int | None = None
    """Minutes that a periodic task may start late before Sentry calls it missed.

    None: SENTRY_CHECKIN_MARGIN.
    """
    sentry_max_runtime: int | None = None
    """Minutes that a periodic task may run before Sentry calls it failed.

    None: SENTRY_MAX_RUNTIME, else its time limit.
    """

    @classmethod
    def ready(cls) -> None:
        setup.init()

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        """Report the failure. An override that does not call this one changes nothing.

        In a consumer the event is sent after the hooks: it then has the outcome of the message, and
        no time limit can interrupt it.
        """
        try:
            if is_sending():
                message = Message(function=type(self).__name__, args=list(args), kwargs=kwargs)
                delivery = self.delivery or undelivered(message)
                errors.report_unless_observed(self, exception, delivery)
        except Exception as exc:
            logger.error("could not report the failure to Sentry error=%s", exc, exc_info=exc)
        super().on_error(exception, *args, **kwargs)
