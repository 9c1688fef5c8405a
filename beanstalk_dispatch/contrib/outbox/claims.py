"""Claims messages for one relay, so that no other relay sends them at the same time.

On PostgreSQL and Oracle a claim is a row lock: it ends with its transaction, also if the process is
killed. Elsewhere it moves ``available_at`` into the future; if the process is
killed, the claim ends at that time.

A FIFO group has one row that can be claimed, its oldest. Who claims it may also send those that
follow, so a group is sent by one relay at a time and in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import takewhile
from typing import Final

from django.db import OperationalError, connections, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from .models import OutboxMessage

MAX_CLAIMED: Final = 80
"""How many messages are claimed at a time: eight batches, which a standard queue takes at once."""


@contextmanager
def claimed(
    database: str, *, without: Collection[str], seconds: float
) -> Iterator[list[OutboxMessage]]:
    """Messages in the order in which they are to be sent; those of the queues ``without`` wait.

    The claim ends with the block. Where it is not a row lock, it ends after ``seconds``.
    """
    heads = _sendable_rows(database, without)
    if _can_lock(database):
        with transaction.atomic(using=database):
            locked = list(heads.select_for_update(skip_locked=True)[:MAX_CLAIMED])
            yield _with_followers(database, locked)
    else:
        leased = _claim_rows(database, list(heads[:MAX_CLAIMED]), seconds)
        yield _with_followers(database, leased)


def _can_lock(database: str) -> bool:
    connection = connections[database]
    # MariaDB may end a transaction when another one has changed what it reads (error 1020, by
    # default since 11.6). That would come too late here: SQS has the messages already.
    # https://mariadb.com/docs/server/server-usage/storage-engines/innodb/innodb-system-variables#innodb_snapshot_isolation
    is_exact = connection.vendor != "mysql"
    return is_exact and connection.features.has_select_for_update_skip_locked


def _sendable_rows(database: str, without: Collection[str]) -> QuerySet[OutboxMessage]:
    """The messages that may be sent now, of a FIFO group only the oldest that waits."""
    rows = OutboxMessage.objects.using(database)
    older = rows.filter(
        fifo_group=OuterRef("fifo_group"), queue=OuterRef("queue"), id__lt=OuterRef("id")
    )
    return (
        rows.filter(Q(fifo_group="") | ~Exists(older), available_at__lte=timezone.now())
        .exclude(queue__in=without)
        .order_by("id")
    )


def _claim_rows(
    database: str, rows: Sequence[OutboxMessage], seconds: float
) -> Sequence[OutboxMessage]:
    """Claim these rows. Returns none of them if another relay has claimed one meanwhile."""
    now = timezone.now()
    unclaimed = OutboxMessage.objects.using(database).filter(available_at__lte=now)
    try:
        with transaction.atomic(using=database):
            updated = unclaimed.filter(id__in=[row.id for row in rows]).update(
                available_at=now + timedelta(seconds=seconds)
            )
            if updated != len(rows):
                transaction.set_rollback(True, using=database)
                return []
    except OperationalError:  # a deadlock with the other relay, or MariaDB's error 1020
        return []
    return rows


def _with_followers(database: str, heads: Sequence[OutboxMessage]) -> list[OutboxMessage]:
    """These messages, with those that follow in their FIFO groups and may be sent too.

    Nothing follows a message that SQS has refused: it is tried alone.
    """
    found = list(heads)
    groups = {(row.queue, row.fifo_group) for row in heads if row.fifo_group and not row.failures}
    if groups:
        rows = OutboxMessage.objects.using(database).filter(
            queue__in={queue for queue, _ in groups}, fifo_group__in={group for _, group in groups}
        )
        now = timezone.now()
        in_group = defaultdict(list)
        for row in rows.order_by("id")[:MAX_CLAIMED]:
            in_group[row.queue, row.fifo_group].append(row)
        for key in groups:
            found += takewhile(lambda row: row.available_at <= now, in_group[key][1:])
    return sorted(found, key=lambda row: row.id)
