"""The entries of the lease's cache that runs of this process own, and the thread that renews them.

Such an entry says that a task runs, or has a slot. It lasts for a minute and is renewed while the
task runs, so that a killed process does not block its task for longer. If its owner is known not to
run the task, the entry is replaced at once.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Protocol

from django.db import connections

from beanstalk_dispatch.exceptions import LeaseUnavailable
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.messages.shared_cache import (
    Announcement,
    CacheEntry,
    SharedCache,
    errors_logged,
    required,
)
from beanstalk_dispatch.process import clock, state
from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.running.limits.time_limit import GRACE
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

from .process_identity import has_ended, process_name

logger = logging.getLogger("beanstalk_dispatch.task.lease")

CHECK_SECONDS: Final = 10.0
"""The seconds between two checks of the entries."""
LEASE_SECONDS: Final = 60
"""The seconds that an entry lasts if nobody renews it."""
RENEW_AFTER: Final = 20.0
"""The age in seconds at which an entry is renewed.

The tasks of most projects are shorter than that.
"""
MARGIN: Final = 60.0
"""The seconds that an entry is renewed beyond the time limit and the grace period of its task.

Later than that the task is stuck, and may run elsewhere.
"""
_TRIES: Final = 3
_PAUSE: Final = 0.5  # seconds between two of them


class Renewable(Protocol):
    """An owned entry, as the thread sees it."""

    token: str

    def renew(self) -> bool:
        """Renew the entry if it is old enough. Return False if the cache does not answer."""


class HeldLeases:
    """The entries that this process owns, by their tokens.

    While there are any, a thread checks them. It makes no request for one that is not old enough
    to be renewed.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all entries: a forked child owns none, and has no thread."""
        self._lock = threading.Lock()
        self._leases: dict[str, Renewable] = {}
        self._is_watched = False
        self.was_unanswered = False
        """True if the cache may have an entry of this process that it does not own."""

    def __contains__(self, token: str) -> bool:
        return token in self._leases

    def add(self, lease: Renewable) -> None:
        """Note that this process owns an entry, or is about to ask for it."""
        with self._lock:
            self._leases[lease.token] = lease
            is_watched, self._is_watched = self._is_watched, True
        if is_watched:
            return
        try:
            ServiceThread(self._renew_while_held, name="leases").start()
        except RuntimeError:  # the process has no thread left; the lease lasts for its minute
            self._is_watched = False

    def discard(self, lease: Renewable) -> None:
        """Note that this process does not own an entry, whatever its cache says."""
        self._leases.pop(lease.token, None)

    def _renew_while_held(self) -> None:
        while self._is_needed():
            clock.sleep(CHECK_SECONDS)
            self.renew()

    def _is_needed(self) -> bool:
        with self._lock:
            self._is_watched = bool(self._leases)
            return self._is_watched

    def renew(self) -> None:
        """Renew the entries that are old enough. Stop at a cache that does not answer."""
        try:
            all(lease.renew() for lease in [*self._leases.values()])
        finally:
            connections.close_all()  # this thread's, if the cache is in a database


HELD: Final = HeldLeases()
state.declare(HELD.forget)


class OwnedEntry:
    """One of several entries in the lease's cache, which one run owns. Only its owner frees it."""

    lost_line: ClassVar[str]
    """The log line if another process has it, with the consequence."""
    not_updated_line: ClassVar[str]
    """The log line if the cache does not answer."""

    def __init__(self, alias: str, keys: Sequence[str], *, name: str, time_limit: float) -> None:
        self.token = f"{time.time()} {uuid.uuid4().hex} {process_name()}"
        self.key = ""
        """The key of the entry that is owned; empty before it is taken."""
        self._alias, self._keys, self._name = alias, keys, name
        self._seconds = min(time_limit, MAX_VISIBILITY_SECONDS) + GRACE + MARGIN
        self._value = (self.token, 0.0)
        self._expires = self._renewable_until = -math.inf

    def _take(self, reads: Sequence[str], announcement: Announcement | None) -> Mapping[str, Any]:
        """Take one of the entries if one is free, and return those that were read.

        Raise LeaseUnavailable if the cache does not answer.
        """
        now = clock.monotonic()
        self._expires, self._renewable_until = now + LEASE_SECONDS, now + self._seconds
        self._value = (self.token, time.time() + LEASE_SECONDS)
        with self._held_if_taken() as shared:
            self.key, found = shared.take(
                self._keys, self._value, LEASE_SECONDS, reads=reads, announcement=announcement
            )
        return found

    def _replace(self, found: Mapping[str, Any]) -> bool:
        """Replace one of the entries whose owners do not run, if there is any."""
        with self._held_if_taken() as shared:
            replaced = (key for key in self._keys if self._replace_one(shared, key, found))
            self.key = next(replaced, "")
        return bool(self.key)

    @contextmanager
    def _held_if_taken(self) -> Iterator[SharedCache]:
        """Hold the entry before the cache knows it: what this process does not own is replaced."""
        HELD.add(self)
        try:
            with required(self._alias) as shared:
                yield shared
        except LeaseUnavailable:
            HELD.was_unanswered = True
            raise
        finally:
            if not self.key:
                HELD.discard(self)

    def _replace_one(self, shared: SharedCache, key: str, found: Mapping[str, Any]) -> bool:
        owned = found.get(key)
        return (
            owned is not None
            and does_not_run(owned[0])
            and shared.replace(key, owned, self._value, LEASE_SECONDS)
        )

    def renew(self) -> bool:
        """Renew the entry for another minute. Return False if the cache does not answer."""
        now = clock.monotonic()
        is_young = now < self._expires - LEASE_SECONDS + RENEW_AFTER
        if not self.key or is_young or now > self._renewable_until:
            return True
        is_renewed = None
        with self._errors_logged():
            is_renewed = SharedCache(self._alias).renew(self.key, self._value, LEASE_SECONDS)
        if is_renewed:
            self._expires = now + LEASE_SECONDS
        elif is_renewed is not None and self._renewable_until > now:
            self._renewable_until = -math.inf
            logger.warning(self.lost_line, quoted(self._name), self._alias)
        return is_renewed is not None

    def _end(self, *entries: CacheEntry, is_freed: bool = True) -> None:
        """Write entries, and free this one unless it may be somebody else's by now. Raise nothing.

        The outcome stands if all tries fail. The entry then ends by its time.
        """
        self._renewable_until = -math.inf
        is_freed = is_freed and clock.monotonic() < self._expires - 1
        if entries or is_freed:
            freed = (self.key, self._value) if is_freed else None
            is_answered = False
            with self._errors_logged():
                _try(lambda: SharedCache(self._alias).write(*entries, freed=freed))
                is_answered = True
            HELD.was_unanswered |= not is_answered
        HELD.discard(self)

    def _errors_logged(self) -> errors_logged:
        return errors_logged(
            logger, self.not_updated_line, self._name, self._alias,
            lambda: f"{max(self._expires - clock.monotonic(), 0):.0f}", level=logging.ERROR,
        )  # fmt: skip


def does_not_run(owner: str) -> bool:
    """Return True if the owner of an entry is known not to run its task.

    It has ended, or it is this process, which owns no such entry: it has asked for it, or has
    freed it, and heard no answer of the cache.
    """
    process = owner.rpartition(" ")[2]
    if process and process == process_name():
        return owner not in HELD
    return has_ended(process)


def _try(action: Callable[[], None], tries: int = _TRIES) -> None:
    """Try an action on the cache, several times. Raise its last error."""
    try:
        action()
    except Exception:
        if tries == 1:
            raise
        time.sleep(_PAUSE * random.uniform(0.5, 1))
        _try(action, tries - 1)
