"""Writes messages into the outbox: in the caller's transaction, or after a failure to send."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from django.db import DatabaseError, connections, transaction

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.scheduling.destination import Destination
from beanstalk_dispatch.scheduling.prepare import Prepared
from beanstalk_dispatch.scheduling.send import Unsent, publishing

from .committed import StoredRow
from .errors import describe_error
from .models import OutboxMessage
from .relay import Relay
from .rows import to_row
from .sender import SENDER

logger = logging.getLogger("beanstalk_dispatch.scheduling")


class DatabaseOutbox:
    """The outbox that ``scheduling.outbox`` knows."""

    def store(self, destination: Destination, prepared: Sequence[Prepared], *, using: str) -> None:
        """See ``scheduling.outbox.Outbox``."""
        with publishing(destination, prepared):
            rows = [to_row(destination, each) for each in prepared]
            try:
                _insert(rows, using=using)
            except DatabaseError as exc:
                raise SendError(
                    f"the outbox in the database {using!r} does not take the message: "
                    f"{describe_error(exc)}"
                ) from exc
        transaction.on_commit(_waking(rows, using), using=using, robust=True)

    def keep(
        self, destination: Destination, unsent: Sequence[Unsent], *, using: str
    ) -> list[Unsent]:
        """See ``scheduling.outbox.Outbox``."""
        rows = [to_row(destination, each.prepared) for each in unsent]
        for row, each in zip(rows, unsent, strict=True):
            row.error = each.reason
        try:
            _insert(rows, using=using)
        except DatabaseError as exc:
            reason = f"the outbox does not take it either: {describe_error(exc)}"
            return [Unsent(each.prepared, f"{each.reason}; {reason}") for each in unsent]
        _log_kept(rows)
        _waking(rows, using)()
        return []

    def relay(self) -> Relay:
        """See ``scheduling.outbox.Outbox``."""
        return Relay()


def _insert(rows: Sequence[OutboxMessage], *, using: str) -> None:
    if len(rows) != 1:
        OutboxMessage.objects.using(using).bulk_create(rows)
        return
    # A view may schedule fifty calls one by one. For each of them bulk_create would compile the
    # same statement, which takes three quarters of its time.
    connection = connections[using]
    quote: Any = connection.ops.quote_name
    meta: Any = OutboxMessage._meta  # noqa: SLF001 - Django documents it
    fields = [each for each in meta.concrete_fields if not each.primary_key]
    columns = ", ".join(quote(each.column) for each in fields)
    marks = ", ".join(["%s"] * len(fields))
    statement = f"INSERT INTO {quote(meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608
    returns = connection.features.can_return_columns_from_insert
    if returns:
        statement += f" RETURNING {quote(meta.pk.column)}"
    values = [each.get_db_prep_save(getattr(rows[0], each.attname), connection) for each in fields]
    with transaction.atomic(using=using, savepoint=False), connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows[0].pk = cursor.fetchone()[0] if returns else cursor.lastrowid


def _waking(rows: Sequence[OutboxMessage], using: str) -> Callable[[], None]:
    """Return a function that has the sender send rows. MySQL does not tell ids of a bulk insert."""
    known = [StoredRow(using, row.queue, row.fifo_group, row.pk) for row in rows if row.pk]
    return partial(SENDER.wake, known, is_complete=len(known) == len(rows))


def _log_kept(rows: Iterable[OutboxMessage]) -> None:
    for row in rows:
        logger.warning(
            "kept in the outbox id=%s function=%s queue=%s error=%s",
            quoted(row.task_id), quoted(row.function), quoted(row.queue), quoted_error(row.error),
        )  # fmt: skip
