"""Hold the answer to a message that cannot run yet, so that its receives last for longer.

aws-sqsd brings a message back after two seconds and gives it up after ten receives. While another
process runs the message, or a file drains this machine, the answer to each receive takes longer
than the one before. Ten receives then last for more than two minutes, and no answer is held for
half of nginx's limit of a minute. A message that can run then has waited for that time: it is not
started if its time limit no longer fits.
"""

from __future__ import annotations

import threading
import time
from typing import Final

HOLD_SECONDS: Final = 3.0
"""How much longer each receive of a message is held than the one before it."""
_MAX_STEPS: Final = 9
_SHARE_OF_THREADS: Final = 3
"""A third of the threads may hold answers. The others are for messages that can run."""
_EB_THREADS: Final = 15
"""Where the number of threads is unknown, it is that of Elastic Beanstalk's own Procfile.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/python-configuration-procfile.html
"""


class _HoldingThreads:
    """How many threads hold an answer now."""

    def __init__(self) -> None:
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


_holders = _HoldingThreads()


def hold(receive_count: int, *, threads: int | None) -> bool:
    """Sleep as long as this receive is to be held. False at once: it is the first receive, or too
    many of the process's ``threads`` hold an answer already.
    """
    if receive_count < 2 or not _holders.enter(
        max((threads or _EB_THREADS) // _SHARE_OF_THREADS, 1)
    ):
        return False
    try:
        time.sleep(min(receive_count - 1, _MAX_STEPS) * HOLD_SECONDS)
    finally:
        _holders.leave()
    return True
