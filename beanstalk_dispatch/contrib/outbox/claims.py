"""Claims messages for one sender, so that no other sends them at the same time.

A claim is an UPDATE of ``available_at`` in a transaction of its own, and ends at that time, by the
clock of the database. So no transaction is open while SQS is asked, and a process that is killed
loses its claim.

A FIFO group has one row that can be claimed, its oldest. Who claims it may also send those that
follow, so a group is sent by one sender at a time and in order.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, Final

from django.db import OperationalError, connections, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from .models import OutboxMessage
from .rows import NEAR, in_settings_zone

MAX_CLAIMED: Final = 80
"""The number of messages claimed at a time: eight batches, which a standard queue takes at once."""
MAX_LOOKED_AT: Final = 10
"""The number of times that MAX_CLAIMED groups are read for one claim, if most heads must wait."""

_NOW: Final[Mapping[str, str]] = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1000000",
}
"""Seconds since 1970, in every time zone. SQLite has no clock of its own."""

# An equality with the group would let PostgreSQL read the table by its primary key, which has the
# same order: through all messages of other queues. A range leaves it the index of the model only.
_HEAD: Final = """
SELECT (SELECT id FROM {table} WHERE queue = %s AND fifo_group >= %s AND fifo_group <= %s
        ORDER BY fifo_group, id LIMIT 1)
"""
# A join would let PostgreSQL look for the head of a group among all messages.
_HEADS: Final = """
WITH RECURSIVE waiting(name, place) AS (
    SELECT (SELECT MIN(fifo_group) FROM {table} WHERE queue = %s AND fifo_group > %s), 1
    UNION ALL
    SELECT (SELECT MIN(fifo_group) FROM {table} WHERE queue = %s AND fifo_group > name), place + 1
    FROM waiting WHERE name IS NOT NULL AND place < %s
)
SELECT name,
    (SELECT id FROM {table} WHERE queue = %s AND fifo_group >= name AND fifo_group <= name
     ORDER BY fifo_group, id LIMIT 1),
    (SELECT CASE WHEN available_at <= %s THEN 1 ELSE 0 END FROM {table}
     WHERE queue = %s AND fifo_group >= name AND fifo_group <= name
     ORDER BY fifo_group, id LIMIT 1)
FROM waiting WHERE name IS NOT NULL
"""
"""The next groups of a queue by name, each with its head.

Each step reads one entry of the index, however many messages a group has.
"""
_FOLLOWERS: Final = """
SELECT id FROM (
    SELECT id FROM {table} WHERE queue = %s AND fifo_group >= %s AND fifo_group <= %s AND id > %s
    ORDER BY fifo_group, id LIMIT {count}
) {name}
"""


_BY_INDEX: Final = "; ".join(
    f"SET LOCAL enable_{way} = off"
    for way in ("bitmapscan", "hashjoin", "incremental_sort", "mergejoin", "seqscan", "sort")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The messages that only this process sends until the claim ends."""

    rows: Sequence[OutboxMessage]
    """The rows, in the order in which they are to be sent."""
    now: datetime
    """The time of the claim, by the clock of the database."""
    until: datetime
    """The time at which the claim ends: the ``available_at`` of the rows that hold it."""
    ends_at: float
    """The same in monotonic seconds of this process."""

    def current_time(self) -> datetime:
        """Return the time of the database, by the time that has passed since the claim."""
        return self.until - timedelta(seconds=self.ends_at - time.monotonic())

    def rows_in(self, database: str, ids: Sequence[int]) -> QuerySet[OutboxMessage]:
        """Return those of the rows that nobody has claimed after this claim had ended."""
        return _rows(database).filter(id__in=ids, available_at__lte=self.until)


def database_now(database: str) -> datetime:
    """Return the time that all processes which use the database agree on."""
    connection = connections[database]
    statement = _NOW.get(connection.vendor)
    if statement is None:
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(statement)
        moment = datetime.fromtimestamp(float(cursor.fetchone()[0]), UTC)
    return in_settings_zone(moment)


def queues_in(database: str) -> Iterator[str]:
    """Yield the queues for which messages wait. Each reads one entry of the index."""
    names = _rows(database).order_by("queue").values_list("queue", flat=True)
    with _read_by_index(database):
        queue = names.first()
    while queue is not None:
        yield queue
        with _read_by_index(database):
            queue = names.filter(queue__gt=queue).first()


class Heads:
    """A finder of the messages that a relay may claim, queue by queue.

    It continues after the FIFO group at which it has stopped, so that no group waits for ever
    behind groups that are never empty.
    """

    def __init__(self) -> None:
        self._last_groups: dict[tuple[str, str], str] = {}

    def find(self, database: str, queue: str, now: datetime, count: int) -> list[int]:
        """Return the ids of up to ``count`` messages: of a FIFO group only its oldest."""
        with _read_by_index(database):
            return self._find(database, queue, now, count)

    def _find(self, database: str, queue: str, now: datetime, count: int) -> list[int]:
        free = _rows(database).filter(queue=queue, fifo_group="", available_at__lte=now)
        found = list(free.order_by("available_at", "id").values_list("id", flat=True)[:count])
        after, is_over = self._last_groups.pop((database, queue), ""), False
        rounds = MAX_LOOKED_AT
        while len(found) < count and rounds and not is_over:
            rounds -= 1
            heads = _heads(database, queue, now, after)
            is_over = len(heads) < MAX_CLAIMED and not after
            taken = [(name, head) for name, head, is_free in heads if is_free][: count - len(found)]
            found += [head for _, head in taken]
            after = heads[-1][0] if len(heads) == MAX_CLAIMED else ""
            if len(found) == count:
                after = taken[-1][0]
        if after:
            self._last_groups[database, queue] = after
        return list(dict.fromkeys(found))


