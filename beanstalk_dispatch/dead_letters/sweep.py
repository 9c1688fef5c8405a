"""A run over a dead-letter queue: message by message, with progress, and safe to end anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from beanstalk_dispatch.exceptions import BeanstalkDispatchError, SendError
from beanstalk_dispatch.logging.log_lines import escaped
from beanstalk_dispatch.queues.waiting import problem_of
from beanstalk_dispatch.sqs.error_codes import Scope
from beanstalk_dispatch.sqs.errors import missing_permission, scope_of
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .dead_letter import Filters, ReceivedDeadLetter
from .receiving import HIDE_SECONDS, HeldMessages

T = TypeVar("T")

MAX_LISTED: Final = 20
"""The number of messages that stay and are listed with a reason. The others are counted."""

_PATIENCE_SECONDS: Final = 30.0
"""Seconds for which a request is repeated that SQS itself fails, before the run ends."""
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0
_SLICE_SECONDS: Final = 0.2
"""Seconds between two reports of a run that waits."""
_MARGIN_SECONDS: Final = 5.0
"""Seconds of the hiding that a message must have left to be begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """The options of a run over a dead-letter queue."""

    rate: float | None = None
    """The number of messages per second, at most."""
    limit: int | None = None
    """The number of messages after which the run ends."""
    hide: int = HIDE_SECONDS
    """Seconds for which a received message is hidden if the process is killed."""
    dry_run: bool = False
    """True only to count the messages that would be handled."""


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """The progress of a run. One object is updated during the whole run."""

    about: int | None = None
    """About how many messages there were at the start; None if SQS did not say."""
    looked_at: int = 0
    done: int = 0
    failed: int = 0
    """The number of messages that match and stay where they are."""
    reasons: dict[str, str] = field(default_factory=dict)
    """The id of each message that stays → the reason, for the first MAX_LISTED of them."""
    not_deleted: list[str] = field(default_factory=list)
    """The ids of messages that were sent back and are still in the dead-letter queue, too."""
    not_found: list[str] = field(default_factory=list)
    """The requested ids that no message has."""
    still_hidden: int = 0
    """The number of messages that could not be released.

    They are visible after ``hide`` seconds.
    """
    waiting_for: str = ""
    """The error because of which a request is repeated now."""
    error: str = ""
    """The reason why the run has ended early; empty if it has not."""
    by_sqs: bool = False
    """True if SQS moves the messages itself."""
    note: str = ""
    """The reason why SQS does not move the messages itself, although it could."""

    @property
    def is_complete(self) -> bool:
        """True if everything that matched was done."""
        return not (self.error or self.failed or self.not_deleted or self.not_found)

    def plus(self, later: SweepReport) -> SweepReport:
        """Return one report for this run and for a later one of another queue."""
        is_known = self.about is not None and later.about is not None
        return replace(
            later,
            about=(self.about or 0) + (later.about or 0) if is_known else None,
            looked_at=self.looked_at + later.looked_at,
            done=self.done + later.done,
            failed=self.failed + later.failed,
            reasons=self.reasons | later.reasons,
            not_deleted=self.not_deleted + later.not_deleted,
            still_hidden=self.still_hidden + later.still_hidden,
            note=self.note or later.note,
        )

    def fail(self, dead_letter: ReceivedDeadLetter, reason: str) -> None:
        """Count a dead letter that stays."""
        self.failed += 1
        if len(self.reasons) < MAX_LISTED:
            self.reasons[dead_letter.id] = escaped(reason)


Steps = Generator[SweepReport, None, None]
"""The report after each step of a run."""


