"""Slots: how many of a task run at a time, by entries in the cache of the lease.

A task with the limit 5 has five entries. A run makes one of them with the cache's atomic ``add``,
renews it while it runs, and deletes it. After a kill it ends by its time, within a minute, or is
taken over at once by a process that knows its owner to have ended.
"""

from __future__ import annotations

import logging
import math
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of, unavailable_error
from beanstalk_dispatch.process import clock

from .held_leases import HELD
from .lease import CLAIM_SECONDS, LEASE_SECONDS, MARGIN, RENEW_AFTER, does_not_run
from .process_identity import process_name
from .time_limit import GRACE

logger = logging.getLogger("beanstalk_dispatch.task.lease")

MAX_WAIT_SECONDS: Final = 300.0
"""The longest wait of a message for a slot, in seconds. After it the message asks again."""
_MIN_WAIT_SECONDS: Final = 1.0
_REMEMBERED_SECONDS: Final = 86400
_WEIGHT: Final = 0.2
"""The weight of the last run in the mean time of a run."""

T = TypeVar("T")


class Slot:
    """The right of one run to be among the few of its kind. Only its owner gives it up."""

    def __init__(self, alias: str, name: str, *, limit: int, time_limit: float) -> None:
        self.token = f"{uuid.uuid4().hex} {process_name()}"
        self._alias, self._name, self._limit = alias, name, limit
        self._keys = [cache_key("slot", f"{name}\n{number}") for number in range(limit)]
        self._next_key, self._mean_key = cache_key("next", name), cache_key("mean", name)
        self._longest = time_limit + GRACE + MARGIN
        self._key = ""
        self._started = self._expires = clock.monotonic()
        self._found: Mapping[str, Any] = {}

    def take(self) -> bool:
        """Take a slot. Return False if all are taken.

        Raise LeaseUnavailable if the cache does not answer.
        """
        self._expires = clock.monotonic() + LEASE_SECONDS  # nothing is to be renewed yet
        HELD.add(self)  # before the cache knows it, as a lease
        is_taken = False
        try:
            is_taken = self._ask(self._take)
        finally:
            if not is_taken:
                HELD.discard(self)
        return is_taken

    def _take(self, cache: Any) -> bool:
        self._started = clock.monotonic()
        self._expires = self._started + LEASE_SECONDS
        self._found = cache.get_many([*self._keys, self._next_key, self._mean_key])
        keys = random.sample(self._keys, self._limit)
        return any(self._take_one(cache, each) for each in keys if each not in self._found) or any(
            self._replace(cache, each) for each in keys if each in self._found
        )

    def _take_one(self, cache: Any, key: str) -> bool:
        self._key = key
        return bool(cache.add(key, self.token, LEASE_SECONDS))

    def _replace(self, cache: Any, key: str) -> bool:
        """Replace the entry of an owner that does not run. Several runs may try.

        Only one adds the claim. ``touch`` keeps the entry from ending before it is replaced.
        """
        self._key, owner = key, self._found[key]
        if not does_not_run(owner):
            return False
        if not cache.add(cache_key("claim", f"{self._key} {owner}"), 1, CLAIM_SECONDS):
            return False
        if not cache.touch(self._key, LEASE_SECONDS) or cache.get(self._key) != owner:
            return False
        cache.set(self._key, self.token, LEASE_SECONDS)
        return True

    def seconds_to_wait(self) -> float:
        """Return the seconds after which a slot is likely to be free, once all were taken.

        Each message that waits is given a time of its own: the mean time of a run, divided by the
        limit, after that of the message before it. Raise LeaseUnavailable.
        """
        now = time.time()
        pace: float = self._found.get(self._mean_key, _MIN_WAIT_SECONDS) / self._limit
        due: float = max(now, self._found.get(self._next_key, 0.0)) + pace
        if due - now < MAX_WAIT_SECONDS:
            self._ask(lambda cache: cache.set(self._next_key, due, _REMEMBERED_SECONDS))
        seconds = (due - now) * random.uniform(0.9, 1.1)
        return min(max(seconds, _MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)

    def renew(self) -> bool:
        """Renew the slot for another minute. Return False if the cache does not answer."""
        now = clock.monotonic()
        if now < self._expires - LEASE_SECONDS + RENEW_AFTER:
            return True
        if now > self._started + self._longest:
            return True
        try:
            cache = cache_of(self._alias)  # this thread's
            is_mine = cache.get(self._key) == self.token and cache.touch(self._key, LEASE_SECONDS)
        except Exception as exc:
            self._log_failure(exc)
            return False
        if is_mine:
            self._expires = now + LEASE_SECONDS
        return True

    def give_up(self) -> None:
        """Free the slot, and note how long it was taken. Raise nothing."""
        seconds, self._longest = clock.monotonic() - self._started, -math.inf
        try:
            cache = cache_of(self._alias)
            found = cache.get_many([self._key, self._mean_key])
            if found.get(self._key) == self.token:
                cache.delete(self._key)
            mean = found.get(self._mean_key, seconds)
            mean += (seconds - mean) * _WEIGHT
            cache.set(self._mean_key, mean, _REMEMBERED_SECONDS)
        except Exception as exc:
            self._log_failure(exc)
        finally:
            HELD.discard(self)

    def _ask(self, action: Callable[[Any], T]) -> T:
        try:
            return action(cache_of(self._alias))
        except Exception as exc:
            raise unavailable_error(self._alias, exc) from exc

    def _log_failure(self, failure: Exception) -> None:
        logger.error(
            "slot not updated name=%s cache=%s expires_in=%.0f error=%s",
            quoted(self._name), self._alias, max(self._expires - clock.monotonic(), 0),
            quoted_error(failure, with_type=True),
        )  # fmt: skip
