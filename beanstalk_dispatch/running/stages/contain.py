"""contain: note the running task, so that it is known if the process ends before the task does."""

from __future__ import annotations

from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.crash_ledger import TaskPlace
from beanstalk_dispatch.running.cutting import end_spent_task, forget_cuts
from beanstalk_dispatch.running.left_behind.open_files import can_open_files
from beanstalk_dispatch.running.run import Run, Surround
from beanstalk_dispatch.running.running_tasks import RUNNING


def contain(run: Run) -> Surround:
    """Keep the task in the crash ledger until its retry or dead letter is sent.

    A task that was cut off too often goes to the dead-letter queue instead.
    """
    running = run.running = RUNNING.task(run.message, run.delivery, run.config)
    if (result := end_spent_task(run)) is not None:
        return result
    run.child = _child_of(run)
    if run.child:
        running.place = TaskPlace.CHILD
    with running:
        result = yield
        failed_here = run.attempted.outcome is not Outcome.DONE
        if failed_here and not can_open_files():
            running.count_as_cut()
    has_ended = result.is_acknowledged and result.outcome is not Outcome.DEFERRED
    if has_ended and running.times_cut:
        forget_cuts(run)
    return None


def _child_of(run: Run) -> str | None:
    """Return ``process`` or ``fresh``; None if the task runs in this thread.

    A task that was cut off before has a process of its own, wherever there are any: it may be the
    reason.
    """
    isolation = "fresh" if run.running.times_cut else run.entry.isolation or run.config.isolation
    children = run.consumer.children
    if isolation == "thread" or children is None or not children.are_possible():
        return None
    return isolation
