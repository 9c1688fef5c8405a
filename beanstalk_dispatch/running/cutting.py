"""The end of a task that was cut off: its process ended while it ran."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace

from beanstalk_dispatch.exceptions import TaskCut
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of, errors_logged
from beanstalk_dispatch.observers import observed
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.signals import task_finished

from .crash_ledger import MAX_CUTS
from .leases.lease import ENDED_SECONDS
from .limits.outer_limit import send_signal
from .refusing import sent_to_dead_letter_queue
from .run import Run

logger = logging.getLogger("beanstalk_dispatch.task")


def end_cut_task(run: Run, reason: str, stacks: str) -> Result:
    """Count a task whose child has ended, and end its run as ``end_spent_task`` does."""
    times = max(run.running.count_as_cut(), _count_in_cache(run))
    counted = f"; it was cut off {_times(times)}" if times else ""  # nothing may count it
    return _end(run, reason + counted, is_final=times >= MAX_CUTS, stacks=stacks)


def end_spent_task(run: Run) -> Result | None:
    """End the run of a task that was cut off too often before, so that it does not run again.

    Return None if it has to run, because there is no dead-letter queue that takes it.
    """
    times = run.running.times_cut
    if times < MAX_CUTS or not run.config.dead_letter_queue:
        return None
    result = _end(run, f"its process has ended {_times(times)}", is_final=True)
    if result.successor is None:
        run.exception = run.outcome = None
        return None
    return result


def forget_cuts(run: Run) -> None:
    """Forget that the task was cut off, because it is done or somebody is to look at it."""
    run.running.forget_cuts()
    if run.config.lease_cache is not None:
        with suppress(Exception):
            cache_of(run.config.lease_cache).delete(_key(run))


def _end(run: Run, reason: str, *, is_final: bool, stacks: str = "") -> Result:
    """Return the Result, once the observers have seen an attempt that has it from its start."""
    run.exception = cut = TaskCut(reason)
    cut.stacks = stacks
    result = Result(outcome=Outcome.CUT, reason=reason, is_final=is_final)
    if is_final:
        result = sent_to_dead_letter_queue(run, result)
        is_taken = result.successor is Successor.DEAD_LETTER
        result = replace(result, is_final=is_taken)
        if is_taken:  # moved back to its queue, it is to run
            forget_cuts(run)
    run.outcome = result.outcome
    task = _uninitialized_task(run)
    with observed(run.entry.observers, "attempting", task, run):
        run.set_fate(result)
    if task_finished.receivers:
        send_signal(
            "task_finished", task_finished,
            sender=type(task), delivery=run, outcome=result.outcome, exception=run.exception,
            duration=clock.monotonic() - run.started,
        )  # fmt: skip
    return result


def _uninitialized_task(run: Run) -> SafeTask:
    """Return an instance for observers, which shows the attributes of its class.

    It is made without the class's own code, which has just ended a process.
    """
    task = object.__new__(run.entry.task_class)
    object.__setattr__(task, "delivery", run)
    return task


def _count_in_cache(run: Run) -> int:
    """Count the cut for all machines, and return the count; 0 if no cache can."""
    if run.config.lease_cache is None:
        return 0
    with errors_logged(
        logger, "cut not counted id=%s cache=%s", run.message.id, run.config.lease_cache
    ):
        cache = cache_of(run.config.lease_cache)
        cache.add(_key(run), 0, ENDED_SECONDS)
        return int(cache.incr(_key(run)))
    return 0


def _key(run: Run) -> str:
    return cache_key("cuts", f"{run.queue}\n{run.message.id}")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
