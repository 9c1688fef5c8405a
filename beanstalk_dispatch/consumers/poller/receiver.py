"""The threads that receive from one queue, so that no queue waits for another.

A queue has one of them, and more once it brings many messages.
"""

from __future__ import annotations

import threading

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.sqs.errors import failed_on_missing_queue
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received

from .options import WorkerOptions
from .prefetch import MAX_OPEN_RECEIVES, Prefetch
from .queue_state import QueueState, ReceivePermit


class QueueReceiver:
    """The threads that receive from one queue, each with its permits."""

    def __init__(self, queue: QueueState, prefetch: Prefetch, options: WorkerOptions) -> None:
        self.queue = queue
        self._prefetch = prefetch
        self._options = options
        self._starting = threading.Lock()
        self._permit_lock = threading.Lock()
        """The right to wait for a permit, which one thread has at a time."""
        self.threads = [
            ServiceThread(self._receive_until_closed, name=f"receive-{queue.name}")
            for _ in range(MAX_OPEN_RECEIVES)
        ]
        """The threads that receive."""

    def start(self, threads: int = 1) -> None:
        """Start the first ``threads`` of the threads that have not been started."""
        with self._starting:
            for thread in self.threads[:threads]:
                if thread.ident is None:
                    thread.start()

    def _receive_until_closed(self) -> None:
        while permit := self._wait_for_permit():  # None once the worker stops
            received = None
            try:
                received = self._receive_as_permitted(permit)
            finally:
                self._prefetch.add(permit, received)
            if self.queue.is_busy:
                self.start(MAX_OPEN_RECEIVES)

    def _wait_for_permit(self) -> ReceivePermit | None:
        with self._permit_lock:
            return self._prefetch.acquire(self.queue)

    def _receive_as_permitted(self, permit: ReceivePermit) -> list[Received] | None:
        """Return the received messages; None if the request failed."""
        queue = self.queue
        try:
            opened = open_queue(queue.name)
            received = opened.receive(
                count=permit.count,
                wait=permit.wait,
                visibility=self._options.visibility_timeout,
            )
        except Exception as exc:
            queue.is_missing = isinstance(exc, SchedulingError) and failed_on_missing_queue(exc)
            queue.receive_backoff.failed(exc, started=permit.since)
            return None
        queue.receive_backoff.succeeded()
        if received:  # SQS answers, and it matters from now on
            opened.start_asking_max_receives()
        return received
