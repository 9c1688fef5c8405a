"""The wait of a message that cannot run here, so that it does not spend its receives."""

from __future__ import annotations

import time
from typing import Final

from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.exceptions import BadSignature, NotImportable, UnknownFunction
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS

from .definitions import dispatch_table
from .run import Run

MIN_WAIT_SECONDS: Final = 10
"""The shortest wait of a message before it is delivered again, in seconds."""
UNKNOWN_SECONDS: Final = 3600.0
"""The seconds after its sending in which a message of an unknown name waits.

Meanwhile a worker that knows the name may come.
"""


def half_since(moment: float) -> float:
    """Return the wait of a message for a state that has lasted since ``moment``, in seconds.

    It is half as long. So the message is sent about 20 times in the first hour, and it does not
    come much later after a short wait.
    """
    return min(max((time.time() - moment) / 2, MIN_WAIT_SECONDS), MAX_DELAY_SECONDS)


def refused_here(run: Run, exc: BaseException) -> Result | None:
    """Return the Result of a message that another machine may run, or this one later.

    Return None for a message that is to be refused permanently.
    """
    if isinstance(exc, UnknownFunction) and _is_fault_of_machine(run, exc):
        seconds = _seconds_until_importable(run)
        return Result(outcome=Outcome.UNAVAILABLE, reason=str(exc), retry_after=seconds)
    if isinstance(exc, BadSignature) and run.message is None:
        seconds = _doubled_seconds(run)
        return Result(outcome=Outcome.BAD_SIGNATURE, reason=str(exc), retry_after=seconds)
    return None


def _is_fault_of_machine(run: Run, exc: UnknownFunction) -> bool:
    if isinstance(exc, NotImportable):
        return True
    sent_at = run.message.sent_at
    return sent_at is not None and abs(time.time() - sent_at) < UNKNOWN_SECONDS


def _seconds_until_importable(run: Run) -> float:
    if is_fifo(run.queue):
        return _doubled_seconds(run)
    since = dispatch_table.not_importable_since(run.message.function, run.config)
    return half_since(since or run.message.sent_at or time.time())


def _doubled_seconds(run: Run) -> float:
    """Return the seconds to hide a message, so that ten receives last for 50 minutes."""
    doublings = min(run.delivery.receive_count - 1, MAX_DELAY_SECONDS)
    return min(MIN_WAIT_SECONDS * 2.0**doublings, MAX_DELAY_SECONDS)
