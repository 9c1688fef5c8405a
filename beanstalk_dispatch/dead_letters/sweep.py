"""Runs over a dead-letter queue: letter by letter, with progress, and safe to end anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from beanstalk_dispatch.exceptions import BeanstalkDispatchError, SendError
from beanstalk_dispatch.logging.log_lines import escaped
from beanstalk_dispatch.queues.waiting import problem_of
from beanstalk_dispatch.sqs.errors import Scope, missing_permission, scope_of
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .letters import Filters, Letter
from .receiving import HIDE_SECONDS, Look

T = TypeVar("T")

MAX_LISTED: Final = 20
"""How many letters that stay are listed with their reason. The others are counted."""

_PATIENCE_SECONDS: Final = 30.0
"""How long a request is repeated that SQS itself fails, before the run ends."""
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0
_SLICE_SECONDS: Final = 0.2
"""A run that waits reports this often."""
_MARGIN_SECONDS: Final = 5.0
"""A letter that is visible again sooner than this is not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """How a run over a dead-letter queue goes."""

    rate: float | None = None
    """Letters per second at most."""
    limit: int | None = None
    """End after this number of letters."""
    hide: int = HIDE_SECONDS
    """Seconds for which a letter that was looked at is hidden if the process is killed."""
    dry_run: bool = False
    """Only count what would be done."""


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """How far a run has come. One object is updated during the whole run."""

    about: int | None = None
    """About how many letters there were at the start; None if SQS did not say."""
    looked_at: int = 0
    done: int = 0
    failed: int = 0
    """Letters that match and stay where they are."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Id of a letter that stays → the reason, for the first MAX_LISTED of them."""
    not_deleted: list[str] = field(default_factory=list)
    """Ids of letters that were sent back and are still in the dead-letter queue, too."""
    not_found: list[str] = field(default_factory=list)
    """Those of the ids asked for that no letter has."""
    still_hidden: int = 0
    """Letters that could not be made visible again. They are so after the time of ``hide``."""
    waiting_for: str = ""
    """The error because of which a request is repeated now."""
    error: str = ""
    """Why the run has ended early; empty if it has not."""
    by_sqs: bool = False
    """Whether SQS moves the letters itself."""
    note: str = ""
    """Why SQS does not move the letters itself, although it could."""

    @property
    def is_complete(self) -> bool:
        """Whether everything that matched was done."""
        return not (self.error or self.failed or self.not_deleted or self.not_found)

    def fail(self, letter: Letter, reason: str) -> None:
        """Count a letter that stays."""
        self.failed += 1
        if len(self.reasons) < MAX_LISTED:
            self.reasons[letter.id] = escaped(reason)


Steps = Generator[SweepReport, None, None]
"""The report after each step of a run."""


