"""restore: release the locks of the task, and restore logging if it has changed that."""

from __future__ import annotations

from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.left_behind.open_files import FILES
from beanstalk_dispatch.running.left_behind.restoring import logging_state, put_right
from beanstalk_dispatch.running.run import Run, Surround


def restore(run: Run) -> Surround:
    """Release the task's locks and restore logging, before anything is sent."""
    before = logging_state()
    result = yield
    if result.outcome is not Outcome.DONE:
        FILES.are_suspect = True
    run.left_behind = put_right(run.message, before)
    return None
