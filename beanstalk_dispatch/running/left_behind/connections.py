"""Database connections around a task: none stays in a transaction or half-broken after it.

An interrupt strikes in the middle of a driver's work if the driver is written in Python, and
``Atomic.__exit__`` then fails too. Django never reopens a connection that was closed inside an
atomic block of its thread, so such a connection is dropped whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

from django.core.signals import request_finished
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.transaction import TransactionManagementError
from django.dispatch import receiver

from beanstalk_dispatch.logging.log_lines import quoted_error

logger = logging.getLogger("beanstalk_dispatch.task.connections")

# PQTRANS_ACTIVE, _INTRANS and _INERROR, as psycopg and psycopg2 report them:
# https://www.postgresql.org/docs/current/libpq-status.html#LIBPQ-PQTRANSACTIONSTATUS
_IN_TRANSACTION: Final = frozenset({1, 2, 3})
_SERVER_STATUS_IN_TRANS: Final = 1  # of the MySQL protocol, as PyMySQL reports it


class _OpenedConnections(threading.local):
    """The connections that were opened in this thread, by alias.

    Asking ``connections`` for them takes two microseconds, which every task would pay twice.
    """

    def __init__(self) -> None:
        self.by_alias: dict[str, BaseDatabaseWrapper] = {}


_opened = _OpenedConnections()


@receiver(connection_created)
def _note_opened(connection: BaseDatabaseWrapper, **_: object) -> None:
    _opened.by_alias[connection.alias] = connection


def are_open() -> bool:
    """Return True if this thread has opened a connection to a database."""
    return bool(_opened.by_alias)


def end_request(sender: object) -> None:
    """Send Django's signal for the end of a request, at which it closes unusable connections.

    Drop those that it could not close, because a task has replaced their ``close``, for example.
    """
    request_finished.send_robust(sender=sender)
    for connection in [*_opened.by_alias.values()]:
        is_free = connection.connection is not None and not connection.in_atomic_block
        if is_free and connection.errors_occurred:
            drop(connection)


def aliases_in_transaction() -> Collection[str]:
    """Return the aliases of the databases on which this thread is in a transaction."""
    return [
        alias for alias, connection in _opened.by_alias.items() if _is_in_transaction(connection)
    ]


def drop_left_open(before: Collection[str]) -> TransactionManagementError | None:
    """Drop each connection that is in a transaction and was not ``before``.

    Return an error that names them, or None. Such a transaction was never committed, and everything
    that the next tasks of this thread write would be lost with it.
    """
    left_open = [
        connection
        for alias, connection in _opened.by_alias.items()
        if alias not in before and _is_in_transaction(connection)
    ]
    if not left_open:
        return None
    for connection in left_open:
        drop(connection)
    names = ", ".join(repr(connection.alias) for connection in left_open)
    return TransactionManagementError(
        f"the task left a transaction open on the database {names}; what it did there was rolled "
        "back. Use 'with transaction.atomic():'"
    )


def drop_interrupted(before: Collection[str]) -> None:
    """Drop every connection whose work an interrupt may have cut short.

    A connection that was in a transaction ``before`` is the caller's, such as a test's.
    """
    for connection in connections.all(initialized_only=True):
        if connection.alias not in before:
            drop(connection)


def drop(connection: BaseDatabaseWrapper) -> None:
    """Close a connection in any state, and have Django make a new one when needed."""
    connection.in_atomic_block = False  # or close() would keep it for the end of the block
    connection.needs_rollback = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    connection.run_on_commit = []
    try:
        connection.close()
    except Exception as exc:
        logger.warning("close failed database=%s error=%s", connection.alias, quoted_error(exc))
    if (raw := connection.connection) is None:
        _forget_connection(connection)
        return
    # close() keeps the in-memory database of a test, or has failed.
    try:
        raw.rollback()
        connection.set_autocommit(True)
    except Exception as exc:
        logger.warning("rollback failed database=%s error=%s", connection.alias, quoted_error(exc))
        with suppress(Exception):  # or its memory and its socket stay until the garbage collection
            raw.close()
        _forget_connection(connection)


def _forget_connection(connection: BaseDatabaseWrapper) -> None:
    """Forget a connection. Django makes a new one when this thread next asks for the database."""
    _opened.by_alias.pop(connection.alias, None)
    del connections[connection.alias]


def _is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    if connection.in_atomic_block:
        return True
    raw = connection.connection
    if raw is None or not connection.settings_dict["AUTOCOMMIT"]:
        return False  # not connected, or the project manages transactions by itself
    return not connection.autocommit or _driver_is_in_transaction(raw)


def _driver_is_in_transaction(raw: Any) -> bool:
    """Return True if the driver itself is in a transaction.

    Django does not see a BEGIN that a task executes.
    """
    info = getattr(raw, "info", None)
    if (status := getattr(info, "transaction_status", None)) is not None:
        return status in _IN_TRANSACTION  # psycopg and psycopg2
    if isinstance(status := getattr(raw, "server_status", None), int):
        return bool(status & _SERVER_STATUS_IN_TRANS)  # PyMySQL
    return bool(getattr(raw, "in_transaction", False))  # sqlite3
