"""The monotonic clock. A task that replaces ``time.monotonic`` does not change this one.

Time limits and heartbeats are for all tasks of a process, so no task may stop their clock, as a
helper for tests does if it is not ended.
"""

from __future__ import annotations

from time import monotonic

__all__ = ["monotonic"]