class Sweep:
    """A run that does one thing with each dead letter that matches, and then deletes it.

    ``prepare`` comes first, and may be repeated: a redrive sends there. So a run that ends anywhere
    loses nothing, and one message at most is in both queues. Without ``prepare`` the messages are
    deleted in batches.
    """

    def __init__(
        self, queue: Queue, filters: Filters, options: SweepOptions, *,
        read: Callable[[Received], ReceivedDeadLetter],
        prepare: Callable[[ReceivedDeadLetter], None] | None,
        report: SweepReport,
    ) -> None:  # fmt: skip
        self._queue = queue
        self._filters = filters
        self._options = options
        self._read = read
        self._prepare = prepare
        self._report = report
        self._held = HeldMessages(queue, hide=options.hide)
        self._next_at = 0.0
        """The time at which the rate allows the next message, in monotonic seconds."""
        self._ids_left = set(filters.ids)
        """The ids of the filters that no message had yet."""
        self._not_deleted: set[str] = set()
        """The SQS ids of messages that SQS did not delete."""
        self._prepared: set[str] = set()
        """The SQS ids of prepared messages.

        A standard queue may deliver a deleted message again.
        """

    def steps(self) -> Steps:
        """Run over the queue, and yield the report after each step.

        Close the iterator to end the run.
        """
        report = self._report
        size = 1 if self._prepare else MAX_BATCH_ENTRIES
        try:
            while not (self._held.is_over or self._has_enough()):
                received = yield from self._retry_on_server_errors(
                    lambda: self._held.receive(self._receive_count())
                )
                while received and not self._has_enough():
                    yield from self._handle(received[:size])
                    del received[:size]
                    yield report
            report.not_found = sorted(self._ids_left)
        except SendError as exc:
            report.error = problem_of(exc)
        finally:
            self._held.close()
            report.still_hidden = self._held.still_hidden
        yield report

    def _has_enough(self, chosen: int = 0) -> bool:
        """Return True if no more messages are wanted besides those that are ``chosen``."""
        limit = self._options.limit
        is_found = bool(self._filters.ids) and not self._ids_left
        return is_found or (limit is not None and self._report.done + chosen >= limit)

    def _receive_count(self) -> int:
        """Return the number of messages to receive: as many as the rate allows in time."""
        options = self._options
        if options.rate is None:
            return MAX_BATCH_ENTRIES
        return max(1, min(MAX_BATCH_ENTRIES, int(options.rate * options.hide / 2)))

    def _handle(self, received: Sequence[Received]) -> Steps:
        """Prepare and delete the messages that match, as many as the limit allows."""
        chosen: list[ReceivedDeadLetter] = []
        for dead_letter in map(self._read, received):
            if self._has_enough(len(chosen)):
                break
            self._report.looked_at += 1
            if not self._filters.match(dead_letter):
                continue
            yield from self._wait_for_rate()
            if time.monotonic() > dead_letter.received.expires - _MARGIN_SECONDS:
                self._held.settle(dead_letter.received)  # it is received again
            else:
                chosen.append(dead_letter)
        try:
            yield from self._prepare_and_delete(chosen)
        except BeanstalkDispatchError as exc:
            if isinstance(exc, SendError) and not _is_about_one_message(exc):
                raise
            self._report.fail(chosen[0], problem_of(exc))  # what is prepared comes alone
        for each in chosen:
            self._ids_left -= {each.id, each.message_id}

    def _prepare_and_delete(self, chosen: Sequence[ReceivedDeadLetter]) -> Steps:
        new = [each for each in chosen if each.message_id not in self._prepared]
        for each in new:
            if self._prepare:
                yield from self._retry_on_server_errors(
                    partial(self._prepare, each), until=each.received.expires
                )
            self._prepared.add(each.message_id)
        try:
            if chosen and not self._options.dry_run:
                self._delete(chosen)
        finally:
            self._report.done += sum(each.message_id not in self._not_deleted for each in new)

    def _delete(self, dead_letters: Sequence[ReceivedDeadLetter]) -> None:
        """Delete dead letters. Nothing may come between ``prepare`` and this."""
        left = {each.message_id: each for each in dead_letters}
        pauses = _pauses(min(each.received.expires for each in dead_letters))
        while True:
            reasons, is_final = self._try_to_delete(list(left.values()))
            for message_id in left.keys() - reasons.keys():
                self._held.settle(left.pop(message_id).received)
            if not left:
                return
            pause = None if is_final else next(pauses, None)
            if pause is None:
                self._not_deleted.update(left)
                kept = [each.id for each in left.values()]
                self._report.not_deleted += kept
                reason = next(iter(reasons.values()))
                raise SendError(f"{kept[0]} could not be deleted: {reason}")
            time.sleep(pause)

    def _try_to_delete(self, dead_letters: list[ReceivedDeadLetter]) -> tuple[dict[str, str], bool]:
        """Return the reason of each that stays, and whether another try would fail, too."""
        try:
            refused = self._queue.delete_batch([each.received for each in dead_letters])
        except SendError as exc:
            reasons = dict.fromkeys((each.message_id for each in dead_letters), problem_of(exc))
            return reasons, scope_of(exc) is not Scope.LATER
        is_final = any(each.is_final for each in refused)
        return {each.message.message_id: each.reason for each in refused}, is_final

    def _retry_on_server_errors(
        self, request: Callable[[], T], *, until: float = math.inf
    ) -> Generator[SweepReport, None, T]:
        """Repeat a request for a time while SQS itself fails. Raise its last error then."""
        pauses = _pauses(until - _MARGIN_SECONDS)
        while True:
            try:
                result = request()
            except SendError as exc:
                pause = next(pauses, None) if scope_of(exc) is Scope.LATER else None
                if pause is None:
                    raise
                self._report.waiting_for = problem_of(exc)
            else:
                self._report.waiting_for = ""
                return result
            yield from wait(pause, self._report)

    def _wait_for_rate(self) -> Steps:
        rate = self._options.rate
        if rate is not None and not self._options.dry_run:
            yield from wait(self._next_at - time.monotonic(), self._report)
            self._next_at = time.monotonic() + 1 / rate


def _pauses(until: float) -> Iterator[float]:
    """Yield the seconds to wait before each repetition of a request, while it ends in time."""
    pause = _FIRST_PAUSE_SECONDS
    until = min(until, time.monotonic() + _PATIENCE_SECONDS)
    while time.monotonic() + pause <= until:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def wait(seconds: float, report: SweepReport) -> Steps:
    """Wait, and yield the report again and again meanwhile, so that the caller can end the run."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE_SECONDS))
        yield report


def _is_about_one_message(exc: SendError) -> bool:
    """Return True if SQS may take the next message, which may go to another queue."""
    return scope_of(exc) in {Scope.MESSAGE, Scope.QUEUE} and not missing_permission(exc)
