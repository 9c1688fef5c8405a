"""Limit the log lines about one kind of event to one a minute, and count the others."""

from __future__ import annotations

import threading
import time
from typing import Final

from beanstalk_dispatch.process import state

INTERVAL_SECONDS: Final = 60.0
"""The seconds between two lines about events of one kind."""


class Throttle:
    """A count of events by their kind. The kinds are words of this package, so there are few."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all events: a forked child has none, and cannot trust its parent's lock."""
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._repeated: dict[str, int] = {}

    def repeated(self, kind: str) -> str | None:
        """Count an event, and return the field ``repeated`` of its line; None: log no line.

        The field begins with a space. It is empty if every event before this one had a line.
        """
        count = self.count(kind)
        if count is None:
            return None
        return f" repeated={count}" if count else ""

    def count(self, kind: str) -> int | None:
        """Count an event, and return the number before it that had no line; None: log no line."""
        now = time.monotonic()
        with self._lock:
            logged_at = self._logged_at.get(kind)
            if logged_at is not None and now - logged_at < INTERVAL_SECONDS:
                self._repeated[kind] = self._repeated.get(kind, 0) + 1
                return None
            self._logged_at[kind] = now
            return self._repeated.pop(kind, 0)


THROTTLE: Final = Throttle()
state.declare(THROTTLE.forget)
