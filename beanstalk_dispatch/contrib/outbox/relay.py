"""Relay: sends what waits in the outbox, and deletes it when SQS has taken it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Final

from django.db import DatabaseError, OperationalError, connections
from django.utils import timezone

from beanstalk_dispatch.client import send_task_scheduled
from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import UnknownQueue
from beanstalk_dispatch.log_lines import quoted, quoted_error
from beanstalk_dispatch.refusals import REFUSALS
from beanstalk_dispatch.scheduling.sending import Prepared, send_published, try_to_send
from beanstalk_dispatch.sqs.backoff import Backoff, BackoffTimes
from beanstalk_dispatch.sqs.batch_sender import NOT_TRIED
from beanstalk_dispatch.sqs.errors import Scope
from beanstalk_dispatch.sqs.opening import resolve_address
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .claims import claimed
from .errors import describe_error
from .models import OutboxMessage
from .rows import to_prepared
from .status import waiting_in

logger = logging.getLogger("beanstalk_dispatch.scheduling")

POLL_SECONDS: Final = 1.0
"""Between two looks into an outbox that is empty."""
FIGURES_SECONDS: Final = 5.0
"""Between two counts of what waits."""
LONGEST_PAUSE_SECONDS: Final = 10.0
"""Between two tries while SQS takes no message of a queue."""
LONGEST_RETRY_SECONDS: Final = 300.0
"""Between two tries to send a message that SQS refuses."""
PERIODIC_SECONDS: Final = 50.0
"""How long ``send_waiting`` sends, so that it ends before a time limit of a minute."""

DELETE_ATTEMPTS: Final = 4
"""How often it is tried to delete what SQS has taken."""

EVERY_QUEUE: Final = "every queue"
"""Stands for a queue in the pauses and log lines after an error that concerns everybody."""

_MAX_DOUBLINGS: Final = 10


def send_waiting() -> None:
    """Send what waits, and return when nothing more can be sent or after PERIODIC_SECONDS.

    This is a task: list it in BEANSTALK_DISPATCH_TABLE and BEANSTALK_DISPATCH_PERIODIC_TASKS.
    """
    deadline = time.monotonic() + PERIODIC_SECONDS
    Relay().send_available(lambda: time.monotonic() >= deadline)


class Relay:
    """Sends what waits in the databases of BEANSTALK_DISPATCH_OUTBOX_DATABASES."""

    def __init__(self, times: BackoffTimes | None = None) -> None:
        self.sent = 0
        """How many messages it has sent."""
        self.waiting = 0
        """How many waited when it last looked."""
        self.oldest_seconds = 0.0
        """For how long the oldest of them had waited."""
        self._times = times or BackoffTimes(longest_retry=LONGEST_PAUSE_SECONDS)
        self._backoffs: dict[str, Backoff] = {}
        self._paused: set[str] = set()
        """The queues that the last look into a database has passed over."""
        self._counted_at = float("-inf")

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Send what waits, again and again until ``is_stopping``."""
        pause = threading.Event()
        logger.info("relay start databases=%r", " ".join(get_config().outbox_databases))
        while not is_stopping():
            self.send_available(is_stopping)
            self._count_waiting()
            close_old_connections()
            pause.wait(POLL_SECONDS)
        logger.info("relay stopped sent=%d waiting=%d", self.sent, self.waiting)

    def send_available(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Send until nothing more can be sent now, or until ``is_stopping``. Logs what fails."""
        config = get_config()
        skipped: set[str] = set()
        for database in config.outbox_databases:
            try:
                while not is_stopping() and self._send_some(database, config):
                    pass
            except DatabaseError as exc:
                _log_unreadable(database, exc)
            skipped |= self._paused
        # Nothing is left for a queue that was not skipped.
        self._backoffs = {q: each for q, each in self._backoffs.items() if q in skipped}

    def retry_in(self) -> float | None:
        """Seconds until a queue that has failed may be tried again; None if none has failed."""
        times = [each.retry_at for each in self._backoffs.values()]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _send_some(self, database: str, config: Config) -> bool:
        """Claim messages and send them. False if there was none."""
        self._paused = {queue for queue, each in self._backoffs.items() if not each.is_over}
        if EVERY_QUEUE in self._paused:
            return False
        lease_seconds = 3 * config.send_timeout.total_seconds() + 5
        sent: list[OutboxMessage] = []
        with claimed(database, without=self._paused, seconds=lease_seconds) as rows:
            for queue, of_queue in _by_queue(rows).items():
                failed = self._send_rows(queue, of_queue, config)
                sent += [row for row in of_queue if row.task_id not in failed]
                _note_failures(database, of_queue, failed)
            _delete_rows(database, sent)
        # Receivers may use the database, and an error there must not end the transaction above.
        for row in sent:
            send_task_scheduled(row.task_id, row.function, row.queue)
        self.sent += len(sent)
        return bool(rows)

    def _send_rows(
        self, queue: str, rows: Sequence[OutboxMessage], config: Config
    ) -> Mapping[str, _SendFailure]:
        """Send rows of one queue. Returns why some were not sent, by task id."""
        started = time.monotonic()
        tried = len(rows)
        if failing := self._backoffs.keys() & {queue, EVERY_QUEUE}:
            tried = MAX_BATCH_ENTRIES if all(self._backoffs[q].is_over for q in failing) else 0
        failed = {row.task_id: _SendFailure(NOT_TRIED) for row in rows[tried:]}
        failed |= _try_to_send(queue, rows[:tried], config)
        stopped = next((each for each in failed.values() if each.is_of_queue), None)
        if stopped:
            is_of_all = stopped.scope is Scope.EVERYBODY
            self._backoff(EVERY_QUEUE if is_of_all else queue).failed(
                stopped.reason, started=started
            )
        elif tried:
            for each in failing:
                self._backoffs.pop(each).succeeded()
        return failed

    def _backoff(self, queue: str) -> Backoff:
        if queue not in self._backoffs:
            name = quoted(queue)
            self._backoffs[queue] = Backoff("send from the outbox", name, times=self._times)
        return self._backoffs[queue]

    def _count_waiting(self) -> None:
        """Look how many messages wait, unless that was done a short time ago."""
        if time.monotonic() - self._counted_at < FIGURES_SECONDS:
            return
        self._counted_at = time.monotonic()
        found = []
        for database in get_config().outbox_databases:
            try:
                found += waiting_in(database)
            except DatabaseError as exc:
                _log_unreadable(database, exc)
        self.waiting = sum(each.count for each in found)
        self.oldest_seconds = max((each.oldest_seconds for each in found), default=0.0)


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


def _try_to_send(
    queue: str, rows: Sequence[OutboxMessage], config: Config
) -> Mapping[str, _SendFailure]:
    """Send rows of one queue. Returns why some were not sent, by task id."""
    try:
        resolve_address(queue, config)
    except UnknownQueue as exc:
        return {row.task_id: _SendFailure(str(exc), Scope.QUEUE) for row in rows}
    failed: dict[str, _SendFailure] = {}
    waiting_groups: set[str] = set()
    for wave in _split_by_group(rows):
        ready = [row for row in wave if row.fifo_group not in waiting_groups]
        failed |= {row.task_id: _SendFailure(NOT_TRIED) for row in wave if row not in ready}
        failed |= _send_wave(queue, ready, config)
        waiting_groups |= {row.fifo_group for row in ready if row.task_id in failed} - {""}
    return failed


def _split_by_group(rows: Sequence[OutboxMessage]) -> Iterable[list[OutboxMessage]]:
    """The rows in parts, each with one message of a FIFO group at most.

    SQS may take one message of a batch and not the one before it, which must not be overtaken.
    """
    groups = defaultdict(list)
    for row in rows:
        if row.fifo_group:
            groups[row.fifo_group].append(row)
    unordered = [row for row in rows if not row.fifo_group]
    waves = (list(filter(None, wave)) for wave in zip_longest(*groups.values()))
    return chain([unordered] if unordered else [], waves)


def _send_wave(
    queue: str, rows: Sequence[OutboxMessage], config: Config
) -> dict[str, _SendFailure]:
    failed: dict[str, _SendFailure] = {}
    prepared: list[Prepared] = []
    for row in rows:
        try:
            prepared.append(to_prepared(row, config))
        except Exception as exc:  # a changed row may raise anything, and must keep no other
            failed[row.task_id] = _SendFailure(str(exc), Scope.MESSAGE)
    if prepared:
        for each in try_to_send(queue, prepared, config, send_published, is_kept=True):
            failed[each.prepared.message.id] = _SendFailure(each.reason, each.scope)
    return failed


def _by_queue(rows: Iterable[OutboxMessage]) -> Mapping[str, list[OutboxMessage]]:
    found = defaultdict(list)
    for row in rows:
        found[row.queue].append(row)
    return found


def _note_failures(
    database: str, rows: Sequence[OutboxMessage], failed: Mapping[str, _SendFailure]
) -> None:
    """End the claims of rows that were not sent. One that SQS refuses has to wait."""
    untried = defaultdict(list)
    for row in rows:
        failure = failed.get(row.task_id)
        if failure and failure.is_refused:
            _note_refusal(database, row, failure.reason)
        elif failure:
            untried[failure.reason].append(row.id)
    for reason, ids in untried.items():
        unsent = OutboxMessage.objects.using(database).filter(id__in=ids)
        unsent.update(available_at=timezone.now(), error=reason)


def _note_refusal(database: str, row: OutboxMessage, reason: str) -> None:
    failures = row.failures + 1
    longest = min(2.0 ** min(failures, _MAX_DOUBLINGS), LONGEST_RETRY_SECONDS)
    delay = random.uniform(0.5, 1) * longest
    OutboxMessage.objects.using(database).filter(id=row.id).update(
        available_at=timezone.now() + timedelta(seconds=delay), failures=failures, error=reason
    )
    logger.error(
        "refused from the outbox id=%s function=%s queue=%s failures=%d retry_in=%.1f error=%s",
        quoted(row.task_id), quoted(row.function), quoted(row.queue), failures, delay,
        quoted_error(reason),
    )  # fmt: skip


def _delete_rows(database: str, rows: Sequence[OutboxMessage]) -> None:
    """Delete what SQS has taken. What is not deleted is sent again."""
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
    repeated = REFUSALS.repeated(f"outbox {database}")
    if repeated is not None:
        logger.error(
            "the outbox cannot be read database=%s%s error=%s",
            database, repeated, quoted_error(describe_error(exc)),
        )  # fmt: skip


def close_old_connections() -> None:
    """Close what CONN_MAX_AGE says, as Django does after a request."""
    for database in get_config().outbox_databases:
        connections[database].close_if_unusable_or_obsolete()
