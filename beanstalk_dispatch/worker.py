"""The poller: receive from queues, hand each message to a handler, delete it or give it back.

All threads are alike: one that is free runs a message that waits, or else polls a queue. With
nothing to do, one thread per queue is in a long poll and the others sleep; under load,
receiving, running and deleting overlap, and most messages never change threads.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from . import sqs, timeouts
from .exceptions import SchedulingError
from .sqs import MAX_BATCH_ENTRIES, MAX_VISIBILITY, Queue, Received

logger = logging.getLogger(__name__)

EXIT_STUCK: Final = 75
"""EX_TEMPFAIL: a task could not be interrupted; the supervisor should start a new process."""

_MAX_POLLS: Final = 4  # receives of one queue at a time, while each brings all it asks for
_TICK: Final = 0.2  # seconds between two looks of the keeper
_FLUSH_AFTER: Final = 0.4  # seconds a finished message waits for others to be deleted with it
_SOON: Final = 1.0  # a message is received only if it can start within so many seconds
_QUICK: Final = 0.001  # a task this short is not worth waking another thread
_MAX_BACKOFF: Final = 30.0
_LOG_EVERY: Final = 60.0
_LATE: Final = 5.0  # seconds after its time at which a stop no longer waits for a long poll


@dataclass(frozen=True, slots=True)
class Verdict:
    """Delete the message, or hide it for ``delay`` seconds; None leaves it as it is."""

    delete: bool
    delay: float | None = None


_Item = TypeVar("_Item")
Handler = Callable[[Received], Verdict]


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
    """Figures for people and probes; ``last_poll`` in monotonic seconds."""

    done: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    last_poll: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Trouble:
    """Requests that fail: how often in a row, when to try again, and whether the log knows."""

    failures: int = 0
    retry_at: float = 0.0
    logged_at: float = -math.inf
    is_logged: bool = False

    def grows(self, what: str, source: _Source, exc: Exception, longest: float) -> None:
        """Back off with jitter; say so at once, and then at intervals."""
        now = time.monotonic()
        self.failures += 1
        pause = random.uniform(0.5, 1) * min(2.0 ** min(self.failures - 1, 10), longest)
        self.retry_at = now + pause
        if now - self.logged_at >= _LOG_EVERY:
            self.logged_at, self.is_logged = now, True
            logger.error(
                "%s queue=%s failures=%d retry_in=%.1f error=%s",
                what, source.name, self.failures, pause, exc,
            )  # fmt: skip

    def ends(self, what: str, source: _Source) -> None:
        if self.is_logged:
            logger.info("%s queue=%s recovered failures=%d", what, source.name, self.failures)
        self.failures, self.retry_at, self.is_logged = 0, 0.0, False


@dataclass(slots=True, kw_only=True, eq=False)
class _Source:
    """One queue and what is known of it.

    ``held`` has, by message id, what was received and not given back; ``finished`` is to be
    deleted, ``hidden`` to be delivered again after so many seconds.
    """

    name: str
    queue: Queue | None = None
    polls: int = 0
    asked: int = 0
    is_busy: bool = False
    is_empty: bool = False
    held: dict[str, Received] = field(default_factory=dict)
    finished: list[Received] = field(default_factory=list)
    hidden: list[tuple[Received, float]] = field(default_factory=list)
    pending_since: float = math.inf
    polling: _Trouble = field(default_factory=_Trouble)
    giving_back: _Trouble = field(default_factory=_Trouble)
    extending: _Trouble = field(default_factory=_Trouble)

    @property
    def is_fifo(self) -> bool:
        return self.queue is not None and self.queue.address.is_fifo


@dataclass(frozen=True, slots=True)
class _Poll:
    source: _Source
    ask: int
    wait: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Messages to run one after the other: one, or those of one FIFO group."""

    source: _Source
    messages: list[Received]


