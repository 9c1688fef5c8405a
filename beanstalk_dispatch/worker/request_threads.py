"""The threads that delete, requeue and extend what was received.

There is one for all queues of a worker, and there are others while that one waits for SQS: under
load, or because requests hang. So no queue waits for another for long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch import clock
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .backoff import Backoff
from .in_flight import InFlight
from .options import WorkerOptions
from .threads import ServiceThread, alive

_DELETES: Final = 4
"""Deletes of one queue at a time."""
_REQUESTS: Final = _DELETES + 1
"""Requests of one queue at a time: there may also be one that changes visibility."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Duty:
    """One kind of request about the messages of one queue."""

    in_flight: InFlight
    send: Callable[[int], None]
    """Sends what there is, in batches of at least that many messages."""
    backoff: Backoff
    turns: threading.Semaphore
    """As many threads may send at a time."""
    next_at: float = 0.0
    """When batches that are not full are sent again."""


class RequestThreads:
    """Send what the messages in flight of all queues need."""

    def __init__(self, queues: Sequence[InFlight], options: WorkerOptions) -> None:
        self.threads: list[threading.Thread] = []
        """Those that run, and those that have ended since the last look."""
        self._options = options
        self._most_threads = _REQUESTS * len(queues)
        self._duties = [duty for in_flight in queues for duty in self._duties_of(in_flight)]
        self._work = threading.Condition()
        self._idle = 0
        self._was_busy = False
        """Whether no thread was idle at the last look."""
        self._is_closing = False
        self._last: deque[_Duty] = deque()
        """The duties that remain to be done once more before the end."""

    def _duties_of(self, in_flight: InFlight) -> Iterable[_Duty]:
        def delete(at_least: int) -> None:
            while in_flight.delete_batch(at_least=at_least):
                pass

        def change_visibility(at_least: int) -> None:
            if at_least == 1:
                while in_flight.requeue_batch():
                    self._send_heartbeats(in_flight)  # which may not wait for many requeues
                self._send_heartbeats(in_flight)

        in_flight.on_full_batch = self._wake
        yield _Duty(
            in_flight=in_flight, send=delete, backoff=in_flight.delete_backoff,
            turns=threading.Semaphore(_DELETES),
        )  # fmt: skip
        # One at a time: SQS keeps the visibility timeout that arrives last.
        yield _Duty(
            in_flight=in_flight, send=change_visibility, backoff=in_flight.requeue_backoff,
            turns=threading.Semaphore(1),
        )  # fmt: skip

    def _send_heartbeats(self, in_flight: InFlight) -> None:
        if self._options.heartbeat and not self._is_closing:
            in_flight.extend_visibility()

    def start(self) -> None:
        """Start a thread."""
        delay = self._options.times.restart_delay
        thread = ServiceThread(self._send_until_closed, name="requests", restart_delay=delay)
        with self._work:
            thread.start()
            self.threads = [*alive(self.threads), thread]

    def start_others_if_busy(self) -> None:
        """Double the threads if none was idle at this look and the last: requests take long.

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

    def close(self) -> None:
        """Have everything sent once more, whatever has failed before, and the threads end."""
        with self._work:
            self._last.extend(self._duties)
            self._is_closing = True
            self._work.notify_all()

    def _wake(self) -> None:
        """Have a full batch deleted at once, by one more thread if the load needs it."""
        with self._work:
            self._work.notify()
            is_busy = not self._idle
        if is_busy and len(alive(self.threads)) < _DELETES:
            self._start_others(1)

    def _send_until_closed(self) -> None:
        while not self._is_closing:
            for duty in self._duties:
                if duty.in_flight.messages and duty.turns.acquire(blocking=False):
                    try:
                        self._send(duty)
                    finally:
                        duty.turns.release()
            if not self._wait_for_work():
                return
        while last := self._take_last():
            self._send_last(last)

    def _take_last(self) -> _Duty | None:
        with self._work:
            return self._last.popleft() if self._last else None

    def _send_last(self, duty: _Duty) -> None:
        try:
            with duty.turns:
                duty.backoff.retry_now()
                duty.send(1)
        except BaseException:  # which nothing is meant to raise; this thread starts again
            self._last.append(duty)
            raise

    def _send(self, duty: _Duty) -> None:
        now = clock.monotonic()
        is_due = now >= duty.next_at
        if is_due:
            duty.next_at = now + self._options.times.batch_interval
        try:
            duty.send(1 if is_due else MAX_BATCH_ENTRIES)
        except BaseException as exc:  # which nothing is meant to raise
            duty.backoff.failed(exc)  # but the other queues need this thread

    def _wait_for_work(self) -> bool:
        """Wait for a full batch, but not long. False: this thread is one too many."""
        with self._work:
            self._idle += 1
            try:
                is_needed = self._is_closing or self._work.wait(self._options.times.batch_interval)
                return is_needed or self._idle == 1
            finally:
                self._idle -= 1
