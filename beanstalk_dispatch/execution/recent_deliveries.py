"""What this process runs and has finished, so that a redelivery to it never runs a second time.

A daemon or proxy that has waited for too long gives up on a request that still runs here, and
SQS delivers its message again; so does a delete that never reached SQS. The lease prevents that
for all processes, but needs a cache. This needs nothing, and knows one process.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final

from beanstalk_dispatch.delivery import Delivery

MAX_FINISHED: Final = 10_000
"""How many finished messages are remembered: about two megabytes."""


def key_of(delivery: Delivery) -> str | None:
    """What a redelivery of a message has in common with its first; None without an id of SQS.

    That is the queue's name, the id that SQS gave the message, and the hash of its body. A retry is
    another SQS message, with another id. A string, because Python's garbage collector would visit
    ten thousand tuples.
    """
    if delivery.message_id is None:
        return None
    return f"{delivery.queue} {delivery.message_id} {hash(delivery.body)}"


class RecentDeliveries:
    """The messages that this process runs now, and those that it has finished last."""

    def __init__(self, max_finished: int = MAX_FINISHED) -> None:
        self._max_finished = max_finished
        self.forget_all()

    def forget_all(self) -> None:
        """A forked child has run nothing yet, and cannot trust a lock it did not make."""
        self._lock = threading.Lock()
        self._running: dict[str, float] = {}
        self._finished: OrderedDict[str, float] = OrderedDict()

    def begin(self, key: str) -> bool:
        """Note that a message is to be run; False if this process runs it or has finished it."""
        with self._lock:
            if key in self._running or key in self._finished:
                return False
            self._running[key] = time.monotonic()
            return True

    def end(self, key: str, *, is_finished: bool) -> None:
        """Note the end of a run. A message that is not finished may be run again."""
        with self._lock:
            started = self._running.pop(key)
            if is_finished:
                self._finished[key] = time.monotonic() - started
                if len(self._finished) > self._max_finished:
                    self._finished.popitem(last=False)

    def seconds_running(self, key: str) -> float | None:
        """For how long a message has been running here; None if it is not running."""
        started = self._running.get(key)
        return None if started is None else time.monotonic() - started

    def seconds_taken(self, key: str) -> float | None:
        """How long the run of a finished message took; None if it is not known to be finished."""
        return self._finished.get(key)


RECENT = RecentDeliveries()
os.register_at_fork(after_in_child=RECENT.forget_all)
