"""The leases that this process holds, and the thread that renews those of long tasks."""

from __future__ import annotations

import threading
from typing import Final, Protocol

from django.db import connections

from beanstalk_dispatch.process import clock, state
from beanstalk_dispatch.process.service_thread import ServiceThread

CHECK_SECONDS: Final = 10.0
"""The seconds between two checks of the leases."""


class Renewable(Protocol):
    """A lease, as this module sees it."""

    token: str

    def renew(self) -> bool:
        """Renew the lease if it is old enough. Return False if the cache does not answer."""


class HeldLeases:
    """The leases that this process holds, by their tokens.

    While there are any, a thread checks them. It makes no request for a lease that is not old
    enough to be renewed.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all leases: a forked child holds none, and has no thread."""
        self._lock = threading.Lock()
        self._leases: dict[str, Renewable] = {}
        self._is_watched = False

    def __contains__(self, token: str) -> bool:
        return token in self._leases

    def add(self, lease: Renewable) -> None:
        """Note that this process holds a lease, or is about to ask for it."""
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
        """Note that this process does not hold a lease, whatever its cache says."""
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
        """Renew the leases that are old enough. Stop at a cache that does not answer."""
        try:
            all(lease.renew() for lease in [*self._leases.values()])
        finally:
            connections.close_all()  # this thread's, if the cache is in a database


HELD: Final = HeldLeases()
state.declare(HELD.forget)
