"""postpone: let a message that cannot run yet wait as a delayed copy, where nobody receives it."""

from __future__ import annotations

from typing import Final

from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.ending import sent_again
from beanstalk_dispatch.running.run import Run

MAX_WAITING_RECEIVES: Final = 3
"""The receive from which on a message waits as a copy.

aws-sqsd brings a message back after two seconds and gives it up after ten receives. A lease whose
owner is gone lasts longer than that, and so does a broken deployment.
"""
_COPY_SECONDS: Final = 30.0


def postpone(run: Run, result: Result) -> Result | None:
    """Send a message again that cannot run now, so that no receive is spent meanwhile."""
    if not _may_wait_as_copy(run):
        return None
    delay = result.retry_after or _COPY_SECONDS
    copy = sent_again(run, run.message, delay, Outcome.DEFERRED, waits_because=result.reason)
    return copy if copy.is_acknowledged else result


def _may_wait_as_copy(run: Run) -> bool:
    """Return True if a copy can wait without being received.

    For a lease it can only if there is one: otherwise nothing would know the copy as the same
    message. A poller hides the message instead. A listed function may be missing for longer.
    """
    is_for_lease = not isinstance(run.exception, UnknownFunction)
    if is_for_lease and (run.config.lease_cache is None or run.consumer.can_hide):
        return False
    return run.receive_count >= MAX_WAITING_RECEIVES and not is_fifo(run.queue)
