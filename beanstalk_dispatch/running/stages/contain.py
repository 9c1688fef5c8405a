"""contain: note the running task, so that it is known if the process ends before the task does."""

from __future__ import annotations

from beanstalk_dispatch.exceptions import TaskCut
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.running.crash_ledger import MAX_CUTS
from beanstalk_dispatch.running.open_files import can_open_files
from beanstalk_dispatch.running.refusing import sent_to_dead_letter_queue
from beanstalk_dispatch.running.run import Run, Surround
from beanstalk_dispatch.running.running_tasks import RUNNING


def contain(run: Run) -> Surround:
    """Keep the task in the crash ledger until its retry or dead letter is sent."""
    running = run.running
    with running:
        result = yield
        if run.attempted.outcome is not Outcome.DONE and not can_open_files():
            running.count_as_cut()
    if result.is_acknowledged:
        running.forget_cuts()
    return None


def send_cut_task(run: Run) -> Result | None:
    """Send a task that has ended its process too often to the dead-letter queue.

    Return None if it has to run.
    """
    running = run.running = RUNNING.task(run.accepted, run.delivery, run.config)
    if running.times_cut < MAX_CUTS:
        return None
    reason = f"its process ended or ran out of files {running.times_cut} times"
    run.exception = TaskCut(reason)
    result = sent_to_dead_letter_queue(
        run, Result(outcome=Outcome.CUT, reason=reason, is_final=True)
    )
    if result.successor is not Successor.DEAD_LETTER:
        run.exception = None
        return None
    run.outcome = result.outcome
    running.forget_cuts()  # moved back to its queue, it is to run
    return result
