"""ReceiveBudget: keeps SQS's redrive policy from taking messages that were never tried.

SQS counts every receive, and moves a message to the dead-letter queue after ``maxReceiveCount``
of them. So a message that was not tried may have used one receive more than it was tried, not
several. On a FIFO queue this concerns the messages behind one that has failed.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from beanstalk_dispatch import clock
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .options import WorkerTimes

_MAX_REMEMBERED: Final = 10_000
"""Messages whose receives started no task, and message groups that are interrupted."""


@dataclass(slots=True)
class _InterruptedGroup:
    """A message group of which a message has failed or was requeued before it was tried."""

    forget_at: float = 0.0
    """In monotonic seconds."""
    message_ids: set[str] = field(default_factory=set)
    """The messages that were received for this group and are not done."""


class ReceiveBudget:
    """The receives of one queue that have not started a task. Any thread may call."""

    def __init__(self, times: WorkerTimes) -> None:
        self._times = times
        self._lock = threading.Lock()
        self._unrun: dict[str, int] = {}
        """Message id → receives that have not started its task."""
        self.interrupted_groups: dict[str, _InterruptedGroup] = {}
        """By message group id."""

    def unrun_receives(self, message_id: str) -> int:
        """How many receives of a message are known not to have started its task."""
        return self._unrun.get(message_id, 0)

    def max_messages(self) -> int:
        """How many messages one receive may bring.

        One while a message group is interrupted: a receive of ten brings what waits behind the
        failed message too, although none of it may run.
        """
        if not self.interrupted_groups:
            return MAX_BATCH_ENTRIES
        with self._lock:
            now = clock.monotonic()
            for group_id in [
                each
                for each in self.interrupted_groups
                if self.interrupted_groups[each].forget_at < now
            ]:
                del self.interrupted_groups[group_id]
            return 1 if self.interrupted_groups else MAX_BATCH_ENTRIES

    def not_run(self, messages: Iterable[Received], delay: float = 0.0) -> None:
        """Note that a receive of each message has not started its task.

        The messages are delivered again after ``delay`` seconds.
        """
        with self._lock:
            for message in messages:
                count = self._unrun.pop(message.message_id, 0) + 1
                self._unrun[message.message_id] = count
                _limit_size(self._unrun)
                self._interrupt_group(message, delay)

    def failed(self, message: Received, delay: float) -> None:
        """Note that a message was tried, and is delivered again after ``delay`` seconds."""
        with self._lock:
            self._interrupt_group(message, delay)

    def done(self, message: Received) -> None:
        """Note that a message is done."""
        if not (self._unrun or self.interrupted_groups):
            return
        with self._lock:
            self._unrun.pop(message.message_id, None)
            group_id = message.attributes.get("MessageGroupId", "")
            if group := self.interrupted_groups.get(group_id):
                group.message_ids.discard(message.message_id)
                group.forget_at = clock.monotonic() + self._times.group_memory
                if not group.message_ids:
                    del self.interrupted_groups[group_id]

    def _interrupt_group(self, message: Received, delay: float) -> None:
        if not message.queue.rules.keeps_order:
            return
        group_id = message.attributes.get("MessageGroupId", "")
        group = self.interrupted_groups.setdefault(group_id, _InterruptedGroup())
        group.message_ids.add(message.message_id)
        group.forget_at = clock.monotonic() + delay + self._times.group_memory
        _limit_size(self.interrupted_groups)


def _limit_size(remembered: dict[str, int] | dict[str, _InterruptedGroup]) -> None:
    """Forget the oldest entry if there are too many."""
    if len(remembered) > _MAX_REMEMBERED:
        del remembered[next(iter(remembered))]
