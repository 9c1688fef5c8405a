"""Writes messages into the outbox: in the caller's transaction, or after a failure to send.

This module is the outbox that ``scheduling.outbox`` knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import MalformedMessage, SendError, UnknownQueue
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.ending import end_unsent
from beanstalk_dispatch.scheduling.destination import Destination, resolve
from beanstalk_dispatch.scheduling.prepare import Prepared
from beanstalk_dispatch.scheduling.send import Unsent, publishing

from .claims import claimed_with, keep_unclaimed
from .committed import StoredRow
from .errors import describe_error
from .models import OutboxMessage
from .relay import Relay
from .rows import to_row
from .sender import SENDER

logger = logging.getLogger("beanstalk_dispatch.scheduling")


def store(destination: Destination, prepared: Sequence[Prepared], *, using: str) -> None:
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
    if near := _near(rows):
        transaction.on_commit(_waking(near, using), using=using, robust=True)


def keep(destination: Destination, unsent: Sequence[Unsent], *, using: str) -> list[Unsent]:
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
    _waking(_near(rows), using)()
    return []


def cancel(task_id: str) -> bool:
    """See ``scheduling.outbox.Outbox``."""
    return discard(task_id, if_unsent=True)


relay: Final = Relay
"""See ``scheduling.outbox.Outbox``."""


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


def _near(rows: Sequence[OutboxMessage]) -> Sequence[OutboxMessage]:
    """Return the rows that can be sent now. A relay sends the others when they are near."""
    now = timezone.now()
    return [row for row in rows if row.available_at <= now]


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


def discard(task_id: str, *, if_unsent: bool = False) -> bool:
    """Delete the message of a task, and have its observers see the end. Return True if it is done.

    With ``if_unsent``, a message that a relay may be sending now stays.
    """
    config = get_config()
    for using in config.outbox_databases:
        row = OutboxMessage.objects.using(using).filter(task_id=task_id).first()
        if row is None:
            continue
        # SQLite lets no transaction write that has read what another one has changed meanwhile.
        claimed_row = claimed_with(row, using)
        with transaction.atomic(using=using):
            is_held = keep_unclaimed(claimed_row, using) if if_unsent else True
            if is_held and row.delete()[0]:
                transaction.on_commit(partial(_end, row, config), using=using, robust=True)
                return True
    return False


def _end(row: OutboxMessage, config: Config) -> None:
    """End the task of a deleted message as a worker does that receives a cancelled one."""
    with suppress(MalformedMessage, UnknownQueue):  # its task is unknown
        queue = resolve(row.queue, config).address.name
        end_unsent(Message.decode(row.body, queue=queue), queue, config)
