"""Threads of a worker that an unexpected error does not end, and what they do every few seconds."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable

from beanstalk_dispatch import clock

logger = logging.getLogger("beanstalk_dispatch.worker")


class ServiceThread(threading.Thread):
    """A daemon thread that runs a loop until the loop returns.

    The loop returns when the worker stops. If it raises, which no loop is meant to do, it is
    logged and started again, because the other threads rely on this one.
    """

    def __init__(self, loop: Callable[[], None], *, name: str, restart_delay: float) -> None:
        super().__init__(name=f"beanstalk_dispatch-{name}", daemon=True)
        self._loop = loop
        self._restart_delay = restart_delay

    def run(self) -> None:
        """Run the loop, again after each unexpected error."""
        running = True
        while running:
            try:
                self._loop()
                running = False  # the loop has returned: the worker stops
            except BaseException as exc:
                logger.exception(
                    "unexpected error in thread; restarting it thread=%s error=%s",
                    self.name, type(exc).__name__,
                )  # fmt: skip
                clock.sleep(self._restart_delay)


def every(seconds: float, action: Callable[[], object]) -> Callable[[], None]:
    """What calls ``action`` if it is called itself, but only once in ``seconds``."""
    called_at = -math.inf

    def tick() -> None:
        nonlocal called_at
        if clock.monotonic() - called_at >= seconds:
            called_at = clock.monotonic()
            action()

    return tick


def alive(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """The threads that have not ended."""
    return [thread for thread in threads if thread.is_alive()]


def join_within(seconds: float, threads: Iterable[threading.Thread]) -> None:
    """Wait until all threads have ended, but no longer than ``seconds`` in all."""
    deadline = clock.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - clock.monotonic(), 0))
