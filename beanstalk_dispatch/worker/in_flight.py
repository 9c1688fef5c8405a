"""Holdings: the messages received from one queue and not let go of, and what each is owed.

A message is held from its receive until it is deleted or hidden. In between its visibility is
extended. What a request did not settle stays owed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received, Refused
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES, MAX_VISIBILITY_SECONDS

from .backoff import LONGEST, Backoff

logger = logging.getLogger("beanstalk_dispatch.worker")

_MOST_OWED: Final = 100  # messages to be deleted or hidden, above which no more are received
_SETTLE_WITHIN: Final = 3600.0  # seconds for which a message is kept that cannot be deleted
_PHASES: Final = 3  # run() and two hooks, each under the task's limit
_LEEWAY: Final = 10.0  # seconds in which a limit interrupts, or reports a stuck thread
_MARGIN: Final = 120.0  # seconds for all that is under no limit: imports, caches, signals

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Delete the message, or hide it for ``delay`` seconds; None leaves it as it is."""

    delete: bool
    delay: float | None = None


def expect_end(message: Received, limit: float = 0.0) -> None:
    """Keep the message no longer than a task under a time limit of ``limit`` seconds can take.

    Called when a task starts, and again once its limit is known.
    """
    longest = _PHASES * (limit + _LEEWAY) if limit else 0.0
    message.due = time.monotonic() + longest + _MARGIN


