"""Prefetch: the messages received ahead of their tasks, and how many more may be received.

Consumers add messages, task threads take them out. More are received only if their tasks can
start soon, because a message that waits here is hidden from every other worker.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .options import WorkerOptions
from .queue_state import MessageGroup, QueueState, ReceivePermit, by_group

MAX_OPEN_RECEIVES: Final = 4
"""The number of receives of one queue at a time, while each brings most of its messages."""
_SOON_SECONDS: Final = 1.0
"""A message received ahead should start within this time."""
_MAX_AHEAD: Final = MAX_OPEN_RECEIVES * MAX_BATCH_ENTRIES
"""Messages received ahead, beyond the idle threads."""
_QUICK_SECONDS: Final = 0.001
"""Tasks shorter than this are left to the threads that are awake: waking another takes longer."""
_ANSWER_SECONDS: Final = 0.2
"""SQS answers a receive within this time if the queue has messages."""
_WEIGHT_OF_LAST_TASK: Final = 0.2
"""The weight of the last task in the moving average of the seconds that a task takes."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """The counts of a worker.

    People see them, and the worker decides by them how much it receives, when it has ended, and
    with which exit code.
    """

    done: int = 0
    """Deliveries that did not fail: the task has succeeded, or its message was sent again."""
    failed: int = 0
    """Deliveries that failed: the message is delivered again, or is a dead letter."""
    running: int = 0
    """Threads that run a task."""
    waiting: int = 0
    """Messages received ahead whose tasks have not started."""


class Prefetch:
    """Shared by all threads of a worker. Once ``is_closed``, nothing more starts."""

    def __init__(self, options: WorkerOptions) -> None:
        self.counters = Counters()
        self.is_closed = False
        self._options = options
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        """Notified when a task thread has something to do."""
        self._waiting: dict[QueueState, None] = {}
        """The queues of which messages wait, the oldest first. They take turns."""
        self._turns = itertools.count(1)
        self._waiting_receivers: dict[QueueState, threading.Condition] = {}
        """The condition of each receiver that waits for its turn to ask; the oldest first."""
        self._expected: dict[ReceivePermit, int] = {}
        """The open receives of busy queues, each with the number of messages it asked for."""
        self._tasks_left: float = options.max_tasks or math.inf
        """The number of tasks that may still start."""
        self._average_seconds = math.inf
        """The moving average of the seconds that a task takes; infinite before the first ends."""
        self._last_ended_at = -math.inf
        self._no_prefetch_until = -math.inf
        """The time until which nothing is received ahead: a message could not start in time."""

    def is_empty(self, queue: QueueState) -> bool:
        """Return True if a queue had no message after the last task, which may have sent one."""
        return queue.found_empty_at > self._last_ended_at

    def is_used_up(self) -> bool:
        """Return True if no task runs and, because of ``max_tasks``, none may start."""
        with self._lock:
            return self._tasks_left <= 0 and not self.counters.running

    # --- called by receivers ---------------------------------------------------------------

    def acquire(self, queue: QueueState) -> ReceivePermit | None:
        """Wait until ``queue`` should be asked for messages. None once the worker stops."""
        with self._lock:
            condition = threading.Condition(self._lock)
            while not self.is_closed:
                if not queue.receive_backoff.is_over or queue.in_flight.is_behind:
                    condition.wait(self._options.times.backoff_check_interval)
                elif self._should_receive(queue, self._has_idle_thread(), self._room_left()):
                    permit = self._give_permit(queue)
                    self._wake_receiver()
                    return permit
                else:
                    self._waiting_receivers[queue] = condition
                    condition.wait()
        return None

    def _should_receive(self, queue: QueueState, has_idle_thread: bool, room: int) -> bool:
        """Return True if a thread or the turn of the queue would have no message.

        Also if a receive can bring a full batch.
        """
        if self._tasks_left <= self.counters.waiting or queue.is_paused:
            return False
        is_failing = queue.receive_backoff.failures > 0
        if is_failing and queue.probe:
            return False
        is_first = is_failing or queue.open_receives == 0
        needs_message = not queue.waiting and (room > 0 or not queue.is_busy)
        if is_first and (has_idle_thread or (needs_message and self._are_tasks_slow())):
            return True
        may_join = queue.is_busy and queue.open_receives < MAX_OPEN_RECEIVES
        return (is_first or may_join) and room >= queue.in_flight.budget.max_messages()

    def _are_tasks_slow(self) -> bool:
        """Return True if tasks start soon, but too few for a full batch."""
        return 0 < self._starts_soon() < MAX_BATCH_ENTRIES

    def _give_permit(self, queue: QueueState) -> ReceivePermit:
        options = self._options
        is_short = queue.is_busy or queue.open_receives or options.burst
        budget = queue.in_flight.budget
        count = max(1, min(self._room_left(), budget.max_messages()))
        wait = min(options.wait, 1) if is_short else options.wait
        now = clock.monotonic()
        permit = ReceivePermit(
            queue=queue,
            count=count,
            wait=int(min(wait, budget.max_wait())),
            since=now,
            is_blocked=queue.in_flight.blocks_fifo_groups(),
        )
        queue.open_receives += 1
        if queue.receive_backoff.failures:
            queue.probe = permit
        queue.unanswered_since = min(queue.unanswered_since, permit.since)
        if queue.is_busy:  # a long poll that will most likely bring little keeps none from asking
            self._expected[permit] = count
        return permit

    def _idle_threads(self) -> int:
        return self._options.threads - self.counters.running

    def _has_idle_thread(self) -> bool:
        """Return True if a thread is idle for which no message waits or is asked for."""
        return self._idle_threads() > self._taken()

    def _room_left(self) -> int:
        """Return the number of messages to ask for besides those that wait or are asked for."""
        startable = min(self._idle_threads() + self._starts_soon(), self._tasks_left)
        return int(startable) - self._taken()

    def _taken(self) -> int:
        """Return the number of messages that wait, or are expected of open receives.

        A receive that is not answered soon most likely brings little. If it counted, queues that
        run empty would keep the worker from asking those that are full.
        """
        oldest = clock.monotonic() - _ANSWER_SECONDS
        expected = (count for permit, count in self._expected.items() if permit.since > oldest)
        return self.counters.waiting + sum(expected)

    def _starts_soon(self) -> int:
        """Return the number of tasks that can start within a second, at the current speed."""
        now = clock.monotonic()
        if now - self._last_ended_at > _SOON_SECONDS or now < self._no_prefetch_until:
            return 0
        per_thread = _SOON_SECONDS / self._average_seconds
        return int(min(self._options.threads * per_thread, _MAX_AHEAD))

    def add(self, permit: ReceivePermit, received: list[Received] | None) -> None:
        """Use up a permit, and take the received messages. None stands for a failed receive."""
        with self._lock:
            permit.queue.open_receives -= 1
            if permit.queue.probe is permit:
                permit.queue.probe = None
            self._expected.pop(permit, None)
            if received is None:
                self._wake_receiver()
            else:
                self._add_received(permit, received)

    def _add_received(self, permit: ReceivePermit, received: list[Received]) -> None:
        queue, now = permit.queue, clock.monotonic()
        queue.note_answer(permit, received, now)
        new = queue.in_flight.add(received)
        if self.is_closed:
            queue.in_flight.requeue_unrun(new)
            return
        groups = [
            MessageGroup(queue=queue, messages=messages, received_at=now)
            for messages in by_group(new)
        ]
        if groups:
            queue.waiting.extend(groups)
            self._waiting[queue] = None
        self.counters.waiting += len(new)
        self._work.notify(1 if self._average_seconds < _QUICK_SECONDS else len(groups))
        if len(new) < permit.count:
            self._wake_receiver()

    # --- called by task threads ------------------------------------------------------------

    def next(self) -> MessageGroup | None:
        """Wait for the next messages to run. None once the worker stops."""
        with self._lock:
            while not self.is_closed:
                if self._waiting and self._tasks_left > 0:
                    queue = min(self._waiting, key=attrgetter("turn"))  # the longest without a turn
                    queue.turn = next(self._turns)
                    group = queue.waiting.popleft()
                    if not queue.waiting:
                        del self._waiting[queue]
                    self._tasks_left -= len(group.messages)
                    self.counters.waiting -= len(group.messages)
                    self.counters.running += 1
                    self._wake_receiver()
                    return group
                self._work.wait()
        return None

    def may_continue_group(self) -> bool:
        """Return True if the next message of a FIFO group may be run."""
        return not self.is_closed and self._tasks_left >= 0

    def task_ended(self, seconds: float, *, is_done: bool) -> None:
        """Note that a task has ended after ``seconds``."""
        with self._lock:
            if is_done:
                self.counters.done += 1
            else:
                self.counters.failed += 1
            if self._average_seconds == math.inf:
                self._average_seconds = seconds
            self._average_seconds += _WEIGHT_OF_LAST_TASK * (seconds - self._average_seconds)
            self._last_ended_at = clock.monotonic()

    def group_ended(self, not_run: int) -> None:
        """Note that a group has ended, of which ``not_run`` messages were not run."""
        with self._lock:
            self.counters.running -= 1
            self._tasks_left += not_run
            self._wake_receiver()

    def _wake_receiver(self) -> None:
        """Wake the receiver of one queue that should be asked. It wakes another if need be."""
        if not self._waiting_receivers:
            return
        has_idle_thread, room = self._has_idle_thread(), self._room_left()
        may_receive = has_idle_thread or room > 0 or self._are_tasks_slow()
        for queue in self._waiting_receivers if may_receive else ():
            if self._should_receive(queue, has_idle_thread, room):
                self._waiting_receivers.pop(queue).notify()
                return

    def set_paused(self, queue: QueueState, *, is_paused: bool) -> None:
        """Stop or resume receiving from a queue. Messages that were received before are run."""
        with self._lock:
            queue.is_paused = is_paused
            self._wake_receiver()

    # --- called by the main thread ---------------------------------------------------------

    def requeue_expired(self) -> None:
        """Requeue messages that have waited for too long, and wake idle threads for the others.

        A message that was received before is kept: only one receive of each may start no task.
        """
        now, times = clock.monotonic(), self._options.times
        latest = now - times.requeue_after
        with self._lock:
            for queue in [*self._waiting]:
                expired = [
                    each
                    for each in queue.waiting
                    if each.received_at < latest
                    and all(one.receive_count == 1 for one in each.messages)
                ]
                if expired:
                    self._requeue(queue, expired)
                    self._no_prefetch_until = now + times.no_prefetch_after
            self._work.notify(self.counters.waiting)
            self._wake_receiver()

    def close(self) -> None:
        """Requeue the messages that have not started, and wake all threads so that they end."""
        with self._lock:
            self.is_closed = True
            for queue in [*self._waiting]:
                self._requeue(queue, [*queue.waiting])
            self._work.notify_all()
            for condition in self._waiting_receivers.values():
                condition.notify()

    def _requeue(self, queue: QueueState, groups: Iterable[MessageGroup]) -> None:
        for group in groups:
            queue.waiting.remove(group)
            self.counters.waiting -= len(group.messages)
            queue.in_flight.requeue_unrun(group.messages)
        if not queue.waiting:
            del self._waiting[queue]
