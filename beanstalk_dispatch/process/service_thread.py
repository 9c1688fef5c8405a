"""ServiceThread: a thread that an unexpected error does not end. The wait for several threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from . import clock

logger = logging.getLogger("beanstalk_dispatch.worker")


class ServiceThread(threading.Thread):
    """A daemon thread that runs a loop until the loop returns.

    If the loop raises, which no loop is meant to do, it is logged and started again, because other
    threads rely on this one.
    """

    def __init__(self, loop: Callable[[], None], *, name: str, restart_delay: float = 1.0) -> None:
        super().__init__(name=f"beanstalk_dispatch-{name}", daemon=True)
        self._loop = loop
        self._restart_delay = restart_delay

    def run(self) -> None:
        """Run the loop, again after each unexpected error."""
        while True:
            try:
                self._loop()
            except BaseException as exc:
                logger.exception(
                    "unexpected error in thread; restarting it thread=%s error=%s",
                    self.name, type(exc).__name__,
                )  # fmt: skip
                clock.sleep(self._restart_delay)
            else:
                return


def alive(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that have not ended."""
    return [thread for thread in threads if thread.is_alive()]


def join_within(seconds: float, threads: Iterable[threading.Thread]) -> None:
    """Wait until all threads have ended, but no longer than ``seconds`` in all."""
    deadline = clock.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - clock.monotonic(), 0))
