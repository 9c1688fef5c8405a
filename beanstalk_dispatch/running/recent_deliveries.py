"""The messages that this process runs or has finished, so that no redelivery runs a second time.

A daemon or proxy that has waited for too long gives up on a request that still runs here, and SQS
delivers its message again. So does a delete that never reached SQS. The lease prevents that for all
processes, but needs a cache. This needs nothing, and knows one process.
"""

from __future__ import annotations

import threading
from array import array
from typing import Final, NamedTuple

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.process import state

from .run import Run

MAX_FINISHED: Final = 65_536
"""The number of finished messages that are remembered at most, in 768 KiB.

Each has its place in a table by its key, and a later message takes the place of an earlier one. So
nine of ten messages are still known when seven thousand others have finished.
"""


def key_of(delivery: Delivery) -> int:
    """Return the key that all deliveries of a message share.

    It is made of the queue's name, the id that SQS gave the message, and its body. A retry is
    another SQS message, with another id.
    """
    return hash((delivery.queue, delivery.message_id, delivery.body)) or 1


class Earlier(NamedTuple):
    """An earlier run of a message in this process."""

    running: Run | None
    """The run itself; None if it has finished the message."""
    seconds: float
    """The seconds that it has taken."""


class RecentDeliveries:
    """The messages that this process runs now, and those that it has finished last.

    The finished ones are in arrays of numbers, because thousands of objects that are made and freed
    one after the other would slow every task down.
    """

    def __init__(self, size: int = MAX_FINISHED) -> None:
        self._size = size
        self.forget()

    def forget(self) -> None:
        """Forget all messages: a forked child has run none, and cannot trust its parent's lock."""
        self._lock = threading.Lock()
        self._running: dict[int, Run] = {}
        self._finished = array("q", bytes(8 * self._size))
        self._seconds = array("f", bytes(4 * self._size))

    def begin(self, key: int, run: Run) -> Earlier | None:
        """Note that a run is to begin, unless an earlier one of its message is known: return that.

        One step finds it. A look that comes later would take a run that has failed meanwhile for
        one that has finished its message.
        """
        with self._lock:
            if (running := self._running.get(key)) is not None:
                return Earlier(running, running.seconds)
            place = key % self._size
            if self._finished[place] == key:
                return Earlier(None, self._seconds[place])
            self._running[key] = run
            return None

    def end(self, key: int, *, is_finished: bool) -> None:
        """Note the end of a run. A message that is not finished may be run again."""
        with self._lock:
            run = self._running.pop(key)
            if is_finished:
                place = key % self._size
                self._finished[place] = key
                self._seconds[place] = run.seconds


RECENT = RecentDeliveries()
state.declare(RECENT.forget)