class Holdings:
    """What is held of one queue. Any thread may call; each request is one batch of one kind."""

    def __init__(self, name: str, visibility: int) -> None:
        self.name = name
        self.held: dict[str, Received] = {}
        self.deleting = Backoff("delete", name)
        self.hiding = Backoff("hide", name)
        self.extending = Backoff("heartbeat", name, min(visibility / 6, LONGEST))
        self._visibility = visibility
        self._lock = threading.Lock()
        self._full = threading.Condition(self._lock)
        self._finished: deque[Received] = deque()
        self._hidden: deque[tuple[Received, float]] = deque()

    @property
    def owed(self) -> int:
        """How many messages are to be deleted or hidden."""
        return len(self._finished) + len(self._hidden)

    @property
    def is_behind(self) -> bool:
        """Whether no more should be received until more is deleted and hidden."""
        troubled = not (self.deleting.is_over and self.hiding.is_over)
        return troubled or self.owed > _MOST_OWED

    def blocks_groups(self) -> bool:
        with self._lock:
            return any(message.queue.rules.keeps_order for message in self.held.values())

    def take(self, received: Iterable[Received]) -> list[Received]:
        """Hold what was received; what was held already is only renewed, and not returned."""
        fresh = []
        with self._lock:
            for message in received:
                if held := self.held.get(message.message_id):
                    held.receipt, held.expires = message.receipt, message.expires
                    held.extends = True
                else:
                    self.held[message.message_id] = message
                    fresh.append(message)
        return fresh

    def settle(self, message: Received, verdict: Verdict) -> None:
        if not verdict.delete:
            if verdict.delay is None:
                self.forget([message])
            else:
                self.give_back([message], verdict.delay)
            return
        message.due = time.monotonic() + _SETTLE_WITHIN
        with self._lock:
            self._finished.append(message)
            if len(self._finished) % MAX_BATCH_ENTRIES == 0:
                self._full.notify()

    def give_back(self, messages: Iterable[Received], delay: float = 0.0) -> None:
        """Have the messages delivered again after ``delay`` seconds."""
        due = time.monotonic() + _SETTLE_WITHIN
        with self._lock:
            for message in messages:
                message.due = due
                self._hidden.append((message, delay))

    def forget(self, messages: Iterable[Received]) -> None:
        """Let the messages come back when their visibility runs out."""
        with self._lock:
            for message in messages:
                if self.held.get(message.message_id) is message:
                    del self.held[message.message_id]

    # --- requests --------------------------------------------------------------------------

    def await_batch(self, seconds: float | None = None) -> None:
        """Return when a full batch can be deleted, or after so many seconds."""
        with self._lock:
            if len(self._finished) < MAX_BATCH_ENTRIES or not self.deleting.is_over:
                self._full.wait(seconds)

    def wake(self) -> None:
        with self._lock:
            self._full.notify_all()

    def delete(self, smallest: int = 1) -> bool:
        """Delete up to a batch of what is finished; whether trying again makes sense."""
        if not self.deleting.is_over:
            return False
        with self._batch(self._finished, smallest) as batch:
            self._drop_late(batch)
            if not batch:
                return False
            try:
                refused = open_queue(self.name).delete_batch(batch)
            except Exception as exc:
                self.deleting.failed(exc)
                return False
            again = _again(self.deleting, refused)
            self.forget(message for message in batch if message not in again)
            batch[:] = again
        if lost := len(refused) - len(again):
            logger.error("delete queue=%s refused=%d", self.name, lost)
        return True

    def _drop_late(self, batch: list[Received]) -> None:
        late = [message for message in batch if not message.is_ours]
        if late:
            logger.warning(
                "not deleted queue=%s count=%d: their visibility ran out; they will run again",
                self.name, len(late),
            )  # fmt: skip
            self.forget(late)
            batch[:] = [message for message in batch if message not in late]

    def hide(self) -> bool:
        """Hide up to a batch of what is to be delivered again; as ``delete``.

        Never beside ``extend``: whichever SQS heard last would win.
        """
        if not self.hiding.is_over:
            return False
        with self._batch(self._hidden) as batch:
            # SQS may deliver it before its answer is here; that is a new message then.
            self.forget(message for message, _ in batch)
            batch[:] = [(message, delay) for message, delay in batch if message.is_ours]
            if not batch:
                return False
            messages = [message for message, _ in batch]
            seconds = [min(max(math.ceil(delay), 0), MAX_VISIBILITY_SECONDS) for _, delay in batch]
            try:
                refused = open_queue(self.name).change_visibility_batch(messages, seconds)
            except Exception as exc:
                self.hiding.failed(exc)
                batch[:] = self._held_again(batch)
                return False
            again = _again(self.hiding, refused)
            batch[:] = self._held_again((m, delay) for m, delay in batch if m in again)
        if lost := len(refused) - len(again):
            logger.error("hide queue=%s refused=%d", self.name, lost)
        return True

    def _held_again(self, batch: Iterable[tuple[Received, float]]) -> list[tuple[Received, float]]:
        """What is still to be hidden, without what has been received anew."""
        with self._lock:
            return [
                (message, delay)
                for message, delay in batch
                if self.held.setdefault(message.message_id, message) is message
            ]

    def extend(self) -> None:
        """Extend the visibility of what is held, as far as it is due to be."""
        now = time.monotonic()
        soon = now + self._visibility * 2 / 3
        with self._lock:
            due = [
                message
                for message in self.held.values()
                if message.extends and now < message.expires < soon and now < message.due
            ]
        while due and self.extending.is_over:
            batch, due = due[:MAX_BATCH_ENTRIES], due[MAX_BATCH_ENTRIES:]
            self._extend_batch(batch)

    def _extend_batch(self, batch: list[Received]) -> None:
        try:
            refused = open_queue(self.name).change_visibility_batch(
                batch, [self._visibility] * len(batch)
            )
        except Exception as exc:
            self.extending.failed(exc)
            return
        again = _again(self.extending, refused)
        lost = [each.message for each in refused if each.message not in again]
        for message in lost:
            message.extends = False
        # One that has ended meanwhile, and is deleted, is no loss.
        if count := sum(self.held.get(message.message_id) is message for message in lost):
            logger.error("heartbeat queue=%s refused=%d", self.name, count)

    @contextmanager
    def _batch(self, owed: deque[_Item], smallest: int = 1) -> Iterator[list[_Item]]:
        """Take a batch off the front; what the block leaves in it is owed as before."""
        with self._lock:
            size = min(len(owed), MAX_BATCH_ENTRIES)
            batch = [owed.popleft() for _ in range(size)] if size >= smallest else []
        try:
            yield batch
        finally:
            with self._lock:
                owed.extendleft(reversed(batch))


def _again(backoff: Backoff, refused: Sequence[Refused]) -> list[Received]:
    """Those of a batch that SQS may take another time."""
    transient = [each for each in refused if not each.is_final]
    if transient:
        backoff.failed(transient[0].reason)
    else:
        backoff.worked()
    return [each.message for each in transient]
