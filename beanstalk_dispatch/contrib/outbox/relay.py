"""The relay that sends the messages of the outbox, and deletes those that SQS has taken."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Final

from django.db import DatabaseError, OperationalError, connections

from beanstalk_dispatch.client import send_task_scheduled, way_of
from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import UnknownQueue
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.scheduling.destination import Destination, resolve
from beanstalk_dispatch.scheduling.prepare import Prepared
from beanstalk_dispatch.scheduling.send import SendResult, send_batches, send_what_can_be
from beanstalk_dispatch.scheduling.send_once import send_once
from beanstalk_dispatch.sqs.backoff import Backoff, BackoffTimes
from beanstalk_dispatch.sqs.batch_sender import NOT_TRIED
from beanstalk_dispatch.sqs.error_codes import Scope
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .claims import MAX_CLAIMED, Claim, Heads, claim, database_now, heads_of, queues_in
from .committed import Committed, Place
from .errors import describe_error
from .models import OutboxMessage
from .rows import to_prepared
from .status import waiting_in

logger = logging.getLogger("beanstalk_dispatch.scheduling")

POLL_SECONDS: Final = 1.0
"""Seconds between two searches of an outbox that is empty."""
FIGURES_SECONDS: Final = 5.0
"""Seconds between two counts of the waiting messages, or more if a count takes long."""
_COUNT_SHARE: Final = 50
LONGEST_PAUSE_SECONDS: Final = 10.0
"""Seconds between two tries while SQS takes no message of a queue."""
LONGEST_RETRY_SECONDS: Final = 300.0
"""Seconds between two tries to send a message that SQS refuses."""
PERIODIC_SECONDS: Final = 50.0
"""Seconds that ``send_waiting`` sends, so that it ends before a time limit of a minute."""

CLAIM_MARGIN_SECONDS: Final = 5.0
"""Seconds that a claim lasts longer than three requests."""

DELETE_ATTEMPTS: Final = 4
"""The number of tries to delete messages that SQS has taken."""

EVERY_QUEUE: Final = "every queue"
"""Stands for a queue in the pauses and log lines after an error that concerns everybody."""

_MAX_DOUBLINGS: Final = 10


def send_waiting() -> None:
    """Send the waiting messages, until none can be sent or PERIODIC_SECONDS have passed.

    This is a task: list it in BEANSTALK_DISPATCH_TABLE and BEANSTALK_DISPATCH_PERIODIC_TASKS.
    """
    deadline = time.monotonic() + PERIODIC_SECONDS
    Relay().send_available(lambda: time.monotonic() >= deadline)


class Relay:
    """A sender of the messages in the databases of BEANSTALK_DISPATCH_OUTBOX_DATABASES."""

    def __init__(self, times: BackoffTimes | None = None) -> None:
        self.sent = 0
        """The number of messages that the relay has sent."""
        self.waiting = 0
        """The number of messages that waited at the last count."""
        self.oldest_seconds = 0.0
        """The seconds for which the oldest of them had waited."""
        self._times = times or BackoffTimes(longest_retry=LONGEST_PAUSE_SECONDS)
        self._backoffs: dict[str, Backoff] = {}
        self._heads = Heads()
        self._next_count_at = float("-inf")

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Send the waiting messages, again and again until ``is_stopping``."""
        pause = threading.Event()
        logger.info("relay start databases=%r", " ".join(get_config().outbox_databases))
        while not is_stopping():
            self.send_available(is_stopping)
            self._count_waiting()
            close_old_connections()
            pause.wait(POLL_SECONDS)
        logger.info("relay stopped sent=%d waiting=%d", self.sent, self.waiting)

    def send_available(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Send until no more can be sent now, or until ``is_stopping``. Log each failure."""
        config = get_config()
        failing: set[str] = set()
        for database in config.outbox_databases:
            try:
                while not is_stopping() and self._send_round(database, config, failing):
                    pass
            except DatabaseError as exc:
                _log_unreadable(database, exc)
        self._forget_failures(except_of=failing)

    def _send_round(self, database: str, config: Config, failing: set[str]) -> bool:
        """Send one claim of each queue, and add to ``failing``. False if nothing was claimed."""
        is_found = False
        for queue in queues_in(database):
            if self._is_paused(queue):
                failing |= self._failing(queue)
                continue
            now = database_now(database)
            ids = self._heads.find(database, queue, now, self._claim_size(queue))
            is_found |= bool(ids and self._send_ids(Place(database, queue), ids, now, config))
        return is_found

    def send_committed(self, committed: Committed) -> bool:
        """Send one claim for each place of ``committed``. False if nothing was left to claim."""
        config = get_config()
        failing: set[str] = set()
        is_found = False
        for place in committed.places():
            try:
                is_found |= not self._is_paused(place.queue) and self._send_next(place, config)
            except DatabaseError as exc:
                _log_unreadable(place.database, exc)
            if self._is_paused(place.queue):
                failing |= self._failing(place.queue)
        self._forget_failures(except_of=failing)
        return is_found

    def _send_next(self, place: Place, config: Config) -> bool:
        """Send the next messages of a place.

        Return False if there were none, or if its queue has failed.
        """
        count = self._claim_size(place.queue)
        now = database_now(place.database)
        ids, names = place.ids[:count], list(place.groups)[:count]
        if not ids:
            heads = heads_of(place.database, place.queue, names)
            rows = self._send_ids(place, heads, now, config) if heads else []
            # Who has claimed the head of a group sends what follows it.
            if rows is not None:
                for name in set(names) - {row.fifo_group for row in rows}:
                    del place.groups[name]
        else:
            rows = self._send_ids(place, ids, now, config)
        if rows is None or self._is_paused(place.queue):
            return False
        del place.ids[: len(ids)]
        return bool(place.ids or place.groups)

    def _send_ids(
        self, place: Place, ids: Sequence[int], now: datetime, config: Config
    ) -> Sequence[OutboxMessage] | None:
        """Claim messages of a place and send them.

        Return those that were claimed, as ``claim`` does.
        """
        seconds = 3 * config.send_timeout.total_seconds() + CLAIM_MARGIN_SECONDS
        claimed = claim(place.database, place.queue, ids, now=now, seconds=seconds)
        if claimed is None:
            return None
        failed = self._send_rows(place.queue, claimed, config) if claimed.rows else {}
        sent = [row for row in claimed.rows if row.task_id not in failed]
        failures = [(row, failed[row.task_id]) for row in claimed.rows if row.task_id in failed]
        _delete_rows(place.database, sent)
        _note_failures(place.database, failures, claimed)
        # Receivers may use the database, too.
        for row in sent:
            send_task_scheduled(row.task_id, row.function, row.queue)
        self.sent += len(sent)
        return claimed.rows

    def retry_in(self) -> float | None:
        """Return the seconds until a failed queue may be tried again; None if none has failed."""
        times = [each.retry_at for each in self._backoffs.values()]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _send_rows(self, queue: str, claimed: Claim, config: Config) -> Mapping[str, _SendFailure]:
        """Send the rows of a claim. Return the errors of those that were not sent, by task id."""
        started = time.monotonic()
        failed = _try_to_send(queue, claimed, config)
        stopped = next((each for each in failed.values() if each.is_of_queue), None)
        if stopped:
            is_of_all = stopped.scope is Scope.EVERYBODY
            backoff = self._backoff(EVERY_QUEUE if is_of_all else queue)
            backoff.failed(stopped.reason, started=started)
        else:
            for each in self._failing(queue):
                self._backoffs.pop(each).succeeded()
        return failed

    def _failing(self, queue: str) -> set[str]:
        return self._backoffs.keys() & {queue, EVERY_QUEUE}

    def _is_paused(self, queue: str) -> bool:
        return not all(self._backoffs[each].is_over for each in self._failing(queue))

    def _claim_size(self, queue: str) -> int:
        """Return how many messages to claim: after a failure, one batch tries again."""
        return MAX_BATCH_ENTRIES if self._failing(queue) else MAX_CLAIMED

    def _forget_failures(self, *, except_of: set[str]) -> None:
        """Forget the failures of queues for which nothing is left."""
        self._backoffs = {q: each for q, each in self._backoffs.items() if q in except_of}

    def _backoff(self, queue: str) -> Backoff:
        if queue not in self._backoffs:
            name = quoted(queue)
            self._backoffs[queue] = Backoff("send from the outbox", name, times=self._times)
        return self._backoffs[queue]

    def _count_waiting(self) -> None:
        """Count the messages that wait, unless that was done a short time ago."""
        if (began := time.monotonic()) < self._next_count_at:
            return
        found = []
        for database in get_config().outbox_databases:
            try:
                found += waiting_in(database)
            except DatabaseError as exc:
                _log_unreadable(database, exc)
        self.waiting = sum(each.count for each in found)
        self.oldest_seconds = max((each.oldest_seconds for each in found), default=0.0)
        ended = time.monotonic()
        self._next_count_at = ended + max(FIGURES_SECONDS, (ended - began) * _COUNT_SHARE)


@dataclass(frozen=True, slots=True)
class _SendFailure:
    """Why a message was not sent."""

    reason: str
    scope: Scope = Scope.LATER
    """Whom the reason concerns."""

    @property
    def is_refused(self) -> bool:
        """Return True if SQS refuses this message, and may take the others."""
        return self.scope is Scope.MESSAGE

    @property
    def is_of_queue(self) -> bool:
        """Return True if SQS takes no message of this queue, or of any."""
        return not self.is_refused and self.reason != NOT_TRIED


def _try_to_send(queue: str, claimed: Claim, config: Config) -> Mapping[str, _SendFailure]:
    """Send the rows of a claim. Return the errors of those that were not sent, by task id.

    No request begins that could end after the claim, or after one that failed for the whole queue.
    """
    try:
        destination = resolve(queue, config)
    except UnknownQueue as exc:
        return {row.task_id: _SendFailure(str(exc), Scope.QUEUE) for row in claimed.rows}
    latest = claimed.ends_at - config.send_timeout.total_seconds()
    failed: dict[str, _SendFailure] = {}
    waiting_groups: set[str] = set()
    is_over = False
    for wave in _split_by_group(claimed.rows):
        is_over = is_over or time.monotonic() > latest
        ready = [row for row in wave if not is_over and row.fifo_group not in waiting_groups]
        failed |= {row.task_id: _SendFailure(NOT_TRIED) for row in wave if row not in ready}
        unsent = _send_wave(destination, ready, claimed)
        failed |= unsent
        is_over = is_over or any(each.is_of_queue for each in unsent.values())
        waiting_groups |= {row.fifo_group for row in ready if row.task_id in unsent} - {""}
    return failed


def _split_by_group(rows: Sequence[OutboxMessage]) -> Iterator[list[OutboxMessage]]:
    """Yield the rows in parts, each with one message of a FIFO group at most.

    SQS may take one message of a batch and not the one before it, which must not be overtaken.
    """
    groups = defaultdict(list)
    for row in rows:
        if row.fifo_group:
            groups[row.fifo_group].append(row)
    if unordered := [row for row in rows if not row.fifo_group]:
        yield unordered
    for wave in zip_longest(*groups.values()):
        heads = [row for row in wave if row]
        for first in range(0, len(heads), MAX_BATCH_ENTRIES):
            yield heads[first : first + MAX_BATCH_ENTRIES]


def _send_wave(
    destination: Destination, rows: Sequence[OutboxMessage], claimed: Claim
) -> dict[str, _SendFailure]:
    failed: dict[str, _SendFailure] = {}
    prepared: list[Prepared] = []
    for row in rows:
        try:
            prepared.append(to_prepared(row, destination, now=claimed.now))
        except Exception as exc:  # a changed row may raise anything, and must keep no other
            failed[row.task_id] = _SendFailure(str(exc), Scope.MESSAGE)
    if not prepared:
        return failed
    way = way_of(destination.config, send_batches)

    def send(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
        return send_once(destination, prepared, way)

    for _, unsent in send_what_can_be([(destination, prepared)], send):
        for each in unsent:
            failed[each.prepared.message.id] = _SendFailure(each.reason, each.scope)
    return failed


def _note_failures(
    database: str, failures: Iterable[tuple[OutboxMessage, _SendFailure]], claimed: Claim
) -> None:
    """End the claims of rows that were not sent. One that SQS refuses has to wait."""
    untried = defaultdict(list)
    for row, failure in failures:
        if failure.is_refused:
            _note_refusal(database, row, failure.reason, claimed)
        else:
            untried[failure.reason].append(row.id)
    for reason, ids in untried.items():
        claimed.rows_in(database, ids).update(available_at=claimed.current_time(), error=reason)


def _note_refusal(database: str, row: OutboxMessage, reason: str, claimed: Claim) -> None:
    failures = row.failures + 1
    longest = min(2.0 ** min(failures, _MAX_DOUBLINGS), LONGEST_RETRY_SECONDS)
    delay = random.uniform(0.5, 1) * longest
    available_at = claimed.current_time() + timedelta(seconds=delay)
    claimed.rows_in(database, [row.id]).update(
        available_at=available_at, failures=failures, error=reason
    )
    logger.error(
        "refused from the outbox id=%s function=%s queue=%s failures=%d retry_in=%.1f error=%s",
        quoted(row.task_id), quoted(row.function), quoted(row.queue), failures, delay,
        quoted_error(reason),
    )  # fmt: skip


def _delete_rows(database: str, rows: Sequence[OutboxMessage]) -> None:
    """Delete the rows that SQS has taken. Rows that are not deleted are sent again."""
    sent = OutboxMessage.objects.using(database).filter(id__in=[row.id for row in rows])
    for attempt in range(DELETE_ATTEMPTS if rows else 0):
        try:
            sent.delete()
        except OperationalError:  # such as a deadlock, or a SQLite that is locked
            is_last = attempt == DELETE_ATTEMPTS - 1
            if is_last or connections[database].in_atomic_block:
                raise
            time.sleep(random.uniform(0, 0.1 * 2**attempt))
        else:
            return


def _log_unreadable(database: str, exc: DatabaseError) -> None:
    """Log that a database does not answer, once a minute."""
    repeated = THROTTLE.repeated(f"outbox {database}")
    if repeated is not None:
        logger.error(
            "the outbox cannot be read database=%s%s error=%s",
            database, repeated, quoted_error(describe_error(exc)),
        )  # fmt: skip


def close_old_connections() -> None:
    """Close the connections that CONN_MAX_AGE limits, as Django does after a request."""
    for database in get_config().outbox_databases:
        connections[database].close_if_unusable_or_obsolete()
