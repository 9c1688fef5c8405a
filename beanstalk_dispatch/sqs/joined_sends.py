"""JoinedSends: messages that threads send to one queue at the same time share requests.

A message is sent at once while fewer than MAX_OPEN requests are open. One that comes while they are
all open waits until the first of them ends. Then one of the threads that wait sends the messages of
all of them, up to ten, in one request. No message waits for others to come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, TypeVar

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.process import clock

from .batch_sender import BatchEntry, batches

MAX_OPEN: Final = 4
"""The number of open requests at which a message waits."""
LONGEST_WAIT: Final = 0.1
"""The part of the time limit for which a message waits. Then it is sent by itself."""

WAITED: Final[ContextVar[float]] = ContextVar("beanstalk_dispatch.waited", default=0.0)
"""The seconds that a message has waited before its request. They count towards the time limit."""

Answer: TypeAlias = "str | SendError | None"
"""The SQS message id, or the error. None if the message is to be sent by itself."""

T = TypeVar("T")


class _Send:
    """One message, and the thread that waits for its result."""

    leader: _Send | None = None
    """The one whose thread sends it. None before, and once there is an answer."""
    batch: Sequence[_Send] = ()
    """The messages that this one's thread sends together."""
    answers: Sequence[Answer] = ()
    """The answers for ``batch``."""
    answer: Answer = None
    has_waited = False
    since = 0.0
    """When it began to wait, or when another that waits has first seen it. Monotonic seconds."""
    woken: threading.Lock
    """Released when the thread has to do something, or has its answer."""

    def __init__(self, body: str, send_parameters: Mapping[str, Any]) -> None:
        self.body = body
        self.send_parameters = send_parameters

    def wake(self) -> None:
        if self.woken.locked():
            self.woken.release()


class JoinedSends:
    """The sends to one queue that are under way. Any thread may call.

    An interrupt may end a thread at any point. It costs no other thread its message: whatever the
    thread should have sent is sent by another one.
    """

    def __init__(
        self, *,
        alone: Callable[[str, Mapping[str, Any]], str],
        together: Callable[[Sequence[BatchEntry]], Sequence[Answer]],
        time_limit: float,
    ) -> None:  # fmt: skip
        self._alone = alone
        self._together = together
        self._time_limit = time_limit
        self._lock = threading.RLock()  # the handler of a signal may schedule a task
        self._open: set[_Send] = set()
        """Those whose threads make a request now."""
        self._waiting: list[_Send] = []

    def send(self, body: str, send_parameters: Mapping[str, Any]) -> str:
        """Send one message and return its SQS message id. Raise SendError."""
        own = _Send(body, send_parameters)
        try:
            try:
                if self._enter(own):
                    return self._alone(body, send_parameters)
                self._wait(own)
                if own.leader is own:
                    self._send_batch(own)
            finally:
                self._hand_over(own)
        except BaseException:
            self._hand_over(own)  # again, because an interrupt may have struck it
            raise
        if isinstance(own.answer, SendError):
            raise own.answer from own.answer.__cause__
        return own.answer or self._after_wait(own, self._alone, body, send_parameters)

    def _enter(self, own: _Send) -> bool:
        """Return True if a message may be sent at once."""
        with self._lock:
            if len(self._open) >= MAX_OPEN:
                own.since = clock.monotonic()
                for each in tuple(self._open):
                    each.since = each.since or own.since
                    # One that is older has ended without leaving: two interrupts struck it.
                    if each.since < own.since - 2 * self._time_limit:
                        self._open.discard(each)
            is_first = len(self._open) < MAX_OPEN
            if is_first:
                self._open.add(own)
            else:
                own.woken = threading.Lock()
                own.woken.acquire()
                own.has_waited = True
                self._waiting.append(own)
        return is_first

    def _wait(self, own: _Send) -> None:
        """Wait until this thread is to send a batch, or its message was sent, or is left to it."""
        for part in (LONGEST_WAIT, 1 - LONGEST_WAIT):
            if own.woken.acquire(timeout=part * self._time_limit):
                return
            with self._lock:
                if is_left := own in self._waiting:
                    self._waiting.remove(own)
            if is_left:
                return
        raise SendError("no answer came in time to the request of several threads")

    def _send_batch(self, own: _Send) -> None:
        if len(own.batch) == 1:
            own.answer = self._after_wait(own, self._alone, own.body, own.send_parameters)
            return
        try:
            own.answers = self._after_wait(own, self._together, own.batch)
        except Exception:  # each is sent by itself, and gets the error of its own
            own.answers = [None] * len(own.batch)

    def _after_wait(self, own: _Send, request: Callable[..., T], *arguments: Any) -> T:
        token = WAITED.set(clock.monotonic() - own.since)
        try:
            return request(*arguments)
        finally:
            WAITED.reset(token)

    def _hand_over(self, own: _Send) -> None:
        """End the part of a thread: answer the messages of its batch, and start the next batch.

        A second call completes one that was interrupted.
        """
        with self._lock:
            self._open.discard(own)
            if own.has_waited:
                self._settle(own)
            while self._waiting and (len(self._open) < MAX_OPEN or self._waiting[0] in self._open):
                self._start_next()
            for each in self._open:  # here, so that a second call wakes whom the first has not
                if each.batch:
                    each.wake()

    def _settle(self, own: _Send) -> None:
        if own in self._waiting:
            self._waiting.remove(own)
        if own.answers:
            for each, answer in zip(own.batch, own.answers, strict=True):
                each.answer, each.leader = answer, None
                each.wake()
        for each in reversed(own.batch):
            if each.leader is own:  # the thread was interrupted: another one sends the rest
                if each is not own and each not in self._waiting:
                    self._waiting.insert(0, each)
                each.leader = None
        own.leader = None

    def _start_next(self) -> None:
        """Have the first of the waiting threads send a batch."""
        batch = [self._waiting[position] for position in next(batches(self._waiting))]
        leader = batch[0]
        leader.batch = batch
        self._open.add(leader)
        for each in batch:
            each.leader = leader
        del self._waiting[: len(batch)]
