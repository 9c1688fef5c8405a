"""Intake: the messages that wait for a thread, and how many more may be received.

Pollers put messages in, runners take them out. More are asked for only if they can start soon.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .backoff import Backoff
from .in_flight import Holdings

MAX_POLLS: Final = 4
"""Receives of one queue at a time, while each brings most of what it asks for."""
_SOON: Final = 1.0  # seconds within which what is received ahead should start
_MOST_AHEAD: Final = MAX_POLLS * MAX_BATCH_ENTRIES
_START_WITHIN: Final = 5.0  # seconds a message may wait; then it is for somebody else
_QUICK: Final = 0.001  # a task this short is not worth waking another thread
_LOOK_AGAIN: Final = 0.2  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a Worker behaves. Times in seconds; ``wait`` is that of a long poll, at most 20.

    ``heartbeat`` extends the visibility of every message held. ``burst`` stops when the queues
    are empty, ``max_tasks`` after so many tasks. ``grace`` is for running tasks at a stop.
    """

    threads: int = 10
    wait: int = 20
    visibility: int = 60
    heartbeat: bool = True
    grace: float = 30.0
    max_tasks: int | None = None
    burst: bool = False


@dataclass(slots=True, kw_only=True)
class Counters:
    """Figures for people."""

    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Source:
    """One queue as the intake sees it: its open receives, and what the last ones brought.

    ``asking_since``: when a receive was begun of which, and after which, none has come back.
    Times are monotonic.
    """

    name: str
    holdings: Holdings
    polling: Backoff
    polls: int = 0
    is_busy: bool = False
    is_empty: bool = False
    is_missing: bool = False
    last_poll: float = field(default_factory=time.monotonic)
    last_full: float = -math.inf
    asking_since: float = math.inf

    @classmethod
    def named(cls, name: str, visibility: int) -> Source:
        return cls(name=name, holdings=Holdings(name, visibility), polling=Backoff("poll", name))


@dataclass(frozen=True, slots=True)
class Poll:
    """A receive that may be made: of up to ``ask`` messages, within ``wait`` seconds.

    ``is_blocked``: what is held keeps SQS from delivering the rest of its FIFO groups.
    """

    ask: int
    wait: int
    since: float
    is_blocked: bool


@dataclass(frozen=True, slots=True)
class Run:
    """Messages to run one after the other: one, or those of one FIFO group."""

    source: Source
    messages: list[Received]
    since: float


