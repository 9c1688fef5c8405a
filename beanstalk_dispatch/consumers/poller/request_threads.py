"""The threads that delete, requeue and extend received messages.

There is one for all queues of a worker, and there are others while that one waits for SQS: under
load, or because requests hang. So no queue waits for another for long.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import suppress

from beanstalk_dispatch.process import clock
from beanstalk_dispatch.process.service_thread import ServiceThread, alive

from .in_flight import DELETES_AT_A_TIME, InFlight, Requests
from .options import WorkerOptions


class RequestThreads:
    """The threads that send to SQS the requests of the messages in flight of all queues."""

    def __init__(self, queues: Sequence[InFlight], options: WorkerOptions) -> None:
        self.threads: list[threading.Thread] = []
        """The threads that run, and those that have ended since the last check."""
        self._times = options.times
        heartbeats = [each.heartbeats for each in queues if options.heartbeat]
        self._last_kinds = [kind for each in queues for kind in (each.deletes, each.requeues)]
        """The kinds of requests that are sent until the end."""
        self._kinds = self._last_kinds + heartbeats
        self._most_threads = len(self._kinds) + len(queues) * (DELETES_AT_A_TIME - 1)
        self._work = threading.Condition()
        self._idle = 0
        self._was_busy = False
        """True if no thread was idle at the last check."""
        self._is_closing = False
        self._ends_at = math.inf
        """The time at which the threads end although requests remain, in monotonic seconds."""
        for in_flight in queues:
            in_flight.on_full_batch = self._wake

    def start(self) -> None:
        """Start a thread."""
        thread = ServiceThread(self._send_until_closed, name="requests")
        with self._work:
            thread.start()
            self.threads = [*alive(self.threads), thread]

    def start_others_if_busy(self) -> None:
        """Double the threads if none was idle at this check and the last: requests take long.

        With one more at a time, the last queue would wait for long while many others hang.
        """
        is_busy = not self._idle
        if is_busy and self._was_busy:
            running = len(alive(self.threads))
            self._start_others(min(running, self._most_threads - running))
            is_busy = False
        self._was_busy = is_busy

    def _start_others(self, count: int) -> None:
        """Start as many threads, or as many as the system allows."""
        with suppress(RuntimeError):
            for _ in range(count):
                self.start()

    def close(self, *, until: float) -> None:
        """Have the threads end once all is sent, and at ``until`` at the latest.

        Failed requests are repeated.
        """
        with self._work:
            self._kinds = self._last_kinds
            for kind in self._kinds:
                kind.backoff.hurry()
            self._is_closing, self._ends_at = True, until
            self._work.notify_all()

    def _wake(self) -> None:
        """Have a full batch deleted at once, by one more thread if the load needs it."""
        with self._work:
            self._work.notify()
            is_busy = not self._idle
        if is_busy and len(alive(self.threads)) < DELETES_AT_A_TIME:
            self._start_others(1)

    def _send_until_closed(self) -> None:
        is_needed = True
        while is_needed:
            is_closing = self._is_closing  # before the round, so that a round follows a close
            now = clock.monotonic()
            for kind in self._kinds:
                is_due = is_closing or now >= kind.next_at
                self._send(kind, at_least=1 if is_due else kind.full_batch)
            is_needed = self._wait_for_work(is_closing=is_closing)

    def _send(self, kind: Requests, *, at_least: float) -> None:
        """Send pending messages in batches of at least that size, unless enough threads do so."""
        if len(kind.pending) < at_least or not kind.may_send.acquire(blocking=False):
            return
        kind.next_at = clock.monotonic() + self._times.batch_interval
        try:
            while kind.send_batch(int(at_least)):
                pass
        except BaseException as exc:  # which nothing is meant to raise
            kind.backoff.failed(exc)  # but the other queues need this thread
        finally:
            kind.may_send.release()

    def _wait_for_work(self, *, is_closing: bool) -> bool:
        """Wait for a full batch, but not long. False: all is sent, or a thread is one too many."""
        seconds = self._times.batch_interval
        if is_closing:
            if clock.monotonic() >= self._ends_at or not any(kind.pending for kind in self._kinds):
                return False
            seconds = self._times.stop_check_interval / 10
        with self._work:
            if self._is_closing and not is_closing:
                return True
            self._idle += 1
            try:
                return self._work.wait(seconds) or self._idle == 1
            finally:
                self._idle -= 1
