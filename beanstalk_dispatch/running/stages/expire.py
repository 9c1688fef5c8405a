"""expire: delete a message whose task is worthless by now."""

from __future__ import annotations

import time
from dataclasses import replace

from beanstalk_dispatch.exceptions import TaskExpired
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.ending import unwanted
from beanstalk_dispatch.running.run import Run


def expire(run: Run) -> Result | None:
    """End a task whose moment has passed.

    A task that expires by its policy gets its moment here, and its copies keep it.
    """
    if (moment := run.message.not_after) is None:
        if (
            run.entry.expires is None
            or (moment := _moment_by_policy(run, run.entry.expires)) is None
        ):
            return None
        run.message = replace(run.message, not_after=moment)
    if (seconds := time.time() - moment) <= 0:
        return None
    return unwanted(run, Outcome.EXPIRED, TaskExpired(f"it expired {seconds:.0f} s ago"))


def _moment_by_policy(run: Run, seconds: float) -> float | None:
    """Return the moment at which the task's own ``expires`` ends it; None if it is unknown."""
    message, delivery = run.message, run.delivery
    since = message.not_before or message.sent_at or delivery.scheduled_at or delivery.sent_at
    return None if since is None else round(since + seconds, 3)