class Intake:
    """Shared by all threads of a worker. Once ``is_closed`` nothing is handed out."""

    def __init__(self, options: Options) -> None:
        self.counters = Counters()
        self.is_closed = False
        self._options = options
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._waiting: deque[Run] = deque()
        self._parked: set[Source] = set()  # those that wait for a grant
        self._asked = 0  # messages that open receives may bring
        self._left: float = options.max_tasks or math.inf  # how many tasks may still start
        self._average = math.inf  # seconds a task takes, of late
        self._ended_at = -math.inf

    def is_used_up(self) -> bool:
        """Whether no task runs and none may start."""
        with self._lock:
            return self._left <= 0 and not self.counters.running

    # --- pollers ---------------------------------------------------------------------------

    def grant(self, source: Source) -> Poll | None:
        """Wait until ``source`` should be polled; None once closed."""
        with self._lock:
            self._parked.add(source)
            try:
                while not self.is_closed:
                    is_held_up = not source.polling.is_over or source.holdings.is_behind
                    if not is_held_up and self._is_wanted(source):
                        return self._poll(source)
                    self._room.wait(_LOOK_AGAIN if is_held_up else None)
            finally:
                self._parked.discard(source)
        return None

    def _is_wanted(self, source: Source) -> bool:
        """One receive is open while a thread is idle; others if each can bring a full batch."""
        waiting = self.counters.waiting
        if self._left <= waiting:
            return False
        if source.polls == 0 and self._idle() > waiting:
            return True
        may_join = source.polls == 0 or (source.is_busy and source.polls < MAX_POLLS)
        return may_join and self._room_left() >= MAX_BATCH_ENTRIES

    def _poll(self, source: Source) -> Poll:
        options = self._options
        is_short = source.polls or options.burst
        wait = min(options.wait, 1) if is_short else options.wait
        ask = max(1, min(self._room_left(), MAX_BATCH_ENTRIES))
        poll = Poll(ask, wait, time.monotonic(), source.holdings.blocks_groups())
        source.polls += 1
        source.asking_since = min(source.asking_since, poll.since)
        self._asked += poll.ask
        return poll

    def _idle(self) -> int:
        return self._options.threads - self.counters.running

    def _room_left(self) -> int:
        most = min(self._idle() + self._ahead(), self._left)
        return int(most) - self.counters.waiting - self._asked

    def _ahead(self) -> int:
        """How many tasks will start within a second, as far as the last second tells."""
        if time.monotonic() - self._ended_at > _SOON:
            return 0
        return int(min(self._options.threads * _SOON / self._average, _MOST_AHEAD))

    def put(self, source: Source, poll: Poll, received: list[Received] | None) -> None:
        """End a receive; with None, one that failed."""
        now = time.monotonic()
        with self._lock:
            source.polls -= 1
            self._asked -= poll.ask
            if received is None:
                self._room.notify_all()
                return
            source.last_poll = now
            source.asking_since = now if source.polls else math.inf
            source.is_missing = False
            source.is_busy = len(received) * 2 > poll.ask
            tells = poll.since > source.last_full and not poll.is_blocked
            source.is_empty = not received and tells
            if received:
                source.last_full = now
            fresh = source.holdings.take(received)
            if self.is_closed:
                source.holdings.give_back(fresh)
                return
            runs = [Run(source, messages, now) for messages in _groups(fresh)]
            self._waiting.extend(runs)
            self.counters.waiting += len(fresh)
            self._work.notify(1 if self._average < _QUICK else len(runs))
            if len(fresh) < poll.ask:
                self._room.notify_all()

    # --- runners ---------------------------------------------------------------------------

    def next(self) -> Run | None:
        """Wait for the next messages to run; None once closed."""
        with self._lock:
            while not self.is_closed:
                if self._waiting and self._left > 0:
                    run = self._waiting.popleft()
                    self._left -= len(run.messages)
                    self.counters.waiting -= len(run.messages)
                    self.counters.running += 1
                    self._tell_pollers()
                    return run
                self._work.wait()
        return None

    def may_go_on(self) -> bool:
        """Whether the next message of a FIFO group may be run."""
        return not self.is_closed and self._left >= 0

    def ran(self, seconds: float, *, is_done: bool) -> None:
        """Note that a task has ended after so many seconds."""
        with self._lock:
            if is_done:
                self.counters.done += 1
            else:
                self.counters.failed += 1
            is_first = self._average == math.inf
            self._average = seconds if is_first else 0.8 * self._average + 0.2 * seconds
            self._ended_at = time.monotonic()

    def ended(self, unrun: int) -> None:
        """End a run, of which so many messages were not run."""
        with self._lock:
            self.counters.running -= 1
            self._left += unrun
            self._tell_pollers()

    def _tell_pollers(self) -> None:
        if any(self._is_wanted(source) for source in self._parked):
            self._room.notify_all()

    # --- the main thread -------------------------------------------------------------------

    def look(self) -> None:
        """Wake who sleeps beside work, and give back what has waited for too long."""
        latest = time.monotonic() - _START_WITHIN
        with self._lock:
            while self._waiting and self._waiting[0].since < latest:
                self._give_back(self._waiting.popleft())
            self._work.notify(len(self._waiting))

    def close(self) -> None:
        """Give back what waits, and wake everybody to see that it is over."""
        with self._lock:
            self.is_closed = True
            while self._waiting:
                self._give_back(self._waiting.popleft())
            self._work.notify_all()
            self._room.notify_all()

    def _give_back(self, run: Run) -> None:
        self.counters.waiting -= len(run.messages)
        run.source.holdings.give_back(run.messages)


def _groups(messages: list[Received]) -> Iterator[list[Received]]:
    """Messages of one FIFO group stay together, in their order."""
    groups: dict[str, list[Received]] = {}
    for message in messages:
        if message.queue.rules.keeps_order:
            groups.setdefault(message.attributes.get("MessageGroupId", ""), []).append(message)
        else:
            yield [message]
    yield from groups.values()
