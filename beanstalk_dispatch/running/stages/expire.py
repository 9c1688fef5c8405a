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
    message, expires = run.message, run.entry.expires
    if message.not_after is None and expires is not None:
        run.message = message = replace(message, not_after=_moment_by_policy(run, expires))
    if message.not_after is None or (seconds := time.time() - message.not_after) <= 0:
        return None
    return unwanted(run, Outcome.EXPIRED, TaskExpired(f"it expired {seconds:.0f} s ago"))


def _moment_by_policy(run: Run, seconds: float) -> float | None:
    """Return the moment at which the task's own ``expires`` ends it; None if it is unknown."""
    message, delivery = run.message, run.delivery
    since = message.not_before or message.sent_at or delivery.scheduled_at or delivery.sent_at
    return None if since is None else round(since + seconds, 3)
