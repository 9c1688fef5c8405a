"""The actions of a worker's threads every few seconds, and the threads that have not ended."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

from beanstalk_dispatch.process import clock


def every(seconds: float, action: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls ``action``, but only once in ``seconds``."""
    called_at = -math.inf

    def tick() -> None:
        nonlocal called_at
        if clock.monotonic() - called_at >= seconds:
            called_at = clock.monotonic()
            action()

    return tick


def alive(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that have not ended."""
    return [thread for thread in threads if thread.is_alive()]


def join_within(seconds: float, threads: Iterable[threading.Thread]) -> None:
    """Wait until all threads have ended, but no longer than ``seconds`` in all."""
    deadline = clock.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - clock.monotonic(), 0))