class Worker:
    """Drains queues, given by the names they are scheduled with, until told to stop."""

    def __init__(self, queues: Sequence[str], handler: Handler, options: Options) -> None:
        self.options = options
        self.counters = Counters()
        self.queues = [_Source(name=name) for name in queues]
        self._handler = handler
        self._turn = deque(self.queues)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._exit_code = 0
        self._waiting: deque[_Run] = deque()
        self._running_in: dict[int, tuple[_Source, Received]] = {}
        self._left: float = options.max_tasks or math.inf  # how many tasks may still start
        self._average = math.inf  # seconds a task takes, of late

    # --- from start to stop ----------------------------------------------------------------

    def run(self, *ticks: Callable[[], None]) -> int:
        """Work until ``stop``, then return the exit code. ``ticks`` are called now and then."""
        threads = {
            threading.Thread(target=self._loop, name=f"beanstalk_dispatch-{i}", daemon=True)
            for i in range(self.options.threads + len(self.queues))
        }
        names = " ".join(source.name for source in self.queues)
        logger.info("work queues=%r threads=%d", names, self.options.threads)
        for thread in threads:
            thread.start()
        while not self._stopping.wait(_TICK):
            self._keep()
            for tick in ticks:
                tick()
        self._finish(threads, ticks)
        counters = self.counters
        logger.info(
            "stopped done=%d failed=%d running=%d exit_code=%d",
            counters.done, counters.failed, counters.running, self._exit_code,
        )  # fmt: skip
        return self._exit_code

    def stop(self, exit_code: int = 0) -> None:
        """Take no more work; ``run`` ends what runs and gives the rest back."""
        if not self._stopping.is_set():
            self._exit_code = exit_code
            self._stopping.set()

    def depths(self) -> list[tuple[str, int]]:
        """About how many messages wait in each queue that tells; one SQS request per queue."""
        known = [(source.name, source.queue) for source in self.queues if source.queue]
        found = [(name, queue.depth()) for name, queue in known]
        return [(name, depth) for name, depth in found if depth is not None]

    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _finish(self, threads: set[threading.Thread], ticks: Sequence[Callable[[], None]]) -> None:
        """An open long poll is left to come back: SQS may have put messages in its answer."""
        now, options = time.monotonic(), self.options
        with self._lock:
            unstarted = list(self._waiting)
            self._waiting.clear()
            self.counters.waiting = 0
            self._changed.notify_all()
        polls, running = sum(source.polls for source in self.queues), self.counters.running
        logger.info("stop running=%d open_polls=%d grace=%g", running, polls, options.grace)
        for run in unstarted:
            self._hide(run.source, run.messages, 0)
        while self._is_awaited(
            threads, grace_is_over=time.monotonic() > now + options.grace,
            polls_are_late=time.monotonic() > now + options.wait + _LATE,
        ):  # fmt: skip
            self._keep()
            for tick in ticks:
                tick()
            time.sleep(_TICK / 10)
        for thread_id, (source, message) in self._running():
            logger.error("stop unfinished id=%s thread=%s", message.message_id, thread_id)
            self._hide(source, [message], 0)
        for source in self.queues:
            source.giving_back.retry_at = 0.0
        self._flush(force=True)

    def _is_awaited(
        self, threads: set[threading.Thread], *, grace_is_over: bool, polls_are_late: bool
    ) -> bool:
        """Whether a thread is still worth waiting for: one that runs a task, or one that polls."""
        running = self._running_in.keys()
        stuck = {limit.thread_id for limit in timeouts.stuck()}
        for thread in threads:
            is_running = thread.ident in running
            if not thread.is_alive() or thread.ident in stuck:
                continue
            if not (grace_is_over if is_running else polls_are_late):
                return True
        return False

    # --- what a thread does ----------------------------------------------------------------

    def _loop(self) -> None:
        while job := self._next():
            if isinstance(job, _Run):
                self._run(job)
            else:
                self._poll(job)

    def _next(self) -> _Run | _Poll | None:
        with self._lock:
            while not self._stopping.is_set():
                may_start = self._left > 0 and self.counters.running < self.options.threads
                if self._waiting and may_start:
                    run = self._waiting.popleft()
                    self._left -= len(run.messages)
                    self.counters.waiting -= len(run.messages)
                    self.counters.running += 1
                    return run
                if poll := self._next_poll():
                    return poll
                self._changed.wait()
            return None

    def _next_poll(self) -> _Poll | None:
        """Whose turn it is to be polled, if more messages could start soon."""
        counters, options = self.counters, self.options
        idle = options.threads - counters.running
        soon = idle + int(min(options.threads * _SOON / self._average, 1000))
        asked = sum(source.asked for source in self.queues)
        room = int(min(soon, self._left)) - counters.waiting - asked
        if self._left <= counters.waiting:
            return None
        now = time.monotonic()
        for _ in range(len(self._turn)):
            source = self._turn[0]
            self._turn.rotate(-1)
            if max(source.polling.retry_at, source.giving_back.retry_at) > now:
                continue
            if source.polls == 0 and (room > 0 or idle > counters.waiting):
                wait = min(options.wait, 1) if options.burst else options.wait
            elif source.is_busy and source.polls < _MAX_POLLS and room > 0:
                wait = min(options.wait, 1)
            else:
                continue
            ask = max(1, min(room, MAX_BATCH_ENTRIES))
            source.polls += 1
            source.asked += ask
            return _Poll(source, ask, wait)
        return None

    def _poll(self, poll: _Poll) -> None:
        source, received = poll.source, None
        try:
            source.queue = sqs.queue(source.name)
            received = source.queue.receive(
                count=poll.ask, wait=poll.wait, visibility=self.options.visibility
            )
        except Exception as exc:
            if not isinstance(exc, SchedulingError):
                logger.exception("poll queue=%s failed", source.name)
            source.polling.grows("poll", source, exc, _MAX_BACKOFF)
        with self._lock:
            source.polls -= 1
            source.asked -= poll.ask
            fresh = [] if received is None else self._take_in(poll, received)
        if fresh:  # stopping: they came too late
            self._hide(source, fresh, 0)

    def _take_in(self, poll: _Poll, received: list[Received]) -> list[Received]:
        """Queue what was received; what is to be given back at once is returned."""
        source, counters = poll.source, self.counters
        source.polling.ends("poll", source)
        source.is_busy, source.is_empty = len(received) == poll.ask, not received
        counters.last_poll = time.monotonic()
        fresh = []
        for message in received:
            if held := source.held.get(message.message_id):
                held.receipt, held.expires, held.extends = message.receipt, message.expires, True
            else:
                source.held[message.message_id] = message
                fresh.append(message)
        if self._stopping.is_set():
            return fresh
        runs = list(_runs(source, fresh))
        self._waiting.extend(runs)
        counters.waiting += len(fresh)
        # This thread goes on to run one of them; another may run the rest, or poll.
        self._changed.notify(1 if self._average < _QUICK else len(runs))
        if self.options.burst and all(s.is_empty and not s.held for s in self.queues):
            self.stop()
        return []

    def _run(self, run: _Run) -> None:
        source, messages = run.source, run.messages
        for position, message in enumerate(messages):
            if position and self._stopping.is_set():
                self._hide(source, messages[position:], 0)
                break
            if not message.is_ours:
                logger.warning("skipped id=%s: its visibility ran out", message.message_id)
                self._forget(source, messages[position:])
                break
            verdict = self._handle(source, message)
            if not verdict.delete:
                # The rest of a FIFO group must wait for this one.
                self._hide(source, messages[position + 1 :], verdict.delay or 0)
                break
        self._ended(source)

    def _handle(self, source: _Source, message: Received) -> Verdict:
        thread_id, started = threading.get_ident(), time.monotonic()
        self._running_in[thread_id] = source, message
        try:
            verdict = self._handler(message)
        except Exception:
            logger.exception("handler failed id=%s", message.message_id)
            verdict = Verdict(delete=False)
        finally:
            del self._running_in[thread_id]
        now = time.monotonic()
        with self._lock:
            self._note(source, message, verdict)
            took = now - started
            is_first = self._average == math.inf
            self._average = took if is_first else 0.8 * self._average + 0.2 * took
            source.pending_since = min(source.pending_since, now)
        return verdict

    def _note(self, source: _Source, message: Received, verdict: Verdict) -> None:
        if verdict.delete:
            self.counters.done += 1
            source.finished.append(message)
            return
        self.counters.failed += 1
        if verdict.delay is None:
            source.held.pop(message.message_id, None)
        else:
            source.hidden.append((message, verdict.delay))

    def _ended(self, source: _Source) -> None:
        with self._lock:
            self.counters.running -= 1
            is_last = self._left <= 0 and not self.counters.running
            is_full = len(source.finished) >= MAX_BATCH_ENTRIES
        if is_last:
            self.stop()
        if is_full or source.is_fifo:
            self._flush_source(source, force=False)

    # --- giving back -----------------------------------------------------------------------

    def _forget(self, source: _Source, messages: Iterable[Received]) -> None:
        with self._lock:
            for message in messages:
                source.held.pop(message.message_id, None)

    def _hide(self, source: _Source, messages: Sequence[Received], delay: float) -> None:
        """Have ``messages`` delivered again after ``delay`` seconds."""
        if messages:
            with self._lock:
                source.hidden.extend((message, delay) for message in messages)
                source.pending_since = min(source.pending_since, time.monotonic())
            self._flush_source(source, force=True)

    def _flush(self, *, force: bool = False) -> None:
        now = time.monotonic()
        for source in self.queues:
            if force or now - source.pending_since > _FLUSH_AFTER:
                self._flush_source(source, force=True)

    def _flush_source(self, source: _Source, *, force: bool) -> None:
        """Delete what is finished and hide what failed; ``force`` also in batches not full."""
        smallest = 1 if force or source.is_fifo else MAX_BATCH_ENTRIES
        while source.giving_back.retry_at <= time.monotonic():
            with self._lock:
                finished = _cut(source.finished, smallest)
                hidden = _cut(source.hidden, smallest)
                if not finished and not hidden:
                    if not source.finished and not source.hidden:
                        source.pending_since = math.inf
                    return
            if finished:
                self._delete(source, finished)
            if hidden:
                self._change_visibility(source, hidden)

    def _delete(self, source: _Source, messages: list[Received]) -> None:
        ours = [message for message in messages if message.is_ours]
        refused: list[Received] = []
        if late := len(messages) - len(ours):
            logger.warning(
                "not deleted queue=%s count=%d: their visibility ran out; they will run again",
                source.name, late,
            )  # fmt: skip
            self._forget(source, (message for message in messages if message not in ours))
        if not ours:
            return
        try:
            refused = sqs.queue(source.name).delete_batch(ours)
        except SchedulingError as exc:
            source.giving_back.grows("delete", source, exc, _MAX_BACKOFF)
            with self._lock:  # they stay held, and are tried again
                source.finished.extend(ours)
            return
        source.giving_back.ends("delete", source)
        if refused:
            logger.error("delete queue=%s refused=%d", source.name, len(refused))
        self._forget(source, ours)

    def _change_visibility(self, source: _Source, hidden: list[tuple[Received, float]]) -> None:
        ours = [(message, delay) for message, delay in hidden if message.is_ours]
        messages = [message for message, _ in ours]
        seconds = [min(max(math.ceil(delay), 0), MAX_VISIBILITY) for _, delay in ours]
        self._forget(source, (message for message, _ in hidden))
        if not ours:
            return
        try:
            refused = sqs.queue(source.name).change_visibility_batch(messages, seconds)
        except SchedulingError as exc:
            # They come back by themselves when their visibility runs out.
            source.giving_back.grows("hide", source, exc, _MAX_BACKOFF)
            return
        if refused:
            logger.error("hide queue=%s refused=%d", source.name, len(refused))

    # --- the keeper ------------------------------------------------------------------------

    def _keep(self) -> None:
        """What the main thread does several times a second."""
        try:
            self._flush()
            if self.options.heartbeat:
                self._extend()
        except Exception:
            logger.exception("keeper failed")
        stuck = timeouts.stuck()
        if stuck and not self._stopping.is_set():
            logger.critical("stop reason=stuck tasks=%d exit_code=%d", len(stuck), EXIT_STUCK)
            self.stop(EXIT_STUCK)
        now = time.monotonic()
        with self._lock:
            if self._waiting or any(not s.polls and s.polling.retry_at <= now for s in self.queues):
                self._changed.notify_all()

    def _extend(self) -> None:
        """Extend the visibility of what is held, except by a stuck thread."""
        stuck = {limit.thread_id for limit in timeouts.stuck()}
        lost = [message for thread, (_, message) in self._running() if thread in stuck]
        for source in self.queues:
            now = time.monotonic()
            soon = now + self.options.visibility * 2 / 3
            with self._lock:
                due = [
                    message
                    for message in source.held.values()
                    if now < message.expires < soon and message.extends and message not in lost
                ]
            while due and source.extending.retry_at <= time.monotonic():
                self._extend_batch(source, _cut(due, 1))

    def _extend_batch(self, source: _Source, batch: list[Received]) -> None:
        visibility = self.options.visibility
        try:
            refused = sqs.queue(source.name).change_visibility_batch(
                batch, [visibility] * len(batch)
            )
        except SchedulingError as exc:
            longest = min(visibility / 6, _MAX_BACKOFF)
            source.extending.grows("heartbeat", source, exc, longest)
            return
        source.extending.ends("heartbeat", source)
        for message in refused:
            message.extends = False
        if refused:
            logger.error("heartbeat queue=%s refused=%d", source.name, len(refused))

    def _running(self) -> list[tuple[int, tuple[_Source, Received]]]:
        return list(self._running_in.items())


def _runs(source: _Source, messages: list[Received]) -> Iterator[_Run]:
    """Messages of one FIFO group stay together, in their order."""
    groups: dict[str, list[Received]] = {}
    for message in messages:
        group = message.attributes.get("MessageGroupId", "")
        key = group if source.is_fifo else message.message_id
        groups.setdefault(key, []).append(message)
    return (_Run(source, group) for group in groups.values())


def _cut(items: list[_Item], smallest: int) -> list[_Item]:
    """Take up to a batch off the front of ``items``, if there are at least ``smallest``."""
    if len(items) < smallest:
        return []
    batch = items[:MAX_BATCH_ENTRIES]
    del items[: len(batch)]
    return batch
