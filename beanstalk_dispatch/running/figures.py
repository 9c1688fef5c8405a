"""The figures of each delivery, for metrics of Prometheus and of CloudWatch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.process import clock

from .declared_tasks import is_listed

UNLISTED: Final = "unlisted"
"""The function of a message that names no listed task, so that metrics have few labels."""
_STARTED: Final = frozenset(
    {Outcome.DONE, Outcome.RETRY, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CUT}
)
"""The outcomes of deliveries that have started their task."""


class Figures(NamedTuple):
    """The figures of one delivery."""

    queue: str
    function: str
    outcome: Outcome
    has_started: bool
    """True if the delivery has started its task: only then it has an attempt and a duration."""
    seconds: float
    attempt: int
    """The number of times that the task was started, this time included."""
    delay: float | None
    """The seconds from the schedule of the task to its first start; None at a later one."""


class FiguresObserver(Observer, ABC):
    """An observer that counts deliveries. A child's are seen by its parent, so each counts once."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        """The deliveries that run now in this process."""

    @contextmanager
    def delivering(self, delivery: RunView) -> Iterator[None]:
        """Take the figures of a delivery at its end."""
        began, started = time.time(), clock.monotonic()
        self.running.add(id(delivery))
        try:
            yield
        finally:
            self.running.discard(id(delivery))
        if delivery.outcome is None:  # an exception for the process, such as Ctrl-C
            return
        self.count(
            Figures(
                delivery.queue,
                function_label(delivery),
                delivery.outcome,
                delivery.outcome in _STARTED,
                clock.monotonic() - started,
                _attempt(delivery),
                _delay(delivery, began),
            )
        )

    @abstractmethod
    def count(self, figures: Figures) -> None:
        """Count one delivery."""


def function_label(delivery: RunView | None) -> str:
    """Return the function of a delivery if it is listed, else UNLISTED."""
    message = delivery.message if delivery else None
    if message is None or not is_listed(message.function, get_config()):
        return UNLISTED
    return message.function


def _attempt(delivery: RunView) -> int:
    """Return the number of the attempt: a copy counts its own, and SQS those of one message."""
    return max(delivery.message.attempt if delivery.message else 1, delivery.receive_count)


def _delay(delivery: RunView, now: float) -> float | None:
    message = delivery.message
    if message is None or message.leg > 1 or _attempt(delivery) > 1:
        return None
    due = delivery.scheduled_at or message.not_before or message.sent_at
    return None if due is None else max(now - due, 0.0)
