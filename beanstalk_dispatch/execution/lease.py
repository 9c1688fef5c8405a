"""Lease: keeps a message from running twice, with entries in a cache that all workers share.

There are two keys for each task: for its id, its function and its queue, so that a message with
the id of another task cannot end that one. The *turn* is taken with the cache's atomic ``add``
before the task runs. It expires by itself, so that a killed process does not block its task for
longer, and the next process on that machine gives it up. The *mark* is set when an attempt has
ended and will not be repeated. Every later delivery of that attempt is a duplicate. The mark is set
before the turn is given up, so the next owner of the turn sees it.
"""

from __future__ import annotations

import functools
import logging
import math
import random
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from beanstalk_dispatch import clock
from beanstalk_dispatch.exceptions import (
    AlreadyDone,
    AlreadyRunning,
    TaskCancelled,
)
from beanstalk_dispatch.log_lines import quoted, quoted_error
from beanstalk_dispatch.marks import cancelled_key, paused_key
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.shared_cache import cache_key, cache_of, unavailable_error
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

from .crash_ledger import CutTask
from .time_limit import GRACE

logger = logging.getLogger("beanstalk_dispatch.task.lease")

MARGIN: Final = 30.0
"""Seconds that a lease outlasts the time limit and the grace period of its task."""
MARK_SECONDS: Final = 4 * 86400
"""How long a finished task is remembered: as long as a queue keeps messages by default.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""
WHY_CANCELLED: Final = "it was cancelled before it ran"
_DONE: Final = math.inf
_TRIES: Final = 3
_PAUSE: Final = 0.5  # seconds between two of them


class Lease:
    """The turn to run one attempt of one task. Only its owner gives it up.

    Raises ConfigurationError if there is no such cache.
    """

    def __init__(self, alias: str, message: Message, *, queue: str, time_limit: float) -> None:
        key = _key(queue, message.function, message.id)
        self._turn, self._mark = cache_key("turn", key), cache_key("mark", key)
        self._alias = alias
        self._cache = cache_of(alias)
        self._message = message
        self._seconds = math.ceil(min(time_limit, MAX_VISIBILITY_SECONDS) + GRACE + MARGIN)
        self._token = f"{time.time()} {uuid.uuid4().hex}"
        self._paused = paused_key(queue)
        self.paused_since: float | None = None
        """When the queue was paused, in Unix seconds; None if it is not, or if nobody has asked."""
        self._is_done = False

    def take(self, *, asks_for_pause: bool = False) -> None:
        """Take the turn. Raises AlreadyDone, AlreadyRunning, TaskCancelled or LeaseUnavailable.

        What is asked besides comes in the same answer of the cache: whether the task is cancelled
        and, with ``asks_for_pause``, since when the queue is paused.
        """
        cache, cancelled = self._cache, cancelled_key(self._message.id)
        turn = (self._token, time.time() + self._seconds)
        self._expires = clock.monotonic() + self._seconds
        taken = False
        try:
            taken = cache.add(self._turn, turn, self._seconds)
            keys = [self._mark, cancelled, *([self._paused] if asks_for_pause else [])]
            found = cache.get_many(keys if taken else [*keys, self._turn])
            is_over = self._message.attempt < found.get(self._mark, 0)
            _, until = found.get(self._turn, (None, 0.0))
            wait = max(until - time.time(), 1.0)
        except Exception as exc:
            if taken:
                self.give_up()
            raise unavailable_error(self._alias, exc) from exc
        is_cancelled, self.paused_since = cancelled in found, found.get(self._paused)
        if taken and (is_over or is_cancelled):
            self.give_up()
        if is_over:
            raise AlreadyDone("this attempt has ended before")
        if not taken:
            raise AlreadyRunning("the same message is running", wait)
        if is_cancelled:
            raise TaskCancelled(WHY_CANCELLED)

    def done(self) -> None:
        """The task ran to success; nothing of it ever runs again. May be called twice."""
        if not self._is_done:
            self._is_done = True
            self._end_turn(_DONE)

    def handed_on(self) -> None:
        """This attempt has ended, and the next one or the dead-letter queue has the message."""
        self._is_done = False
        self._end_turn(self._message.attempt + 1)

    def give_up(self) -> None:
        """Let the same attempt run again, at once."""
        if self._is_done or clock.monotonic() > self._expires - 1:
            return  # there is nothing left to run, or it may be somebody else's by now

        def free() -> None:
            if (turn := self._cache.get(self._turn)) and turn[0] == self._token:
                self._cache.delete(self._turn)

        self._try_cache(free)

    def _end_turn(self, mark: float) -> None:
        self._try_cache(functools.partial(self._cache.set, self._mark, mark, MARK_SECONDS))
        if mark is not _DONE:
            self.give_up()

    def _try_cache(self, action: Callable[[], Any]) -> None:
        """The outcome stands whatever the cache does; without an answer the turn expires."""
        failure: Exception | None = None
        for number in range(_TRIES):
            if number:
                time.sleep(_PAUSE * random.uniform(0.5, 1))
            try:
                action()
            except Exception as exc:
                failure = exc
            else:
                return
        logger.error(
            "lease not updated id=%s cache=%s expires_in=%.0f error=%s",
            quoted(self._message.id),
            self._alias,
            max(self._expires - clock.monotonic(), 0),
            quoted_error(failure, with_type=True),
        )


def give_up_turns(alias: str, tasks: Iterable[CutTask]) -> None:
    """Give up the turns of tasks whose process has ended, so that they run again at once.

    Otherwise each of their deliveries would be refused, and count as a receive, until the turn
    expires. A turn that was taken after the task was started is another process's.
    """
    with suppress(Exception):  # they expire
        cache = cache_of(alias)
        started = {
            cache_key("turn", _key(each.queue, each.function, each.id)): each.started
            for each in tasks
        }
        cache.delete_many(
            [
                turn
                for turn, (token, _) in cache.get_many(started).items()
                if float(token.partition(" ")[0]) <= started[turn]
            ]
        )


def _key(queue: str, function: str, task_id: str) -> str:
    return "\n".join((queue, function, task_id))
