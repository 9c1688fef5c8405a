"""ReceiveBudget: keeps SQS's redrive policy from taking messages that were never tried.

SQS counts every receive, and moves a message to the dead-letter queue after ``maxReceiveCount``
of them. So a message that was not tried may have used one receive more than it was tried, not
several. On a FIFO queue this concerns the messages behind one that has failed.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

_MAX_REMEMBERED: Final = 10_000
"""Messages whose receives started no task, and FIFO groups that are interrupted."""
_GROUP_MEMORY_SECONDS: Final = 60.0
"""Seconds that an interrupted FIFO group is remembered, from when it may be delivered again."""
_MARGIN_SECONDS: Final = 2.0
"""A receive of ten ends that long before an interrupted group may be delivered again."""


@dataclass(slots=True)
class _InterruptedGroup:
    """A FIFO group of which a message has failed, or was requeued behind one that has."""

    forget_at: float = 0.0
    """The time at which the group is forgotten, in monotonic seconds."""
    hidden_until: float = 0.0
    """The time until which SQS delivers nothing of the group, as its first message is out."""
    message_ids: set[str] = field(default_factory=set)
    """The ids of the group's messages that are not done."""


class ReceiveBudget:
    """The receives of one queue that have not started a task. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unrun: dict[str, int] = {}
        """Message id → receives that have not started its task."""
        self._interrupted: dict[str, _InterruptedGroup] = {}
        """Message group id → the interrupted group."""

    def unrun_receives(self, message_id: str) -> int:
        """Return the number of receives of a message that have not started its task."""
        return self._unrun.get(message_id, 0)

    def max_messages(self) -> int:
        """Return the number of messages that one receive may bring.

        It is one while an interrupted group may be delivered: a receive of ten brings the messages
        behind the failed one too, although none of it may run. While that message is hidden, SQS
        delivers nothing of the group, and ten of the others are safe.
        """
        return 1 if self._seconds_hidden() < _MARGIN_SECONDS else MAX_BATCH_ENTRIES

    def max_wait(self) -> float:
        """Return the seconds that a receive of ten may wait; one of one message may always wait."""
        seconds = self._seconds_hidden()
        return math.inf if seconds < _MARGIN_SECONDS else seconds - 1

    def _seconds_hidden(self) -> float:
        """Return the seconds until SQS may deliver an interrupted group; infinite for never."""
        if not self._interrupted:
            return math.inf
        with self._lock:
            now = clock.monotonic()
            for group_id, group in [*self._interrupted.items()]:
                if group.forget_at < now:
                    del self._interrupted[group_id]
            hidden = (group.hidden_until - now for group in self._interrupted.values())
            return min(hidden, default=math.inf)

    def received(self, messages: Iterable[Received]) -> None:
        """Note that messages are here: until they have ended, SQS delivers none of their groups."""
        if self._interrupted:
            with self._lock:
                for message in messages:
                    if group := self._interrupted.get(_group_id(message)):
                        group.hidden_until = math.inf

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
        if not (self._unrun or self._interrupted):
            return
        with self._lock:
            self._unrun.pop(message.message_id, None)
            group_id = _group_id(message)
            if group := self._interrupted.get(group_id):
                group.message_ids.discard(message.message_id)
                if group.message_ids:  # those behind it may come now
                    group.hidden_until = clock.monotonic()
                    group.forget_at = group.hidden_until + _GROUP_MEMORY_SECONDS
                else:
                    del self._interrupted[group_id]

    def _interrupt_group(self, message: Received, delay: float) -> None:
        if message.queue.is_fifo:
            group = self._interrupted.setdefault(_group_id(message), _InterruptedGroup())
            group.message_ids.add(message.message_id)
            visible_at = clock.monotonic() + delay
            # Those behind a message are hidden as long as it is, however early they are visible.
            is_hidden = group.hidden_until != math.inf
            group.hidden_until = max(group.hidden_until, visible_at) if is_hidden else visible_at
            group.forget_at = group.hidden_until + _GROUP_MEMORY_SECONDS
            _limit_size(self._interrupted)


def _group_id(message: Received) -> str:
    return message.attributes.get("MessageGroupId", "")


def _limit_size(remembered: dict[str, int] | dict[str, _InterruptedGroup]) -> None:
    """Forget the oldest entry if there are too many."""
    if len(remembered) > _MAX_REMEMBERED:
        del remembered[next(iter(remembered))]
