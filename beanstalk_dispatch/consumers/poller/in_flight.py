"""The messages in flight of one queue: received, and neither deleted nor visible again.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs.backoff import Backoff
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received, Refused
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES, MAX_VISIBILITY_SECONDS

from .options import WorkerTimes
from .receive_budget import ReceiveBudget

logger = logging.getLogger("beanstalk_dispatch.worker")

_MAX_PENDING: Final = 100
"""More messages are received only while no more than this wait to be deleted or requeued."""
_MAX_UNDELETED: Final = 10_000
"""Acknowledged messages that are remembered because they could not be deleted."""
_PHASES: Final = 3
"""The run() of a task and two hooks, each under the task's time limit."""
DELETES_AT_A_TIME: Final = 4
"""The number of threads that may delete messages of one queue at a time."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Delete the message."""

    is_failure: bool = False
    """True if the task has failed: it is in the dead-letter queue, or failures are acknowledged."""


@dataclass(frozen=True, slots=True)
class Nack:
    """Have the message delivered again."""

    delay: float | None = None
    """Seconds until then; None for when its visibility timeout ends, without a request."""


@dataclass(slots=True, kw_only=True, eq=False)
class Requests:
    """The requests of one kind about the messages of one queue."""

    pending: Sized
    """The messages that may need one."""
    send: Callable[[int], bool]
    """A function that sends a batch of at least that many messages. True: call it again at once."""
    backoff: Backoff
    may_send: threading.Semaphore = field(default_factory=threading.Semaphore)
    """The right to send: one thread has it at a time by default."""
    full_batch: float = math.inf
    """The number of messages that are sent without waiting for others."""
    next_at: float = 0.0
    """The time at which a batch that is not full is sent."""

    def send_batch(self, at_least: int = 1) -> bool:
        """Send a batch, unless SQS is to be left alone; return whether to call again at once."""
        return self.backoff.is_over and self.send(at_least)


