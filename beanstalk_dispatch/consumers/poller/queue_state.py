"""The state of one queue in a worker: its open receives, and its messages received ahead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs.backoff import Backoff
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import InFlight
from .options import WorkerOptions


@dataclass(slots=True, kw_only=True, eq=False)
class QueueState:
    """The state of one queue in a worker. Times are monotonic seconds."""

    name: str
    """The name that the queue was given to the worker by."""
    in_flight: InFlight
    receive_backoff: Backoff
    open_receives: int = 0
    """Receives that have not returned."""
    is_busy: bool = False
    """True if the last receive brought more than half of the messages that it asked for."""
    found_empty_at: float = -math.inf
    """The time at which the last receive began, if it has shown that the queue is empty."""
    probe: ReceivePermit | None = None
    """The open receive that finds out if receives no longer fail."""
    is_paused: bool = False
    """True if nothing is received because the queue is paused."""
    is_missing: bool = False
    """True if the last receive failed because SQS has no such queue."""
    unanswered_since: float = math.inf
    """Since when a receive is open and none has returned; infinite if none is open."""
    waiting: deque[MessageGroup] = field(default_factory=deque)
    """The messages received ahead, the oldest first."""
    turn: int = 0
    """The number of the last turn at which one of them was taken."""

    @property
    def unanswered_seconds(self) -> float:
        """Return for how long SQS has answered no open receive, or has taken no delete."""
        since = min(self.unanswered_since, self.in_flight.deletes.backoff.failing_since)
        return max(clock.monotonic() - since, 0.0)

    @classmethod
    def create(cls, name: str, options: WorkerOptions) -> QueueState:
        """Return the state of a queue from which nothing was received yet."""
        in_flight = InFlight(
            name, visibility_timeout=options.visibility_timeout, times=options.times
        )
        backoff = Backoff("receive", name, times=options.times)
        return cls(name=name, in_flight=in_flight, receive_backoff=backoff)

    def note_answer(self, permit: ReceivePermit, received: list[Received], now: float) -> None:
        """Note what the answer to a receive shows of the queue."""
        self.unanswered_since = now if self.open_receives else math.inf
        self.is_missing = False
        self.is_busy = len(received) * 2 > permit.count
        is_empty = not received and not permit.is_blocked
        self.found_empty_at = permit.since if is_empty else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReceivePermit:
    """Permission for one receive."""

    queue: QueueState
    count: int
    """The number of messages to ask for, at most."""
    wait: int
    """Seconds of the long poll."""
    since: float
    """The time at which the permit was given, in monotonic seconds."""
    is_blocked: bool
    """True if messages in flight keep SQS from delivering the rest of their FIFO groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageGroup:
    """The messages to run one after the other: one, or those of one FIFO message group."""

    queue: QueueState
    messages: list[Received]
    received_at: float
    """The time of the receive, in monotonic seconds."""


def by_group(messages: list[Received]) -> Iterator[list[Received]]:
    """Yield each message by itself, but those of one FIFO group together and in their order."""
    groups: dict[str, list[Received]] = {}
    for message in messages:
        if message.queue.is_fifo:
            groups.setdefault(message.attributes.get("MessageGroupId", ""), []).append(message)
        else:
            yield [message]
    yield from groups.values()
