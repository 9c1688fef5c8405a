"""The leg of a long task: the items that one delivery runs, and the reasons to end it."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

from beanstalk_dispatch.exceptions import LeaseUnavailable, TaskCancelled
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of, errors_logged, required
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.resuming import PROGRESS, NextLeg, progress

from .coroutines import call_outside_of_loop
from .leases.lease import ENDED_SECONDS, task_key
from .left_behind import connections
from .run import Run

logger = logging.getLogger("beanstalk_dispatch.task")

MARGIN_SHARE: Final = 0.1
"""The share of the time limit that is left when a leg ends, or twice its longest item if longer."""
_LOOK_SECONDS: Final = 0.1
_ASK_SECONDS: Final = 1.0


class RunLeg:
    """The leg of a run, from its cursor on.

    ``in_transaction``: the databases that were in a transaction before it. ``started``: its start
    by ``clock.monotonic``.
    """

    def __init__(self, run: Run, *, in_transaction: Collection[str], started: float) -> None:
        self._run = run
        self.cursor = run.message.cursor
        done, total = run.message.progress or (0, None)
        self.progress = (done or 0, total)
        self._end_reason = ""
        self._in_transaction = in_transaction
        self._last = started
        self._finished = 0
        self._next_look_at = self._next_ask_at = -math.inf

    def begin(self, every: int, count: Callable[[], int | None]) -> None:
        """Read the cursor that is kept of this leg, if there is one.

        A killed process has kept it. Then the message is sent again at once, so that its receives
        do not add up to a dead letter. Raise RuntimeError for a second ``resume`` of the task.
        """
        run = self._run
        if run.leg is not None:
            raise RuntimeError("a task can call resume() once")
        if set(connections.aliases_in_transaction()) - set(self._in_transaction):
            raise RuntimeError(
                "resume() is inside of transaction.atomic(), which the end of a leg would roll "
                "back: open the transaction inside of the loop"
            )
        run.leg, self._every = self, every
        self._deadline = self._last + run.time_limit
        if run.delivery.deadline is not None:
            self._deadline = min(self._deadline, run.delivery.deadline)
        self._margin = run.time_limit * MARGIN_SHARE
        self._key = cache_key("cursor", task_key(run.queue, run.message))
        call_outside_of_loop(self._read_kept)
        if self.progress[1] is None and PROGRESS.get() is not None:
            self.progress = (self.progress[0], self._total(count))

    def _read_kept(self) -> None:
        run = self._run
        if (alias := run.config.lease_cache) is None:
            return
        with required(alias):
            number, *kept = cache_of(alias).get(self._key, (0,))
        if number == run.message.leg:
            self.cursor, self.progress = kept
            if run.receive_count > 1 and not run.retries_by_hiding:
                self._end("an earlier delivery was interrupted")

    def _total(self, count: Callable[[], int | None]) -> int | None:
        """Return the number of all items; None if it is not known. Log an error of the query."""
        with errors_logged(logger, "items not counted id=%s", self._run.message.id):
            return count()
        return None

    def finish_item(self, cursor: Any) -> None:
        """Note the cursor of a finished item. Raise NextLeg if the leg ends here."""
        if not self._finished and json.loads(json.dumps(cursor)) != cursor:
            raise ValueError(f"JSON would change the cursor {cursor!r:.100}")
        done, total = self.progress
        self.cursor, self.progress = cursor, (done + 1, total)
        self._finished += 1
        if self._finished % self._every == 0:
            call_outside_of_loop(self._keep)
        progress(*self.progress)
        now = clock.monotonic()
        self._margin = max(self._margin, 2 * (now - self._last))
        self._last = now
        if not self._run.retries_by_hiding and (why := self._why_to_end(now)):
            self._end(why)

    def _end(self, why: str) -> None:
        self._end_reason = why
        raise NextLeg(why)

    def check(self) -> None:
        """Raise NextLeg if the leg has ended, and the task has caught its end."""
        if self._end_reason:
            raise NextLeg(self._end_reason)

    def _why_to_end(self, now: float) -> str:
        """Return why the leg ends now; the empty string if it does not.

        Raise TaskCancelled if the task is cancelled.
        """
        if now > self._deadline - self._margin:
            return "the time limit is near"
        if now < self._next_look_at:
            return ""
        self._next_look_at = now + _LOOK_SECONDS
        return call_outside_of_loop(lambda: self._ask(now))

    def _ask(self, now: float) -> str:
        if self._run.cancelled:
            raise TaskCancelled("it was cancelled while it ran")
        if self._run.consumer.is_ending():
            return "the process is ending"
        return "the queue is paused" if self._is_paused(now) else ""

    def _is_paused(self, now: float) -> bool:
        if now < self._next_ask_at:
            return False
        self._next_ask_at = now + _ASK_SECONDS
        with suppress(LeaseUnavailable):
            return bool(record.paused_since([self._run.queue], self._run.config))
        return False

    def _keep(self) -> None:
        """Keep the cursor in the lease's cache, if there is one."""
        alias, message = self._run.config.lease_cache, self._run.message
        if alias is None:
            return
        value = (message.leg, self.cursor, self.progress)
        with errors_logged(logger, "cursor not kept id=%s cache=%s", message.id, alias):
            cache_of(alias).set(self._key, value, ENDED_SECONDS)
