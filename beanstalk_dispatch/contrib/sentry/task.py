"""SentrySafeTask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from beanstalk_dispatch.execution.quietly import quietly
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.safe_task import Retry, SafeTask

from . import crons, errors, spans
from .environment import variable
from .setup import init, init_on_first_use

logger = logging.getLogger("beanstalk_dispatch.sentry")


class SentrySafeTask(SafeTask):
    """A SafeTask whose failures, traces and check-ins are in Sentry.

    ``sentry_report_retries``: report a failure that will be retried, too (an environment's
    default is SENTRY_REPORT_RETRIES, else no). Of a periodic task, in minutes:
    ``sentry_checkin_margin``, how late it may start before Sentry calls it missed
    (SENTRY_CHECKIN_MARGIN), and ``sentry_max_runtime``, how long it may run before Sentry calls it
    failed (SENTRY_MAX_RUNTIME, else its time limit).
    """

    sentry_report_retries: bool | None = None
    sentry_checkin_margin: int | None = None
    sentry_max_runtime: int | None = None

    @classmethod
    def ready(cls) -> None:
        init()

    @classmethod
    def publishing(
        cls, messages: Sequence[Message], *, queue: str, encode: Callable[[Message], str]
    ) -> AbstractContextManager[Sequence[str]]:
        if not spans.is_sending():
            return super().publishing(messages, queue=queue, encode=encode)
        return spans.publishing(messages, queue=queue, encode=encode)

    def process(self, *args: Any, **kwargs: Any) -> None:
        init_on_first_use()
        with quietly(_observed(self, args, kwargs), None):
            super().process(*args, **kwargs)

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        """Report the failure. An override that does not call this one changes nothing."""
        _report(self, exception)
        super().on_error(exception, *args, **kwargs)


@contextmanager
def _observed(
    task: SentrySafeTask, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[None]:
    """A scope, a trace and check-ins of its own for one run."""
    delivery = task.delivery
    if not spans.is_sending() or delivery is None or delivery.message is None:
        yield
        return
    message = delivery.message
    is_periodic = crons.is_periodic(delivery, message)
    with (
        errors.scope_of(delivery, args, kwargs),
        quietly(spans.processing(delivery, message), _ignore) as set_status,
        quietly(crons.check_in(task, message), None) if is_periodic else nullcontext(),
    ):
        yield
        failure = _failure(task)
        if failure is not None:
            _report(task, failure)
        set_status(failure is not None)


def _ignore(failed: bool) -> None:
    """In place of a span that could not be opened."""


def _failure(task: SafeTask) -> BaseException | None:
    """What went wrong; a granted Retry is control flow."""
    exception = task._exception  # noqa: SLF001
    is_granted = task._outcome is Outcome.RETRY and isinstance(exception, Retry)  # noqa: SLF001
    return None if is_granted else exception


def _report(task: SentrySafeTask, exception: BaseException) -> None:
    wanted = task.sentry_report_retries
    if wanted is None:
        wanted = variable("SENTRY_REPORT_RETRIES")
    try:
        if task._outcome is not Outcome.RETRY or wanted:  # noqa: SLF001
            errors.report(exception, task._outcome, task.delivery)  # noqa: SLF001
    except Exception:
        logger.exception("not reported")
