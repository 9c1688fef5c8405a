"""The threads of one queue. Only they talk to SQS, so that no queue waits for another.

Most receive. Some delete what is acknowledged. One makes messages visible again and extends the
visibility of the others. A queue that has brought nothing has one thread; the others start later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.sqs.errors import failed_on_missing_queue
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .options import WorkerOptions
from .prefetch import MAX_OPEN_RECEIVES, Prefetch, QueueState, ReceivePermit
from .threads import ServiceThread

_FULL_BATCH_DELETERS: Final = 3
"""Threads that delete full batches only, besides the one that deletes any."""


class QueueConsumer:
    """Receives from one queue, and deletes, requeues and extends what was received."""

    def __init__(self, queue: QueueState, prefetch: Prefetch, options: WorkerOptions) -> None:
        self.queue = queue
        self._prefetch = prefetch
        self._options = options
        self._starting = threading.Lock()
        self._turn = threading.Lock()
        """Of the receivers: one at a time waits for a permit."""
        self._closing = threading.Event()
        self.receivers = [
            self._make_thread("receive", self._receive_until_closed)
            for _ in range(MAX_OPEN_RECEIVES)
        ]
        """The threads that receive."""
        self.updaters = [
            self._make_thread("delete", self._delete_until_closed),
            self._make_thread("visibility", self._change_visibility_until_closed),
            *(
                self._make_thread("delete-full", self._delete_full_batches_until_closed)
                for _ in range(_FULL_BATCH_DELETERS)
            ),
        ]
        """The threads that delete, requeue and extend."""

    def _make_thread(self, name: str, loop: Callable[[], None]) -> ServiceThread:
        return ServiceThread(
            loop,
            name=f"{name}-{self.queue.name}",
            restart_delay=self._options.times.restart_delay,
        )

    def start(self) -> None:
        """Start the thread that receives. It starts the others when the queue needs them."""
        self._start_threads(self.receivers[:1])

    def _start_threads(self, threads: Iterable[ServiceThread]) -> None:
        """Start those of the threads that have not been started."""
        with self._starting:
            for thread in threads:
                if thread.ident is None:
                    thread.start()

    def close(self) -> None:
        """Have the last deletes and requeues sent, once at most, and the threads end."""
        self._closing.set()
        self.queue.in_flight.close()

    # --- receiving -------------------------------------------------------------------------

    def _receive_until_closed(self) -> None:
        while permit := self._wait_for_permit():  # None once the worker stops
            received = None
            try:
                received = self._receive_as_permitted(permit)
            finally:
                if received:
                    self._start_threads(self.updaters)
                self._prefetch.add(permit, received)
            if self.queue.is_busy:
                self._start_threads(self.receivers)

    def _wait_for_permit(self) -> ReceivePermit | None:
        with self._turn:
            return self._prefetch.acquire(self.queue)

    def _receive_as_permitted(self, permit: ReceivePermit) -> list[Received] | None:
        """The received messages; None if the request failed."""
        queue = self.queue
        try:
            received = open_queue(queue.name).receive(
                count=permit.count,
                wait=permit.wait,
                visibility=self._options.visibility_timeout,
            )
        except Exception as exc:
            queue.is_missing = isinstance(exc, SchedulingError) and failed_on_missing_queue(exc)
            queue.receive_backoff.failed(exc, started=permit.since)
            return None
        queue.receive_backoff.succeeded()
        return received

    # --- deleting --------------------------------------------------------------------------

    def _delete_until_closed(self) -> None:
        in_flight = self.queue.in_flight
        running = True
        while running:
            in_flight.wait_for_full_batch(self._options.times.batch_interval)
            if self._closing.is_set():
                running = False
                in_flight.delete_backoff.retry_now()  # the last chance before the process ends
            self._delete_pending()

    def _delete_full_batches_until_closed(self) -> None:
        running = True
        while running:
            self.queue.in_flight.wait_for_full_batch()
            running = not self._closing.is_set()
            self._delete_pending(at_least=MAX_BATCH_ENTRIES)

    def _delete_pending(self, *, at_least: int = 1) -> None:
        while self.queue.in_flight.delete_batch(at_least=at_least):
            pass

    # --- visibility ------------------------------------------------------------------------

    def _change_visibility_until_closed(self) -> None:
        running = True
        while running:
            if self._closing.wait(self._options.times.batch_interval):
                running = False
                self.queue.in_flight.requeue_backoff.retry_now()  # the last chance here, too
            self._requeue_pending()
            self._send_heartbeats()

    def _requeue_pending(self) -> None:
        while self.queue.in_flight.requeue_batch():
            self._send_heartbeats()  # which may not wait until many batches are requeued

    def _send_heartbeats(self) -> None:
        if self._options.heartbeat and not self._closing.is_set():
            self.queue.in_flight.extend_visibility()