class Sweep:
    """Does one thing with each letter that matches, and then deletes the letter.

    ``prepare`` comes first, and may be repeated: a redrive sends there. So a run that ends anywhere
    loses nothing, and one letter at most is in both queues.
    """

    def __init__(
        self, queue: Queue, filters: Filters, options: SweepOptions, *,
        read: Callable[[Received], Letter],
        prepare: Callable[[Letter], None],
        report: SweepReport,
    ) -> None:  # fmt: skip
        self._queue = queue
        self._filters = filters
        self._options = options
        self._read = read
        self._prepare = prepare
        self._report = report
        self._look = Look(queue, hide=options.hide)
        self._next_at = 0.0
        """When the rate allows the next letter, in monotonic seconds."""
        self._ids_left = set(filters.ids)
        """Those ids of the filters that no letter had yet."""
        self._prepared: set[str] = set()
        """Ids of SQS. A standard queue may deliver a letter again that is deleted."""

    def steps(self) -> Steps:
        """Work, and yield the report after each step. Close the iterator to end the run."""
        report = self._report
        try:
            while not (self._look.is_over or self._has_enough()):
                received = yield from self._retry_on_server_errors(
                    lambda: self._look.receive(self._receive_count())
                )
                for each in received:
                    if self._has_enough():
                        break
                    report.looked_at += 1
                    yield from self._handle_letter(each)
                yield report
            report.not_found = sorted(self._ids_left)
        except SendError as exc:
            report.error = problem_of(exc)
        finally:
            self._look.release()
            report.still_hidden = self._look.still_hidden
        yield report

    def _has_enough(self) -> bool:
        limit = self._options.limit
        is_found = bool(self._filters.ids) and not self._ids_left
        return is_found or (limit is not None and self._report.done >= limit)

    def _receive_count(self) -> int:
        """How many letters to receive: as many as can be handled before they are visible again."""
        options = self._options
        if options.rate is None:
            return MAX_BATCH_ENTRIES
        return max(1, min(MAX_BATCH_ENTRIES, int(options.rate * options.hide / 2)))

    def _handle_letter(self, received: Received) -> Steps:
        letter = self._read(received)
        if not self._filters.match(letter):
            return
        yield from self._wait_for_turn()
        if time.monotonic() > received.expires - _MARGIN_SECONDS:
            self._look.settle(received)  # it is received again
            return
        try:
            is_new = received.message_id not in self._prepared
            if is_new:
                yield from self._retry_on_server_errors(
                    lambda: self._prepare(letter), until=received.expires
                )
                self._prepared.add(received.message_id)
            if not self._options.dry_run:
                self._delete_letter(letter)
            self._report.done += is_new
        except BeanstalkDispatchError as exc:
            if isinstance(exc, SendError) and not _is_about_one_letter(exc):
                raise
            self._report.fail(letter, problem_of(exc))
        self._ids_left -= {letter.id, letter.message_id}
        yield self._report

    def _delete_letter(self, letter: Letter) -> None:
        """Delete a letter. Nothing may come between ``prepare`` and this."""
        pause, deadline = _FIRST_PAUSE_SECONDS, time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                refused = self._queue.delete_batch([letter.received])
                reason = refused[0].reason if refused else ""
                is_final = bool(refused and refused[0].is_final)
            except SendError as exc:
                reason, is_final = problem_of(exc), scope_of(exc) is not Scope.LATER
            if not reason:
                self._look.settle(letter.received)
                return
            if is_final or time.monotonic() + pause > min(deadline, letter.received.expires):
                self._report.not_deleted.append(letter.id)
                raise SendError(f"{letter.id} could not be deleted: {reason}")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _retry_on_server_errors(
        self, request: Callable[[], T], *, until: float = math.inf
    ) -> Generator[SweepReport, None, T]:
        """Repeat a request for a time while SQS itself fails. Raises what it raises in the end."""
        pause = _FIRST_PAUSE_SECONDS
        deadline = min(time.monotonic() + _PATIENCE_SECONDS, until - _MARGIN_SECONDS)
        while True:
            try:
                result = request()
            except SendError as exc:
                is_final = scope_of(exc) is not Scope.LATER
                if is_final or time.monotonic() + pause > deadline:
                    raise
                self._report.waiting_for = problem_of(exc)
            else:
                self._report.waiting_for = ""
                return result
            yield from wait(pause, self._report)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _wait_for_turn(self) -> Steps:
        rate = self._options.rate
        if rate is not None and not self._options.dry_run:
            yield from wait(self._next_at - time.monotonic(), self._report)
            self._next_at = time.monotonic() + 1 / rate


def wait(seconds: float, report: SweepReport) -> Steps:
    """Wait, and yield the report again and again meanwhile, so that the caller can end the run."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE_SECONDS))
        yield report


def _is_about_one_letter(exc: SendError) -> bool:
    """Return True if SQS may take the next letter, which may go to another queue."""
    return scope_of(exc) in {Scope.MESSAGE, Scope.QUEUE} and not missing_permission(exc)
