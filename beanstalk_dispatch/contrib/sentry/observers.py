"""What watches a task for Sentry. Without a client to send with, none of it imports the SDK."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.execution.observers import Observer, Publication
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.safe_task import SafeTask

from . import setup
from .setup import is_sending

logger = logging.getLogger("beanstalk_dispatch.sentry")

Watch: TypeAlias = AbstractContextManager[object]


class _SentryObserver(Observer, ABC):
    """Watches an attempt, if there is a client to send with."""

    def attempting(self, task: SafeTask, delivery: Delivery) -> Watch:
        setup.init_on_first_use()
        if delivery.message is None or not is_sending():
            return nullcontext()
        return self.watch(task, delivery, delivery.message)

    @abstractmethod
    def watch(self, task: SafeTask, delivery: Delivery, message: Message) -> Watch:
        """What surrounds the attempt."""


class ScopeObserver(_SentryObserver):
    """Gives each run a scope of its own, and reports a refused delivery."""

    def delivering(self, delivery: Delivery) -> Watch:
        if not is_sending():  # otherwise a client that the project has set up late is adopted
            return nullcontext()
        from . import errors

        return errors.delivering(delivery)

    def watch(self, task: SafeTask, delivery: Delivery, message: Message) -> Watch:
        from . import errors

        return errors.scope_of(delivery)


class TraceObserver(_SentryObserver):
    """Continues one trace from the process that schedules to the task."""

    def publishing(self, publications: Sequence[Publication], queue: str) -> Watch:
        if not is_sending():
            return nullcontext()
        from . import spans

        return spans.publishing(publications, queue)

    def watch(self, task: SafeTask, delivery: Delivery, message: Message) -> Watch:
        from . import spans

        return spans.processing(task, delivery, message)


class CheckInObserver(_SentryObserver):
    """Sends check-ins of periodic tasks."""

    def watch(self, task: SafeTask, delivery: Delivery, message: Message) -> Watch:
        from . import crons

        return crons.checking_in(task, delivery, message)


class ReportObserver(_SentryObserver):
    """Reports a failure when the hooks have ended, outside of any time limit."""

    def watch(self, task: SafeTask, delivery: Delivery, message: Message) -> Watch:
        from . import errors

        return errors.reporting(task, delivery)


def report_unless_observed(task: SafeTask, exception: BaseException, delivery: Delivery) -> None:
    """Report a failure at once if no ReportObserver will: then no consumer runs the task."""
    try:
        if is_sending():
            from . import errors

            if not errors.is_observed(delivery):
                errors.report_failure(task, exception, delivery)
    except Exception as exc:
        logger.error("could not report the failure to Sentry error=%s", exc, exc_info=exc)
