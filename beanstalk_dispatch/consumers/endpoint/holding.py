"""Hold the answer to a message that cannot run yet, so that its receives last for longer.

aws-sqsd brings a message back after two seconds and gives it up after ten receives. While a message
cannot run for a reason that ends by itself, the answer to each receive takes longer than the one
before. Ten receives then last for more than two minutes, and no answer is held for half of nginx's
limit of a minute. A message that can run then has waited for that time: it is not started if its
time limit no longer fits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.process import state

_STEP_SECONDS: Final = 3.0
"""Seconds by which each receive of a message is held longer than the one before it."""
_LONGEST_SECONDS: Final = 29.0
_EB_THREADS: Final = 15
"""The number of threads that is assumed where it is unknown: that of Elastic Beanstalk's Procfile.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/python-configuration-procfile.html
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The seconds and the number of threads for which the answers for one reason are held."""

    first_seconds: float
    """Seconds that a first receive is held; 0 if none is.

    The other threads hold all for this time.
    """
    share_of: Callable[[int], int]
    """A function that returns the number of a process's threads that may hold an answer."""

    def seconds(self, receive_count: int) -> float:
        """Return the seconds that this receive of a message is held."""
        return min(self.first_seconds + (receive_count - 1) * _STEP_SECONDS, _LONGEST_SECONDS)


FOR_ONE_MESSAGE: Final = Patience(first_seconds=0.0, share_of=lambda threads: threads // 3)
"""The patience where one message cannot run. The other threads are for those that can."""
FOR_ALL_MESSAGES: Final = Patience(first_seconds=5.0, share_of=lambda threads: threads - 2)
"""No message can run here. Two threads answer soon, for whatever else the process is asked.

Not at once: two threads could then use up the receives of 300 messages in half a minute.
"""


class _HoldingThreads:
    """The number of threads that hold an answer now."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Have no thread hold an answer: a forked child has none of its parent's."""
        self._lock = threading.Lock()
        self._count = 0

    def enter(self, limit: int) -> bool:
        with self._lock:
            if self._count >= limit:
                return False
            self._count += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._count -= 1


_holders: Final = _HoldingThreads()
state.declare(_holders.forget)


def hold(receive_count: int, patience: Patience, *, threads: int | None) -> bool:
    """Sleep as long as this receive is to be held.

    Return False if it is not: nothing is to be held at a first receive, or too many of the
    process's ``threads`` hold an answer already.
    """
    if not (seconds := patience.seconds(receive_count)):
        return False
    if not _holders.enter(max(patience.share_of(threads or _EB_THREADS), 1)):
        time.sleep(patience.first_seconds)
        return False
    try:
        time.sleep(seconds)
    finally:
        _holders.leave()
    return True