class InFlight:
    """The messages that were received from one queue and are not yet deleted.

    ``ack``, ``nack`` and ``requeue`` only note the request; ``deletes``, ``requeues`` and
    ``heartbeats`` send it to SQS, ten messages to a request. A message that SQS does not take in
    one request stays pending for another. Any thread may call.
    """

    def __init__(self, queue: str, *, visibility_timeout: int, times: WorkerTimes) -> None:
        self.queue = queue
        """The name that the queue was given to the worker by."""
        self.messages: dict[str, Received] = {}
        """The messages in flight by their ids."""
        self.budget = ReceiveBudget()
        self._to_delete: deque[Received] = deque()
        self._to_requeue: deque[Received] = deque()
        self.deletes = Requests(
            pending=self._to_delete,
            send=self._delete_batch,
            backoff=Backoff("delete", queue, times=times),
            may_send=threading.Semaphore(DELETES_AT_A_TIME),
            full_batch=MAX_BATCH_ENTRIES,
        )
        self.requeues = Requests(
            pending=self._to_requeue,
            send=self._requeue_batch,
            backoff=Backoff("requeue", queue, times=times),
        )
        longest = min(visibility_timeout / 6, times.longest_retry)
        self.heartbeats = Requests(
            pending=self.messages,
            send=self._extend_batch,
            backoff=Backoff("heartbeat", queue, times=times, longest=longest),
        )
        self._visibility_timeout = visibility_timeout
        self._times = times
        self._lock = threading.Lock()
        self._undeleted: dict[str, None] = {}
        """The ids of acknowledged messages that could not be deleted and may be delivered again."""
        self.on_full_batch: Callable[[], object] | None = None
        """A function to call when a full batch waits to be deleted."""

    @property
    def pending(self) -> int:
        """The number of messages that wait to be deleted or requeued."""
        return len(self._to_delete) + len(self._to_requeue)

    @property
    def is_behind(self) -> bool:
        """True if deletes or requeues must be sent before more is received."""
        is_failing = not (self.deletes.backoff.is_over and self.requeues.backoff.is_over)
        return is_failing or self.pending > _MAX_PENDING

    def blocks_fifo_groups(self) -> bool:
        """Return True if SQS holds message groups back until messages here have ended."""
        with self._lock:
            first = next(iter(self.messages.values()), None)
        return first is not None and first.queue.is_fifo

    def add(self, received: Iterable[Received]) -> list[Received]:
        """Add messages and return those to run.

        One that is in flight already is only renewed. One that was acknowledged before, but could
        not be deleted, is acknowledged again.
        """
        new: list[Received] = []
        acknowledged: list[Received] = []
        with self._lock:
            for message in received:
                if known := self.messages.get(message.message_id):
                    known.receipt, known.expires = message.receipt, message.expires
                    known.can_extend = True
                    self.budget.not_run([message])
                else:
                    message.unrun_receives = self.budget.unrun_receives(message.message_id)
                    self.messages[message.message_id] = message
                    is_done = message.message_id in self._undeleted
                    (acknowledged if is_done else new).append(message)
        self.budget.received(new)
        for message in acknowledged:
            self.ack(message)
        if acknowledged:
            logger.info(
                "delivered again after its end; deleting it queue=%s count=%d",
                self.queue, len(acknowledged),
            )  # fmt: skip
        return new

    def set_deadline(self, message: Received, time_limit: float = 0.0) -> None:
        """Extend the message's visibility no longer than its task can be expected to run.

        Called when the task starts, and again once its time limit in seconds is known.
        """
        phases = _PHASES * (time_limit + self._times.phase_leeway) if time_limit else 0.0
        message.deadline = clock.monotonic() + phases + self._times.task_margin

    def ack(self, message: Received) -> None:
        """Have the message deleted."""
        message.deadline = clock.monotonic() + self._times.pending_request_limit
        self.budget.done(message)
        with self._lock:
            self._to_delete.append(message)
            is_full = len(self._to_delete) % MAX_BATCH_ENTRIES == 0
        if is_full and self.on_full_batch:
            self.on_full_batch()

    def nack(self, message: Received, delay: float | None = None) -> None:
        """Have the message delivered again: after ``delay`` seconds, or as Nack says."""
        self.budget.failed(message, self._visibility_timeout if delay is None else delay)
        if delay is None:
            self._stop_tracking([message])
        else:
            self.requeue([message], delay)

    def requeue_unrun(self, messages: Sequence[Received], delay: float = 0.0) -> None:
        """Requeue messages whose tasks have not started, as ``requeue`` does."""
        self.budget.not_run(messages, delay)
        self.requeue(messages, delay)

    def requeue(self, messages: Iterable[Received], delay: float = 0.0) -> None:
        """Have the messages delivered again, ``delay`` seconds after SQS takes the request."""
        deadline = clock.monotonic() + self._times.pending_request_limit
        with self._lock:
            for message in messages:
                message.deadline, message.requeue_delay = deadline, delay
                self._to_requeue.append(message)

    def _stop_tracking(self, messages: Iterable[Received]) -> None:
        """Forget the messages. Unless deleted, they are delivered again when they are visible."""
        with self._lock:
            self._remove(messages)

    def _remove(self, messages: Iterable[Received]) -> None:
        for message in messages:
            if self.messages.get(message.message_id) is message:
                del self.messages[message.message_id]

    # --- requests to SQS -------------------------------------------------------------------

    def _delete_batch(self, at_least: int) -> bool:
        """Delete up to a batch of acknowledged messages."""
        with self._take_batch(self._to_delete, at_least) as batch:
            self._drop_expired(batch)
            if not batch:
                return False
            retryable, lost = self._send(
                batch, self.deletes.backoff, lambda queue: queue.delete_batch(batch)
            )
            self._remember_undeleted(lost)
            self._stop_tracking(message for message in batch if message not in retryable)
            batch[:] = retryable
        if lost:
            logger.error("delete failed queue=%s refused=%d", self.queue, len(lost))
        return True

    def _drop_expired(self, batch: list[Received]) -> None:
        """Drop messages that SQS may have delivered again: their receipt handles are stale."""
        expired = [message for message in batch if not message.is_hidden]
        if expired:
            logger.warning(
                "not deleted queue=%s count=%d error=the visibility timeout has ended; "
                "the messages are delivered again",
                self.queue, len(expired),
            )  # fmt: skip
            self._remember_undeleted(expired)
            self._stop_tracking(expired)
            batch[:] = [message for message in batch if message not in expired]

    def _remember_undeleted(self, messages: Iterable[Received]) -> None:
        """Have the messages deleted, not run, when they are delivered again."""
        with self._lock:
            for message in messages:
                self._undeleted[message.message_id] = None
                if len(self._undeleted) > _MAX_UNDELETED:
                    del self._undeleted[next(iter(self._undeleted))]

    def _requeue_batch(self, at_least: int) -> bool:
        """Make up to a batch of messages visible after their delays."""
        with self._take_batch(self._to_requeue, at_least) as batch:
            with self._lock:
                if any(message.is_extending for message in batch):
                    return False  # SQS keeps the visibility timeout that arrives last
                # SQS may deliver a message again before its answer is here: as a new message.
                self._remove(batch)
            batch[:] = [message for message in batch if message.is_hidden]
            if not batch:
                return False
            seconds = [
                min(max(math.ceil(message.requeue_delay), 0), MAX_VISIBILITY_SECONDS)
                for message in batch
            ]
            retryable, lost = self._send(
                batch, self.requeues.backoff,
                lambda queue: queue.change_visibility_batch(batch, seconds),
            )  # fmt: skip
            batch[:] = self._put_back(retryable)
        if lost:
            logger.error("requeue failed queue=%s refused=%d", self.queue, len(lost))
        return True

    def _put_back(self, batch: Iterable[Received]) -> list[Received]:
        """Count the messages as in flight again, but for those that were received meanwhile."""
        with self._lock:
            return [
                message
                for message in batch
                if self.messages.setdefault(message.message_id, message) is message
            ]

    def _extend_batch(self, at_least: int) -> bool:
        """Send a heartbeat for up to a batch of messages: those with little time left."""
        with self._lock:
            batch = list(islice(self._to_extend(), MAX_BATCH_ENTRIES))
            for message in batch:
                message.is_extending = True
        if not batch:
            return False
        seconds = [self._visibility_timeout] * len(batch)
        try:
            _, lost = self._send(
                batch, self.heartbeats.backoff,
                lambda queue: queue.change_visibility_batch(batch, seconds),
            )  # fmt: skip
        finally:
            for message in batch:
                message.is_extending = False
        for message in lost:
            message.can_extend = False
        # A message that was deleted while the request was under way is not lost.
        if count := sum(self.messages.get(message.message_id) is message for message in lost):
            logger.error("heartbeat failed queue=%s refused=%d", self.queue, count)
        return True

    def _to_extend(self) -> Iterator[Received]:
        """Yield the messages with less than two thirds of their timeout left."""
        now = clock.monotonic()
        soon = now + self._visibility_timeout * 2 / 3
        for message in self.messages.values():
            may_extend = message.can_extend and not message.is_extending
            if may_extend and now < message.expires < soon and now < message.deadline:
                yield message

    def _send(
        self, batch: list[Received], backoff: Backoff, request: Callable[[Queue], list[Refused]]
    ) -> tuple[list[Received], list[Received]]:
        """Return the messages that SQS may take in another request, and those it never will."""
        started = clock.monotonic()
        try:
            refused = request(open_queue(self.queue))
        except Exception as exc:
            backoff.failed(exc, started=started)
            return list(batch), []
        transient = [each for each in refused if not each.is_final]
        if transient:
            backoff.failed(transient[0].reason, started=started)
        else:
            backoff.succeeded()
        final = [each.message for each in refused if each.is_final]
        return [each.message for each in transient], final

    @contextmanager
    def _take_batch(self, pending: deque[Received], at_least: int) -> Iterator[list[Received]]:
        """Take a batch from the front of ``pending``.

        The messages that the block leaves in it go back.
        """
        with self._lock:
            size = min(len(pending), MAX_BATCH_ENTRIES)
            batch = [pending.popleft() for _ in range(size)] if size >= at_least else []
        try:
            yield batch
        finally:
            with self._lock:
                pending.extendleft(reversed(batch))
