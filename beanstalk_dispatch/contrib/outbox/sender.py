"""Sender: one thread of this process that sends what the process has committed."""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from typing import Final

from beanstalk_dispatch.service_thread import ServiceThread

from .relay import Relay, close_old_connections

EXIT_SECONDS: Final = 5.0
"""How long the end of the process waits for messages that were committed just before."""
RESTART_SECONDS: Final = 1.0
"""Before the thread continues after an unexpected error."""


class Sender:
    """Wakes a relay in a thread of its own when something was committed.

    So a request waits for its INSERT only, and what several requests have committed meanwhile is
    sent together. The thread is started on first use. A forked child starts without one.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the thread: after a fork it does not exist."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wanted = 0
        """How often a commit has asked for a look into the outbox."""
        self._done = 0
        """Up to which of them the outbox was looked into."""

    def wake(self) -> None:
        """Have what was committed sent. Returns at once."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()
            if self._thread is None:
                with suppress(RuntimeError):  # the interpreter is ending: a relay sends it
                    self._thread = self._start_thread()

    def flush(self, seconds: float) -> bool:
        """Wait until what was committed so far was tried. False if that takes too long."""
        with self._changed:
            wanted = self._wanted
            return self._changed.wait_for(lambda: self._done >= wanted, seconds)

    def _start_thread(self) -> threading.Thread:
        thread = ServiceThread(
            self._send_until_stopped, name="outbox", restart_delay=RESTART_SECONDS
        )
        thread.start()
        return thread

    def _send_until_stopped(self) -> None:
        relay = Relay()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted > self._done, relay.retry_in())
                wanted = self._wanted
            try:
                relay.send_available()
                close_old_connections()
            finally:
                with self._changed:
                    self._done = wanted
                    self._changed.notify_all()


SENDER: Final = Sender()
os.register_at_fork(after_in_child=SENDER.reset)
atexit.register(SENDER.flush, EXIT_SECONDS)
