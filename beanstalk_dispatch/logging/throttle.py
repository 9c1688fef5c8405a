"""Limits the lines about refusals to one a minute for each kind, and counts the others."""

from __future__ import annotations

import threading
import time
from typing import Final

from beanstalk_dispatch.process import state

INTERVAL_SECONDS: Final = 60.0
"""Between two lines about refusals of one kind."""


class Throttle:
    """Counts refusals by their kind. The kinds are words of this package, so they are few."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child has refused nothing yet, and cannot trust a lock it did not make."""
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._repeated: dict[str, int] = {}

    def repeated(self, kind: str) -> str | None:
        """Count a refusal, and return the field ``repeated`` of its line; None: log no line.

        The field begins with a space. It is empty if every refusal before this one had a line.
        """
        count = self.count(kind)
        if count is None:
            return None
        return f" repeated={count}" if count else ""

    def count(self, kind: str) -> int | None:
        """Count a refusal, and return how many before it had no line; None: log no line."""
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
