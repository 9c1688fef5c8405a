"""hand over: have a child run the rest of the stages, if the task has a process of its own."""

from __future__ import annotations

from typing import cast

from beanstalk_dispatch.messages.outcomes import Result
from beanstalk_dispatch.running.limits.outer_limit import allow
from beanstalk_dispatch.running.run import Children, Run
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS


def hand_over(run: Run) -> Result:
    """Return the Result of the child that has run the task.

    Raise NotImportable if no child can be made, because the project cannot be imported there.
    """
    children = cast("Children", run.consumer.children)  # or the task would run here
    # The child's own limits hold, and its end is certain.
    run.consumer.task_starts(MAX_VISIBILITY_SECONDS)
    allow(MAX_VISIBILITY_SECONDS)
    try:
        return children.run(run, is_fresh=run.child == "fresh")
    finally:
        allow(0)
