"""known: run no message that this process runs already or has finished."""

from __future__ import annotations

import logging
from typing import Final

from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.limits.time_limit import GRACE
from beanstalk_dispatch.running.recent_deliveries import RECENT, Earlier, key_of
from beanstalk_dispatch.running.run import Run, Surround

logger = logging.getLogger("beanstalk_dispatch.task")

_RETRY_RUNNING_SECONDS: Final = 30.0


def known(run: Run) -> Surround:
    """Remember the message while it runs, and if it is acknowledged, afterwards."""
    key = key_of(run.delivery)
    if (earlier := RECENT.begin(key, run)) is not None:
        return _delivered_again(run, earlier)
    is_finished = False
    try:
        result = yield
        is_finished = result.is_acknowledged
    finally:
        RECENT.end(key, is_finished=is_finished)
    return None


def _delivered_again(run: Run, earlier: Earlier) -> Result:
    running, seconds = earlier
    is_behind_proxy = not run.consumer.can_hide and run.delivery.deadline is None
    if is_behind_proxy:
        logger.warning(
            "task delivered again id=%s function=%s is_running=%s seconds=%.0f: %s",
            quoted(run.message.id),
            quoted(run.message.function),
            running is not None,
            seconds,
            _explain(running, seconds, run.delivery.proxy_timeout),
        )
    if running is None:
        reason = "this process has finished the message before"
        return Result(outcome=Outcome.DUPLICATE, reason=reason)
    return Result(
        outcome=Outcome.RUNNING,
        reason="this process is running the message",
        retry_after=_RETRY_RUNNING_SECONDS,
    )


def _explain(running: Run | None, seconds: float, proxy_timeout: float) -> str:
    """Return the most likely cause of a second delivery, with its remedy."""
    if running and seconds > (limit := _time_limit(running)) + GRACE:
        return f"it runs on after its time limit of {limit:g} s, which could not interrupt it"
    if seconds >= proxy_timeout:
        return (
            "nobody waited for its answer; keep nginx's proxy_read_timeout, 60 s by default, "
            "above the task's time limit"
        )
    if running:
        return (
            f"nginx waits {proxy_timeout:g} s; keep InactivityTimeout and VisibilityTimeout "
            "above the task's time limit"
        )
    return "it was answered in time; SQS may deliver a message twice"


def _time_limit(run: Run) -> float:
    """Return the time limit of a run's task, or the default if the task has not begun."""
    return getattr(run, "time_limit", run.config.task_timeout.total_seconds())
