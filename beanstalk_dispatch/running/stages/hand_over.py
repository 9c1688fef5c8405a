"""hand over: have a child run the rest of the stages, if the task has a process of its own."""

from __future__ import annotations

from beanstalk_dispatch.messages.outcomes import Result
from beanstalk_dispatch.running.outer_limit import allow
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS


def hand_over(run: Run) -> Result | None:
    """Return the Result of the child that has run the task; None if the task runs here.

    Raise NotImportable if no child can be made, because the project cannot be imported there.
    """
    isolation = isolation_of(run)
    if isolation == "thread" or run.consumer.children is None:
        return None
    # The child's own limits hold, and its end is certain.
    run.consumer.task_starts(MAX_VISIBILITY_SECONDS)
    allow(MAX_VISIBILITY_SECONDS)
    try:
        return run.consumer.children.run(run, is_fresh=isolation == "fresh")
    finally:
        allow(0)


def isolation_of(run: Run) -> str:
    """Return ``thread``, ``process`` or ``fresh``.

    A task that was cut off before has a process of its own, wherever there are any: it may be the
    reason.
    """
    children = run.consumer.children
    if children is None or not children.are_possible():
        return "thread"
    if run.running.times_cut:
        return "fresh"
    return run.entry.isolation or run.config.isolation
