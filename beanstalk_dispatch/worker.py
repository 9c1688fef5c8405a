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


@dataclass(slots=True, kw_only=True, eq=False)
class _Source:
    """One queue and what is known of it."""

    name: str
    queue: Queue | None = None
    polls: int = 0
    asked: int = 0
    is_busy: bool = False
    is_empty: bool = False
    failures: int = 0
    retry_at: float = 0.0
    logged_at: float = -math.inf
    finished: list[Received] = field(default_factory=list)
    hidden: list[tuple[Received, float]] = field(default_factory=list)
    pending_since: float = math.inf


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
        self._held: dict[str, Received] = {}
        self._running_in: dict[int, tuple[_Source, Received]] = {}
        self._started = 0
        self._average = math.inf  # seconds a task takes, of late

    # --- from start to stop ----------------------------------------------------------------

    def run(self, on_tick: Callable[[], None] | None = None) -> int:
        """Work until ``stop``, then return the exit code. ``on_tick`` is called now and then."""
        threads = {
            threading.Thread(target=self._loop, name=f"beanstalk_dispatch-{i}", daemon=True)
            for i in range(self.options.threads + len(self.queues))
        }
        for thread in threads:
            thread.start()
        while not self._stopping.wait(_TICK):
            self._keep()
            if on_tick:
                on_tick()
        self._finish(threads)
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

    def _finish(self, threads: set[threading.Thread]) -> None:
        """An open long poll is left to come back: SQS may have put messages in its answer."""
        deadline = time.monotonic() + self.options.grace
        with self._lock:
            unstarted = list(self._waiting)
            self._waiting.clear()
            self.counters.waiting = 0
            self._changed.notify_all()
        for run in unstarted:
            self._hide(run.source, run.messages, 0)
        while True:
            self._keep()
            given_up = {limit.thread_id for limit in timeouts.stuck()}
            if time.monotonic() > deadline:
                given_up |= self._running_in.keys()
            if not any(thread.is_alive() and thread.ident not in given_up for thread in threads):
                break
            time.sleep(_TICK / 10)
        for thread_id, (source, message) in self._running():
            logger.error("stop unfinished id=%s thread=%s", message.message_id, thread_id)
            self._hide(source, [message], 0)
        self._flush(force=True)

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
                if self._waiting and self.counters.running < self.options.threads:
                    run = self._waiting.popleft()
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
        room = soon - counters.waiting - sum(source.asked for source in self.queues)
        now = time.monotonic()
        for _ in range(len(self._turn)):
            source = self._turn[0]
            self._turn.rotate(-1)
            if source.retry_at > now:
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
            if source.queue is None or source.failures:
                source.queue = sqs.queue(source.name)
            received = source.queue.receive(
                count=poll.ask, wait=poll.wait, visibility=self.options.visibility
            )
        except SchedulingError as exc:
            self._poll_failed(source, exc)
        except Exception as exc:
            logger.exception("poll queue=%s failed", source.name)
            self._poll_failed(source, exc)
        with self._lock:
            source.polls -= 1
            source.asked -= poll.ask
            fresh = [] if received is None else self._take_in(poll, received)
        if fresh:  # stopping: they came too late
            self._hide(source, fresh, 0)

    def _take_in(self, poll: _Poll, received: list[Received]) -> list[Received]:
        """Queue what was received; what is to be given back at once is returned."""
        source, counters = poll.source, self.counters
        if source.failures:
            logger.info("poll queue=%s recovered failures=%d", source.name, source.failures)
        source.failures = 0
        source.is_busy, source.is_empty = len(received) == poll.ask, not received
        counters.last_poll = time.monotonic()
        fresh = []
        for message in received:
            if held := self._held.get(message.message_id):
                held.receipt, held.expires = message.receipt, message.expires
            else:
                self._held[message.message_id] = message
                fresh.append(message)
        if self._stopping.is_set():
            return fresh
        runs = list(_runs(source, fresh))
        self._waiting.extend(runs)
        counters.waiting += len(fresh)
        # This thread goes on to run one of them; another may run the rest, or poll.
        self._changed.notify(1 if self._average < _QUICK else len(runs))
        if self.options.burst and not self._held and all(s.is_empty for s in self.queues):
            self.stop()
        return []

    def _poll_failed(self, source: _Source, exc: Exception) -> None:
        now = time.monotonic()
        source.failures += 1
        pause = random.uniform(0.5, 1) * min(2.0 ** min(source.failures - 1, 10), _MAX_BACKOFF)
        source.retry_at = now + pause
        if now - source.logged_at >= _LOG_EVERY:
            source.logged_at = now
            logger.error(
                "poll queue=%s failures=%d retry_in=%.1f error=%s",
                source.name, source.failures, pause, exc,
            )  # fmt: skip

    def _run(self, run: _Run) -> None:
        started = time.monotonic()
        verdicts: list[tuple[Received, Verdict]] = []
        for position, message in enumerate(run.messages):
            if self._stopping.is_set() and position:
                self._hide(run.source, run.messages[position:], 0)
                break
            if not message.is_ours:
                logger.warning("skipped id=%s: its visibility ran out", message.message_id)
                self._forget(run.messages[position:])
                break
            verdict = self._handle(run.source, message)
            verdicts.append((message, verdict))
            if not verdict.delete:
                # The rest of a FIFO group must wait for this one.
                self._hide(run.source, run.messages[position + 1 :], verdict.delay or 0)
                break
        self._ended(run.source, verdicts, time.monotonic() - started)

    def _handle(self, source: _Source, message: Received) -> Verdict:
        thread_id = threading.get_ident()
        self._running_in[thread_id] = source, message
        try:
            return self._handler(message)
        except Exception:
            logger.exception("handler failed id=%s", message.message_id)
            return Verdict(delete=False)
        finally:
            del self._running_in[thread_id]

    def _ended(
        self, source: _Source, verdicts: list[tuple[Received, Verdict]], duration: float
    ) -> None:
        with self._lock:
            self.counters.running -= 1
            for message, verdict in verdicts:
                if verdict.delete:
                    self.counters.done += 1
                    source.finished.append(message)
                else:
                    self.counters.failed += 1
                    if verdict.delay is None:
                        self._held.pop(message.message_id, None)
                    else:
                        source.hidden.append((message, verdict.delay))
            if verdicts:
                each = duration / len(verdicts)
                self._average = each if self._average == math.inf else (
                    0.8 * self._average + 0.2 * each
                )  # fmt: skip
            source.pending_since = min(source.pending_since, time.monotonic())
            self._started += len(verdicts)
            full = len(source.finished) >= MAX_BATCH_ENTRIES
        if self.options.max_tasks and self._started >= self.options.max_tasks:
            self.stop()
        if full or (source.queue and source.queue.address.is_fifo):
            self._flush_source(source, force=False)

    # --- giving back -----------------------------------------------------------------------

    def _forget(self, messages: Iterable[Received]) -> None:
        with self._lock:
            for message in messages:
                self._held.pop(message.message_id, None)

    def _hide(self, source: _Source, messages: Sequence[Received], delay: float) -> None:
        """Have ``messages`` delivered again after ``delay`` seconds."""
        if messages:
            with self._lock:
                source.hidden.extend((message, delay) for message in messages)
            self._flush_source(source, force=True)

    def _flush(self, *, force: bool = False) -> None:
        now = time.monotonic()
        for source in self.queues:
            if force or now - source.pending_since > _FLUSH_AFTER:
                self._flush_source(source, force=True)

    def _flush_source(self, source: _Source, *, force: bool) -> None:
        """Delete what is finished and hide what failed; ``force`` also in batches not full."""
        smallest = 1 if force or (source.queue and source.queue.address.is_fifo) else 10
        while True:
            with self._lock:
                finished = _cut(source.finished, smallest)
                hidden = _cut(source.hidden, 1 if force else smallest)
                if not finished and not hidden:
                    if not source.finished and not source.hidden:
                        source.pending_since = math.inf
                    return
            if finished and not self._delete(source, finished):
                return
            if hidden and not self._change_visibility(source, hidden):
                return

    def _delete(self, source: _Source, messages: list[Received]) -> bool:
        ours = [message for message in messages if message.is_ours]
        if len(ours) < len(messages):
            logger.warning(
                "not deleted queue=%s count=%d: their visibility ran out; they will run again",
                source.name, len(messages) - len(ours),
            )  # fmt: skip
        refused: list[Received] = []
        if ours:
            try:
                refused = ours[0].queue.delete_batch(ours)
            except SchedulingError as exc:
                logger.error("delete queue=%s count=%d error=%s", source.name, len(ours), exc)
                with self._lock:
                    source.finished.extend(ours)
                    source.pending_since = time.monotonic()
                self._forget(message for message in messages if message not in ours)
                return False
        if refused:
            logger.error("delete queue=%s refused=%d", source.name, len(refused))
        self._forget(messages)
        return True

    def _change_visibility(self, source: _Source, hidden: list[tuple[Received, float]]) -> bool:
        ours = [(message, delay) for message, delay in hidden if message.is_ours]
        messages = [message for message, _ in ours]
        seconds = [min(max(math.ceil(delay), 0), MAX_VISIBILITY) for _, delay in ours]
        self._forget(message for message, _ in hidden)
        try:
            refused = messages[0].queue.change_visibility_batch(messages, seconds) if ours else []
        except SchedulingError as exc:
            # They come back by themselves when their visibility runs out.
            logger.error("hide queue=%s count=%d error=%s", source.name, len(ours), exc)
            return False
        if refused:
            logger.error("hide queue=%s refused=%d", source.name, len(refused))
        return True

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
            if self._waiting or any(not s.polls and s.retry_at <= now for s in self.queues):
                self._changed.notify_all()

    def _extend(self) -> None:
        """Extend the visibility of what is held, except by a stuck thread."""
        now, visibility = time.monotonic(), self.options.visibility
        stuck = {limit.thread_id for limit in timeouts.stuck()}
        lost = {run.message_id for thread, (_, run) in self._running() if thread in stuck}
        due: dict[Queue, list[Received]] = {}
        with self._lock:
            for message in self._held.values():
                is_due = now < message.expires < now + visibility * 2 / 3
                if is_due and message.message_id not in lost:
                    due.setdefault(message.queue, []).append(message)
        for queue, messages in due.items():
            while batch := _cut(messages, 1):
                try:
                    refused = queue.change_visibility_batch(batch, [visibility] * len(batch))
                except SchedulingError as exc:
                    logger.error("heartbeat queue=%s failed=%d error=%s", queue.name, len(due), exc)
                    break
                if refused:
                    logger.error("heartbeat queue=%s refused=%d", queue.name, len(refused))

    def _running(self) -> list[tuple[int, tuple[_Source, Received]]]:
        return list(self._running_in.items())


def _runs(source: _Source, messages: list[Received]) -> Iterator[_Run]:
    """Messages of one FIFO group stay together, in their order."""
    groups: dict[str, list[Received]] = {}
    is_fifo = source.queue is not None and source.queue.address.is_fifo
    for message in messages:
        key = message.attributes.get("MessageGroupId", "") if is_fifo else message.message_id
        groups.setdefault(key, []).append(message)
    return (_Run(source, group) for group in groups.values())


def _cut(items: list[_Item], smallest: int) -> list[_Item]:
    """Take up to a batch off the front of ``items``, if there are at least ``smallest``."""
    if len(items) < smallest:
        return []
    batch = items[:MAX_BATCH_ENTRIES]
    del items[: len(batch)]
    return batch
