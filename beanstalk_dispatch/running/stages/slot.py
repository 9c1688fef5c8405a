"""slot: run no more of a task at a time than its policy allows, among all workers."""

from __future__ import annotations

from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.definitions.entries import arguments_of
from beanstalk_dispatch.running.definitions.options import limit_key
from beanstalk_dispatch.running.ending import sent_again
from beanstalk_dispatch.running.leases.slots import Slot
from beanstalk_dispatch.running.run import Run, Surround


def slot(run: Run) -> Surround:
    """Hold a slot while the task runs. A message that finds none waits as a delayed copy."""
    if (limit := run.entry.options.get("limit")) is None:
        return None
    alias = str(run.config.lease_cache)
    held = Slot(alias, _name(run), limit=limit, time_limit=run.time_limit)
    if not held.take():
        return _wait(run, held.seconds_to_wait(), f"{limit} of it run")
    try:
        yield
    finally:
        held.give_up()
    return None


def _name(run: Run) -> str:
    """Return the name of the slots: of the task, and of the arguments by which it is limited."""
    message, by = run.message, run.entry.options.get("limit_by", ())
    given = arguments_of(run.entry, message.args, message.kwargs) if by else {}
    return limit_key(message.function, given, by)


def _wait(run: Run, seconds: float, why: str) -> Result:
    """Send the message again, so that no receive is spent; on a FIFO queue it is hidden."""
    if not is_fifo(run.queue):
        return sent_again(run, run.message, seconds, Outcome.DEFERRED, waits_because=why)
    return Result(outcome=Outcome.DEFERRED, reason=why, retry_after=seconds)
