"""lease: run a message once among all workers; not if it is cancelled or its queue is paused."""

from __future__ import annotations

import logging
from typing import Final

from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.exceptions import TaskCancelled
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.running.ending import cancelled, sent_again
from beanstalk_dispatch.running.kept_results import KEPT_RESULTS
from beanstalk_dispatch.running.leases.lease import Lease
from beanstalk_dispatch.running.run import Run, Surround
from beanstalk_dispatch.running.waiting import half_since

from .overdue import overdue

logger = logging.getLogger("beanstalk_dispatch.task")

_HANDED_ON: Final = frozenset({Outcome.RETRY, Outcome.CANCELLED})


def lease(run: Run) -> Surround:
    """Hold the lease while the task runs. Raise a LeaseError if another delivery has it."""
    message, config = run.message, run.config
    if config.execute_synchronously:
        return cancelled(run) if record.is_cancelled(message.id, config) else None
    alias = str(config.lease_cache)
    results = KEPT_RESULTS if config.results == alias else ()
    shared = next((each.of_run(run) for each in results), None)
    held = Lease(alias, message, queue=run.queue, time_limit=run.time_limit, result=shared)
    try:
        held.take(asks_for_pause=not run.consumer.can_hide, announces=_runs_first(run))
    except TaskCancelled:
        return cancelled(run)
    if held.paused_since is not None and _may_wait_for_resume(run):
        held.give_up()
        return _wait_for_resume(run, held.paused_since)
    run.on_success, run.shared_result = held.done, shared
    try:
        result = yield
    except BaseException:
        held.give_up()
        raise
    finally:
        run.on_success = run.shared_result = None  # they have the run, which would keep itself
    update(held, result)
    return None


def _runs_first(run: Run) -> bool:
    """Return True if the task runs once it has the lease, and if nothing has run it before."""
    is_first = (run.message.attempt, run.receive_count, run.message.leg) == (1, 1, 1)
    return is_first and "limit" not in run.entry.options and overdue(run) is None


def update(held: Lease, result: Result) -> None:
    """Note in the lease whether the attempt is done, handed on, or may run again."""
    is_handed_on = result.outcome in _HANDED_ON and result.is_acknowledged
    if result.outcome is Outcome.DONE:
        held.done()
    elif result.successor is Successor.DEAD_LETTER or is_handed_on:
        held.handed_on()
    else:
        held.give_up()


def _may_wait_for_resume(run: Run) -> bool:
    """Return True if the message can wait as a delayed copy. A poller does not receive it."""
    if not is_fifo(run.queue):
        return True
    if (repeated := THROTTLE.repeated("paused-fifo")) is not None:
        logger.warning(
            "queue is paused, but its tasks run queue=%s%s: a message of a FIFO queue cannot "
            "wait as a delayed copy; only beanstalk_worker pauses such a queue",
            quoted(run.queue), repeated,
        )  # fmt: skip
    return False


def _wait_for_resume(run: Run, paused_since: float) -> Result:
    """Send the message again, so that it waits without being received."""
    delay, why = half_since(paused_since), "the queue is paused"
    return sent_again(run, run.message, delay, Outcome.DEFERRED, waits_because=why)
