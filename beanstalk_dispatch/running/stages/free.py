"""free: free the key of a unique call before its task starts, so that no later call is lost."""

from __future__ import annotations

from beanstalk_dispatch.messages import unique_key
from beanstalk_dispatch.running.run import Run


def free(run: Run) -> None:
    """Free the key at the first attempt, unless the task is unique until its end."""
    message = run.message
    if message.attempt == 1 and "until" not in message.unique:
        unique_key.free(message, run.config)