def _heads(database: str, queue: str, now: datetime, after: str) -> list[tuple[str, int, int]]:
    """Return the name and the head of the groups after ``after``, and whether the head is free."""
    moment = connections[database].ops.adapt_datetimefield_value(now)
    return _select(database, _HEADS, [queue, after, queue, MAX_CLAIMED, queue, moment, queue])


def heads_of(database: str, queue: str, groups: Iterable[str]) -> list[int]:
    """Return the ids of the oldest messages of these FIFO groups."""
    names = list(groups)
    parameters = [each for name in names for each in (queue, name, name)]
    with _read_by_index(database):
        found = _select(database, " UNION ALL ".join([_HEAD] * len(names)), parameters)
    return [head for (head,) in found if head is not None]


def claim(
    database: str, queue: str, ids: Sequence[int], *, now: datetime, seconds: float
) -> Claim | None:
    """Claim those of a queue's messages that are free, with those that follow in their groups.

    Return None if the database was too busy.
    """
    # No two claims end in the same microsecond, so this time says whose a row is.
    seconds += random.random()
    ends_at, until = time.monotonic() + seconds, now + timedelta(seconds=seconds)
    mine = _rows(database).filter(id__in=ids)
    claimed: list[OutboxMessage] = []
    try:
        with transaction.atomic(using=database), _read_by_index(database):
            updated = mine.filter(available_at__lte=now).update(available_at=until)
        if updated:
            with _read_by_index(database):
                # An id may be another queue's by now, as after a flush. That row waits for its own.
                rows = [row for row in mine.filter(available_at=until) if row.queue == queue]
                claimed = _with_followers(database, rows, now)
    except OperationalError:  # a deadlock with another relay, or MariaDB's error 1020
        return None
    return Claim(rows=claimed, now=now, until=until, ends_at=ends_at)


def claimed_with(row: OutboxMessage, database: str) -> int:
    """Return the id of the row whose claim includes this one: of a FIFO group, its oldest."""
    group = _rows(database).filter(queue=row.queue, fifo_group=row.fifo_group)
    oldest = group.order_by("id").values_list("id", flat=True).first() if row.fifo_group else None
    return oldest or row.id


def keep_unclaimed(row_id: int, database: str) -> bool:
    """Keep a row from being claimed until the transaction ends. Return False if it is claimed."""
    now = database_now(database)
    unclaimed = Q(available_at__lte=now) | Q(due_at__gt=now + NEAR)
    rows = _rows(database).filter(unclaimed, id=row_id)
    return bool(rows.update(available_at=F("available_at")))


def _with_followers(
    database: str, claimed: Iterable[OutboxMessage], now: datetime
) -> list[OutboxMessage]:
    """Return claimed messages, with those that follow in their FIFO groups and may be sent too.

    Nothing follows a message that SQS has refused: it is tried alone.
    """
    found = list(claimed)
    heads = [row for row in found if row.fifo_group and not row.failures]
    count = MAX_CLAIMED // len(heads) - 1 if heads else 0
    if count > 0:
        queries = [_FOLLOWERS.format(table="{table}", count=count, name=f"of_{n}")
                   for n in range(len(heads))]  # fmt: skip
        parameters = [
            each for row in heads for each in (row.queue, row.fifo_group, row.fifo_group, row.id)
        ]
        ids = [each for (each,) in _select(database, " UNION ALL ".join(queries), parameters)]
        in_group = defaultdict(list)
        for row in _rows(database).filter(id__in=ids).order_by("id"):
            in_group[row.fifo_group].append(row)
        for rows in in_group.values():
            found += takewhile(lambda row: row.available_at <= now, rows)
    return sorted(found, key=lambda row: row.id)


def _rows(database: str) -> QuerySet[OutboxMessage]:
    return OutboxMessage.objects.using(database)


@contextmanager
def _read_by_index(database: str) -> Iterator[None]:
    """Have PostgreSQL read the rows in the order of the index, instead of sorting all of them.

    The statistics of an outbox are mostly those of an empty table, until an outage fills it.
    PostgreSQL then expects one row, and reads and sorts 100,000.
    https://www.postgresql.org/docs/current/runtime-config-query.html
    """
    connection = connections[database]
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(using=database, savepoint=False):
        with connection.cursor() as cursor:
            cursor.execute(_BY_INDEX)
        yield


def _select(database: str, statement: str, parameters: Sequence[Any]) -> list[Any]:
    connection = connections[database]
    table = connection.ops.quote_name(OutboxMessage._meta.db_table)  # noqa: SLF001 - documented
    with connection.cursor() as cursor:
        cursor.execute(statement.replace("{table}", table), parameters)
        return list(cursor.fetchall())
