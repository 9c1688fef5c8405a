"""Slots: how many of a task run at a time, by entries in the cache of the lease.

A task with the limit 5 has five entries. A run takes one of them, renews it while it runs, and
frees it. After a kill it ends by its time, within a minute, or is taken over at once by a process
that knows its owner to have ended.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any, Final

from beanstalk_dispatch.messages.shared_cache import CacheEntry, cache_key, required
from beanstalk_dispatch.process import clock

from .held_leases import OwnedEntry

MAX_WAIT_SECONDS: Final = 300.0
"""The longest wait of a message for a slot, in seconds. After it the message asks again."""
_MIN_WAIT_SECONDS: Final = 1.0
_REMEMBERED_SECONDS: Final = 86400
_WEIGHT: Final = 0.2
"""The weight of the last run in the mean time of a run."""


class Slot(OwnedEntry):
    """The right of one run to be among the few of its kind. Only its owner gives it up."""

    lost_line = "slot lost name=%s cache=%s: more than its limit may run"
    not_updated_line = "slot not updated name=%s cache=%s expires_in=%s"

    def __init__(self, alias: str, name: str, *, limit: int, time_limit: float) -> None:
        keys = [cache_key("slot", f"{name}\n{number}") for number in range(limit)]
        function = name.partition("\n")[0]  # no argument of the task is logged
        super().__init__(alias, random.sample(keys, limit), name=function, time_limit=time_limit)
        self._limit = limit
        self._next_key, self._mean_key = cache_key("next", name), cache_key("mean", name)
        self._started = clock.monotonic()
        self._found: Mapping[str, Any] = {}

    def take(self) -> bool:
        """Take a slot. Return False if all are taken.

        Raise LeaseUnavailable if the cache does not answer.
        """
        self._started = clock.monotonic()
        self._found = self._take([self._next_key, self._mean_key], None)
        return bool(self.key) or self._replace(self._found)

    def seconds_to_wait(self) -> float:
        """Return the seconds after which a slot is likely to be free, once all were taken.

        Each message that waits is given a time of its own: the mean time of a run, divided by the
        limit, after that of the message before it. Raise LeaseUnavailable.
        """
        now = time.time()
        pace: float = self._found.get(self._mean_key, _MIN_WAIT_SECONDS) / self._limit
        due: float = max(now, self._found.get(self._next_key, 0.0)) + pace
        if due - now < MAX_WAIT_SECONDS:
            with required(self._alias) as shared:
                shared.write(CacheEntry(self._next_key, due, _REMEMBERED_SECONDS))
        seconds = (due - now) * random.uniform(0.9, 1.1)
        return min(max(seconds, _MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)

    def give_up(self) -> None:
        """Free the slot, and note how long it was taken. Raise nothing."""
        seconds = clock.monotonic() - self._started
        mean = self._found.get(self._mean_key, seconds)
        mean += (seconds - mean) * _WEIGHT
        self._end(CacheEntry(self._mean_key, mean, _REMEMBERED_SECONDS))
