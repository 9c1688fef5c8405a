"""Lease: keeps a message from running twice, with entries in a cache that all workers share.

There are two entries for each task: for its id, its function and its queue, so that a message with
the id of another task cannot end that one. The *owner's entry* is made with the cache's atomic
``add`` before the task runs. It lasts for a minute and is renewed while the task runs, so that a
killed process does not block its task for longer. If its owner is known not to run the task, the
entry is replaced at once. The *end* is set when an attempt has ended and will not be repeated.
Every later delivery of that attempt is a duplicate. The end is set before the owner's entry is
deleted, so the next owner sees it.
"""

from __future__ import annotations

import functools
import logging
import math
import random
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from beanstalk_dispatch.exceptions import AlreadyDone, AlreadyRunning, TaskCancelled
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.record import cancelled_key, paused_key
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of, unavailable_error
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

from .held_leases import HELD
from .process_identity import has_ended, process_name
from .time_limit import GRACE

logger = logging.getLogger("beanstalk_dispatch.task.lease")

LEASE_SECONDS: Final = 60
"""The seconds that a lease lasts if nobody renews it."""
RENEW_AFTER: Final = 20.0
"""The age in seconds at which a lease is renewed.

The tasks of most projects are shorter than that.
"""
MARGIN: Final = 60.0
"""The seconds that a lease is renewed beyond the time limit and the grace period of its task.

Later than that the task is stuck, and may run elsewhere.
"""
ENDED_SECONDS: Final = 4 * 86400
"""The seconds that a finished task is remembered: as long as a queue keeps messages by default.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""
WHY_CANCELLED: Final = "it was cancelled before it ran"
_DONE: Final = math.inf
_TRIES: Final = 3
_PAUSE: Final = 0.5  # seconds between two of them
_RENEWED_WAIT: Final = 30.0
"""The seconds until the next try at a lease that was renewed.

