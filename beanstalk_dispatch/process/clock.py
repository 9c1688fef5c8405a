"""The monotonic clock and sleep. A task that replaces those of ``time`` does not change these.

Time limits and heartbeats are for all tasks of a process, so no task may stop their clock, as a
helper for tests does if it is not ended.
"""

from __future__ import annotations

from time import monotonic
from time import sleep as _sleep

__all__ = ["monotonic", "sleep"]


def sleep(seconds: float) -> None:
    """Suspend this thread. Its frame shows the watchdog that it sleeps, and takes no lock."""
    _sleep(seconds)
