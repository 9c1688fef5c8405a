"""SentrySafeTask: the SafeTask that is watched by Sentry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from beanstalk_dispatch.execution.observers import Observer
from beanstalk_dispatch.safe_task import SafeTask

from .observers import (
    CheckInObserver,
    ReportObserver,
    ScopeObserver,
    TraceObserver,
    report_unless_observed,
)
from .setup import init


class SentrySafeTask(SafeTask):
    """A SafeTask whose failures, traces and check-ins are in Sentry."""

    # Each surrounds those after it: an event is sent from inside of the scope and the trace.
    observers: ClassVar[Sequence[Observer]] = (
        ScopeObserver(), TraceObserver(), CheckInObserver(), ReportObserver(),
    )  # fmt: skip
    sentry_report_retries: bool | None = None
    """Report a failure that will be retried, too. None: SENTRY_REPORT_RETRIES, else no."""
    sentry_ignore: tuple[type[BaseException], ...] = ()
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
        init()

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        """Report the failure. An override that does not call this one changes nothing.

        In a consumer the event is sent after the hooks: it then says what became of the message,
        and no time limit can interrupt it.
        """
        if self.delivery is not None:
            report_unless_observed(self, exception, self.delivery)
        super().on_error(exception, *args, **kwargs)
