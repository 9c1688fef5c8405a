"""The messages that this process runs or has finished, so that no redelivery runs a second time.

A daemon or proxy that has waited for too long gives up on a request that still runs here, and SQS
delivers its message again. So does a delete that never reached SQS. The lease prevents that for all
processes, but needs a cache. This needs nothing, and knows one process.
"""

from __future__ import annotations

import threading
from array import array
from typing import Final

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.process import state

from .run import Run

ROOM: Final = 65_536
"""The number of finished messages that are remembered at most, in 768 KiB.

Each has its place in a table by its key, and a later message takes the place of an earlier one. So
nine of ten messages are still known when seven thousand others have finished.
"""


def key_of(delivery: Delivery) -> int | None:
    """Return the key that all deliveries of a message share.

    Return None without an id of SQS. It is made of the queue's name, the id that SQS gave the
    message, and its body. A retry is another SQS message, with another id.
    """
    if delivery.message_id is None:
        return None
    return hash((delivery.queue, delivery.message_id, delivery.body)) or 1


class RecentDeliveries:
    """The messages that this process runs now, and those that it has finished last.

    The finished ones are in arrays of numbers, because thousands of objects that are made and freed
    one after the other would slow every task down.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self.forget()

    def forget(self) -> None:
        """Forget all messages: a forked child has run none, and cannot trust its parent's lock."""
        self._lock = threading.Lock()
        self._running: dict[int, Run] = {}
        self._finished = array("q", bytes(8 * self._room))
        self._seconds = array("f", bytes(4 * self._room))

    def begin(self, key: int, run: Run) -> bool:
        """Note that a run is to begin. Return False if its message runs or has finished here."""
        with self._lock:
            if key in self._running or self._finished[key % self._room] == key:
                return False
            self._running[key] = run
            return True

    def end(self, key: int, *, is_finished: bool) -> None:
        """Note the end of a run. A message that is not finished may be run again."""
        with self._lock:
            run = self._running.pop(key)
            if is_finished:
                place = key % self._room
                self._finished[place] = key
                self._seconds[place] = run.seconds

    def running(self, key: int) -> Run | None:
        """Return the run of a message that is running here; None if it is not."""
        return self._running.get(key)

    def seconds_taken(self, key: int) -> float:
        """Return the seconds that the run of a finished message took."""
        return self._seconds[key % self._room]


RECENT = RecentDeliveries()
state.declare(RECENT.forget)
