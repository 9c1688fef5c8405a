"""unique: free the key of a unique call whose task will not run, or not again."""

from __future__ import annotations

from beanstalk_dispatch.messages import unique_key
from beanstalk_dispatch.messages.outcomes import Outcome, Successor
from beanstalk_dispatch.running.run import Run, Surround


def unique(run: Run) -> Surround:
    """Free the key if the task was cancelled, has expired or has failed permanently.

    The key of a task that is unique until its end is freed after a success, too.
    """
    result = yield
    is_over = result.is_acknowledged or result.is_final
    is_freed = result.outcome is Outcome.DONE and "until" not in run.message.unique
    if is_over and not is_freed and result.successor is not Successor.COPY:
        unique_key.free(run.message, run.config)
    return None
