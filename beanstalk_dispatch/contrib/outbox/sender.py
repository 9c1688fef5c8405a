"""The thread of this process that sends the messages that the process has committed."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.process import state
from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.sqs.warming import warm_clients

from .committed import MAX_REMEMBERED, Committed, StoredRow
from .relay import Relay, close_old_connections

EXIT_SECONDS: Final = 5.0
"""Seconds that the end of the process waits for messages that were committed just before."""
RESTART_SECONDS: Final = 1.0
"""Before the thread continues after an unexpected error."""
DATABASE_RETRY_SECONDS: Final = 5.0
"""Seconds before the remaining messages are tried again after an error of the database."""


class Sender:
    """A thread that sends the committed messages, by the ids of the rows.

    So a request waits for its INSERT only, and the messages that several requests have committed
    meanwhile are sent together. The thread is started on first use. A forked child starts without
    one.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the thread and its messages: after a fork the thread does not exist here."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._new: list[StoredRow] = []
        """The messages that were committed since the thread has last taken them."""
        self._has_unknown = False
        """True if rows were committed whose ids the database did not tell."""
        self._wanted = 0
        """The number of times that a commit has asked for its messages to be sent."""
        self._done = 0
        """Up to which of them it was tried."""

    def wake(self, rows: Sequence[StoredRow] = (), *, is_complete: bool = True) -> None:
        """Have committed rows sent, and return at once.

        Without ``is_complete`` there are others, whose ids are unknown.
        """
        with self._changed:
            if len(self._new) < MAX_REMEMBERED:  # a relay sends the others
                self._new += rows
            self._has_unknown = self._has_unknown or not is_complete
            self._wanted += 1
            self._changed.notify_all()
            if self._thread is None:
                with suppress(RuntimeError):  # the interpreter is ending: a relay sends it
                    self._thread = self._start_thread()

    def flush(self, seconds: float) -> bool:
        """Wait until the messages committed before were tried.

        Return False if that takes too long.
        """
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
        with suppress(SendError):  # which the first message will have, too
            warm_clients(get_config())  # a fork waits for its imports
        relay, committed = Relay(), Committed()
        while True:
            seconds = relay.retry_in()
            if seconds is None and committed:
                seconds = DATABASE_RETRY_SECONDS
            with self._changed:
                self._changed.wait_for(lambda: self._wanted > self._done, seconds)
            wanted = self._wanted
            try:
                wanted = self._send_committed(relay, committed)
                close_old_connections()
            finally:
                with self._changed:
                    self._done = wanted
                    self._changed.notify_all()

    def _send_committed(self, relay: Relay, committed: Committed) -> int:
        """Send until no more can be sent now. Return the number of the last call of ``wake``.

        Messages that are committed meanwhile do not wait for the end of the others.
        """
        while True:
            with self._changed:
                wanted, new, has_unknown = self._wanted, self._new, self._has_unknown
                self._new, self._has_unknown = [], False
            committed.add(new)
            if has_unknown:
                relay.send_available()
            if not relay.send_committed(committed):
                return wanted


SENDER: Final = Sender()
state.declare(SENDER.forget, in_tests=False)
atexit.register(SENDER.flush, EXIT_SECONDS)
