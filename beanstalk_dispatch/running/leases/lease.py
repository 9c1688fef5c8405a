"""Lease: keeps a message from running twice, with entries in a cache that all workers share.

There are two entries for each task: for its id, its function and its queue, so that a message with
the id of another task cannot end that one. The *owner's entry* is made with the cache's atomic
``add`` before the task runs. The *end* is set when an attempt has ended and will not be repeated.
Every later delivery of that attempt is a duplicate. The end is set before the owner's entry is
deleted, so the next owner sees it.

The result of the task is read and written in the same requests, if it is kept in the same cache.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Final

from beanstalk_dispatch.exceptions import AlreadyDone, AlreadyRunning, TaskCancelled
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.record import cancelled_key, paused_key
from beanstalk_dispatch.messages.shared_cache import (
    Announcement,
    CacheEntry,
    SharedCache,
    cache_key,
    errors_logged,
    required,
)
from beanstalk_dispatch.running.run import SharedResult

from .held_leases import LEASE_SECONDS, OwnedEntry
from .process_identity import has_ended

logger = logging.getLogger("beanstalk_dispatch.task.lease")

ENDED_SECONDS: Final = 4 * 86400
"""The seconds that a finished task is remembered: as long as a queue keeps messages by default.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""
WHY_CANCELLED: Final = "it was cancelled before it ran"
_DONE: Final = math.inf
_RENEWED_WAIT: Final = 30.0
"""The seconds until the next try at a lease that was renewed.

Its owner lived at most a minute ago.
"""


class Lease(OwnedEntry):
    """The right to run one attempt of one task. Only its owner gives it up."""

    lost_line = "lease lost id=%s cache=%s: the task may run twice"
    not_updated_line = "lease not updated id=%s cache=%s expires_in=%s"

    def __init__(
        self, alias: str, message: Message, *, queue: str, time_limit: float,
        result: SharedResult | None = None,
    ) -> None:  # fmt: skip
        key = task_key(queue, message)
        # Workers of earlier releases share these keys.
        keys = [cache_key("turn", key)]
        super().__init__(alias, keys, name=message.id, time_limit=time_limit)
        self._end_key = cache_key("mark", key)
        self._message, self._result = message, result
        self._cancelled, self._paused = cancelled_key(message.id), paused_key(queue)
        self.paused_since: float | None = None
        """The time when the queue was paused, in Unix seconds.

        None if it is not paused, or if the cache was not asked.
        """
        self._is_done = False

    def take(self, *, asks_for_pause: bool = False, announces: bool = False) -> None:
        """Take the lease for this attempt.

        Raise AlreadyDone if the attempt has ended, AlreadyRunning if another delivery runs it,
        TaskCancelled if the task is cancelled, LeaseUnavailable if the cache does not answer. One
        answer of the cache also says whether the task is cancelled and, with ``asks_for_pause``,
        since when the queue is paused. With ``announces`` the result says that the task runs.
        """
        bars = [self._end_key, self._cancelled, *([self._paused] if asks_for_pause else [])]
        reads, result, announcement = bars, self._result, None
        if result is not None:
            reads = [*bars, result.key]
            announcement = Announcement(result.first_entry(), bars) if announces else None
        found = self._take(reads, announcement)
        is_over, is_cancelled = self._is_over(found), self._cancelled in found
        if not self.key and not is_over and self._replace(found):
            announcement = None
            try:
                with required(self._alias) as shared:  # it may have been set since it was read
                    is_over = self._is_over({self._end_key: shared.cache.get(self._end_key, 0)})
            except BaseException:
                self.give_up()
                raise
        if self.key and (is_over or is_cancelled):
            self.give_up()
        self._raise_unless_mine(found, is_over=is_over, is_cancelled=is_cancelled)
        self.paused_since = found.get(self._paused)
        if result is not None:
            is_announced = announcement is not None and self.paused_since is None
            result.read(found.get(result.key), is_announced=is_announced)

    def _raise_unless_mine(
        self, found: Mapping[str, Any], *, is_over: bool, is_cancelled: bool
    ) -> None:
        if is_over:
            raise AlreadyDone("this attempt has ended before")
        if not self.key:
            _, until = found.get(self._keys[0], ("", time.time() + 1))
            raise AlreadyRunning("the same message is running", _seconds_to_wait(until))
        if is_cancelled:
            raise TaskCancelled(WHY_CANCELLED)

    def _is_over(self, found: Mapping[str, Any]) -> bool:
        return bool(self._message.attempt < found.get(self._end_key, 0))

    def done(self) -> None:
        """Note that the task ran to success, so nothing of it ever runs again.

        May be called twice.
        """
        if self._is_done:
            return
        self._is_done = True
        result = None if self._result is None else self._result.success_entry()
        entries = [] if result is None else [result]
        # What nobody may run needs no free entry: the owner's is left to expire.
        self._end(CacheEntry(self._end_key, _DONE, ENDED_SECONDS), *entries, is_freed=False)

    def handed_on(self) -> None:
        """Note that this attempt has ended: the next one or the dead-letter queue follows."""
        self._is_done = False
        self._end(CacheEntry(self._end_key, self._message.attempt + 1, ENDED_SECONDS))

    def give_up(self) -> None:
        """Let the same attempt run again, at once."""
        self._end(is_freed=not self._is_done)


def free_lease_of_ended(alias: str, message: Message, *, queue: str) -> None:
    """Free the lease of a task whose process has ended, so that it may run again at once."""
    key = cache_key("turn", task_key(queue, message))
    with errors_logged(logger, "lease not freed id=%s cache=%s", message.id, alias):
        shared = SharedCache(alias)
        owned = shared.cache.get(key, ("", 0.0))
        if has_ended(owned[0].rpartition(" ")[2]):
            shared.free(key, owned)


def _seconds_to_wait(until: float) -> float:
    """Return the seconds to wait for a lease that ends then, if nobody has renewed it."""
    left = until - time.time()
    return min(max(left, 1.0), LEASE_SECONDS) if left > 0 else _RENEWED_WAIT


def task_key(queue: str, message: Message) -> str:
    """Return what an entry of a task has in its key, so that no other task can have it."""
    return "\n".join((queue, message.function, message.id))
