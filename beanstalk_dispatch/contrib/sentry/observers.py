"""What watches a task for Sentry. Without a client to send with, none of it imports the SDK."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.execution.observers import Observer, Publication
from beanstalk_dispatch.safe_task import SafeTask

from . import setup
from .setup import is_sending

logger = logging.getLogger("beanstalk_dispatch.sentry")


class ScopeObserver(Observer):
    """Gives each run a scope of its own, and reports a refused delivery."""

    @contextmanager
    def delivering(self, delivery: Delivery) -> Iterator[None]:
        if not is_sending():  # otherwise a client that the project has set up late is adopted
            yield
            return
        from . import errors

        with errors.delivering(delivery):
            yield

    def attempting(self, task: SafeTask, delivery: Delivery) -> AbstractContextManager[object]:
        setup.init_on_first_use()
        if delivery.message is None or not is_sending():
            return nullcontext()
        from . import errors

        return errors.scope_of(delivery)


class TraceObserver(Observer):
    """Continues one trace from the process that schedules to the task."""

    def publishing(
        self, publications: Sequence[Publication], queue: str
    ) -> AbstractContextManager[object]:
        if not is_sending():
            return nullcontext()
        from . import spans

        return spans.publishing(publications, queue)

    def attempting(self, task: SafeTask, delivery: Delivery) -> AbstractContextManager[object]:
        if delivery.message is None or not is_sending():
            return nullcontext()
        from . import spans

        return spans.processing(task, delivery, delivery.message)


class CheckInObserver(Observer):
    """Sends check-ins of periodic tasks."""

    def attempting(self, task: SafeTask, delivery: Delivery) -> AbstractContextManager[object]:
        if delivery.message is None or not is_sending():
            return nullcontext()
        from . import crons

        return crons.checking_in(task, delivery, delivery.message)


class ReportObserver(Observer):
    """Reports a failure when the hooks have ended, outside of any time limit."""

    def attempting(self, task: SafeTask, delivery: Delivery) -> AbstractContextManager[object]:
        if not is_sending():
            return nullcontext()
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