Its owner lived at most a minute ago.
"""
CLAIM_SECONDS: Final = 10
"""The seconds for one delivery to replace the entry of an owner that does not run the task."""


class Lease:
    """The right to run one attempt of one task. Only its owner gives it up.

    Raise ConfigurationError if there is no such cache.
    """

    def __init__(self, alias: str, message: Message, *, queue: str, time_limit: float) -> None:
        key = task_key(queue, message)
        # Workers of earlier releases share these keys.
        self._entry_key, self._end_key = cache_key("turn", key), cache_key("mark", key)
        self._alias = alias
        self._cache = cache_of(alias)
        self._message = message
        self._seconds = min(time_limit, MAX_VISIBILITY_SECONDS) + GRACE + MARGIN
        self.token = f"{time.time()} {uuid.uuid4().hex} {process_name()}"
        self._paused = paused_key(queue)
        self.paused_since: float | None = None
        """The time when the queue was paused, in Unix seconds.

        None if it is not paused, or if the cache was not asked.
        """
        self._is_done = False

    def take(self, *, asks_for_pause: bool = False) -> None:
        """Take the lease for this attempt.

        Raise AlreadyDone if the attempt has ended, AlreadyRunning if another delivery runs it,
        TaskCancelled if the task is cancelled, LeaseUnavailable if the cache does not answer. One
        answer of the cache also says whether the task is cancelled and, with ``asks_for_pause``,
        since when the queue is paused.
        """
        self._entry = (self.token, time.time() + LEASE_SECONDS)
        self._expires = clock.monotonic() + LEASE_SECONDS
        self._renewable_until = clock.monotonic() + self._seconds
        HELD.add(self)  # before the cache knows it: what this process does not hold is replaced
        try:
            self._take(asks_for_pause=asks_for_pause)
        except BaseException:
            HELD.discard(self)
            raise

    def _take(self, *, asks_for_pause: bool) -> None:
        cache, cancelled = self._cache, cancelled_key(self._message.id)
        taken = False
        try:
            taken = cache.add(self._entry_key, self._entry, LEASE_SECONDS)
            keys = [self._end_key, cancelled, *([self._paused] if asks_for_pause else [])]
            found = cache.get_many(keys if taken else [*keys, self._entry_key])
            is_over = self._is_over(found)
            owner, until = found.get(self._entry_key, ("", time.time() + 1))
            wait = _seconds_to_wait(until)
            if not taken and not is_over and does_not_run(owner):
                taken, is_over = self._replace(owner)
        except Exception as exc:
            if taken:
                self.give_up()
            raise unavailable_error(self._alias, exc) from exc
        is_cancelled, self.paused_since = cancelled in found, found.get(self._paused)
        if taken and (is_over or is_cancelled):
            self.give_up()
        if is_over:
            raise AlreadyDone("this attempt has ended before")
        if not taken:
            raise AlreadyRunning("the same message is running", wait)
        if is_cancelled:
            raise TaskCancelled(WHY_CANCELLED)

    def _replace(self, owner: str) -> tuple[bool, bool]:
        """Replace the entry of an owner that does not run the task, unless the task is over.

        Return whether the entry was replaced, and whether the task is over. Several deliveries may
        try. The claim is for this owner's entry, so only one of them can add it, and that one
        compares and sets. It reads the end again: the owner may have set it, and then ended, since
        it was read first.
        """
        cache = self._cache
        if not cache.add(cache_key("claim", f"{self._entry_key} {owner}"), 1, CLAIM_SECONDS):
            return False, False
        found = cache.get_many([self._end_key, self._entry_key])
        is_over = self._is_over(found)
        is_same = found.get(self._entry_key, ("",))[0] == owner
        if is_same and not is_over:
            cache.set(self._entry_key, self._entry, LEASE_SECONDS)
        return is_same and not is_over, is_over

    def _is_over(self, found: Mapping[str, Any]) -> bool:
        return bool(self._message.attempt < found.get(self._end_key, 0))

    def renew(self) -> bool:
        """Renew the lease for another minute. Return False if the cache does not answer.

        ``touch`` changes no value. So if another process has taken the lease, because this one was
        suspended, the entry stays that of the other process.
        """
        now = clock.monotonic()
        if now < self._expires - LEASE_SECONDS + RENEW_AFTER or now > self._renewable_until:
            return True
        try:
            cache = cache_of(self._alias)  # this thread's
            found = cache.get(self._entry_key)
            is_mine = bool(found) and found[0] == self.token
            is_mine = is_mine and cache.touch(self._entry_key, LEASE_SECONDS)
        except Exception as exc:
            self._log_failure(exc)
            return False
        if is_mine:
            self._expires = now + LEASE_SECONDS
        elif self._renewable_until > now:
            self._renewable_until = -math.inf
            logger.warning(
                "lease lost id=%s cache=%s: the task may run twice",
                quoted(self._message.id), self._alias,
            )  # fmt: skip
        return True

    def done(self) -> None:
        """Note that the task ran to success, so nothing of it ever runs again.

        May be called twice.
        """
        if not self._is_done:
            self._is_done = True
            self._end_attempt(_DONE)

    def handed_on(self) -> None:
        """Note that this attempt has ended: the next one or the dead-letter queue follows."""
        self._is_done = False
        self._end_attempt(self._message.attempt + 1)

    def give_up(self) -> None:
        """Let the same attempt run again, at once."""
        self._renewable_until = -math.inf
        if not self._is_done and clock.monotonic() < self._expires - 1:
            self._try_cache(self._free)
        # Otherwise there is nothing left to run, or it may be somebody else's by now.
        HELD.discard(self)

    def _free(self) -> None:
        if (found := self._cache.get(self._entry_key)) and found[0] == self.token:
            self._cache.delete(self._entry_key)

    def _end_attempt(self, first_left: float) -> None:
        self._try_cache(
            functools.partial(self._cache.set, self._end_key, first_left, ENDED_SECONDS)
        )
        self.give_up()

    def _try_cache(self, action: Callable[[], Any]) -> None:
        """Try an action on the cache, several times.

        The outcome stands if all fail. The owner's entry then expires.
        """
        failure: Exception | None = None
        for number in range(_TRIES):
            if number:
                time.sleep(_PAUSE * random.uniform(0.5, 1))
            try:
                action()
            except Exception as exc:
                failure = exc
            else:
                return
        self._log_failure(failure)

    def _log_failure(self, failure: Exception | None) -> None:
        logger.error(
            "lease not updated id=%s cache=%s expires_in=%.0f error=%s",
            quoted(self._message.id),
            self._alias,
            max(self._expires - clock.monotonic(), 0),
            quoted_error(failure, with_type=True),
        )


def free_lease_of_ended(alias: str, message: Message, *, queue: str) -> None:
    """Free the lease of a task whose process has ended, so that it may run again at once."""
    key = cache_key("turn", task_key(queue, message))
    try:
        cache = cache_of(alias)
        owner, _ = cache.get(key, ("", 0.0))
        if has_ended(owner.rpartition(" ")[2]):
            cache.delete(key)
    except Exception as exc:
        logger.warning(
            "lease not freed id=%s cache=%s error=%s",
            quoted(message.id), alias, quoted_error(exc, with_type=True),
        )  # fmt: skip


def does_not_run(owner: str) -> bool:
    """Return True if the owner of a lease is known not to run its task.

    It has ended, or it is this process, which holds no such lease: it has asked for it, or has
    given it up, and heard no answer of the cache.
    """
    process = owner.rpartition(" ")[2]
    if process and process == process_name():
        return owner not in HELD
    return has_ended(process)


def _seconds_to_wait(until: float) -> float:
    """Return the seconds to wait for a lease that ends then, if nobody has renewed it."""
    left = until - time.time()
    return min(max(left, 1.0), LEASE_SECONDS) if left > 0 else _RENEWED_WAIT


def task_key(queue: str, message: Message) -> str:
    """Return what an entry of a task has in its key, so that no other task can have it."""
    return "\n".join((queue, message.function, message.id))
