"""Receives of FIFO messages that have not started their tasks, as far as this process knows.

On a FIFO queue a retry is another receive of the same message, so receives count as attempts.
"""

from __future__ import annotations

import threading
from typing import Final

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.process import state
from beanstalk_dispatch.sqs.fifo import queue_rules

_MAX_REMEMBERED: Final = 10_000
"""The number of messages whose receives are remembered."""


class UnrunReceives:
    """The numbers of receives without a start, by the id that SQS gave the message."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all receives: a forked child cannot trust a lock that it did not make."""
        self._lock = threading.Lock()
        self._numbers: dict[str, set[int]] = {}

    def note(self, delivery: Delivery) -> None:
        """Note that this receive has not started the task."""
        if delivery.message_id is None or queue_rules(delivery.queue).takes_delay:
            return
        with self._lock:
            self._numbers.setdefault(delivery.message_id, set()).add(delivery.receive_count)
            if len(self._numbers) > _MAX_REMEMBERED:
                del self._numbers[next(iter(self._numbers))]

    def start(self, delivery: Delivery) -> int:
        """Note that this receive starts the task.

        Return the number of earlier ones that have not.
        """
        with self._lock:
            numbers = self._numbers.get(delivery.message_id or "", set())
            numbers.discard(delivery.receive_count)
            return len(numbers)


UNRUN: Final = UnrunReceives()
state.declare(UNRUN.forget)
