"""The stores of records: a cache that all processes share, or the database.

Both have the same methods, which raise the errors of the cache or of the database.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.apps import apps
from django.db import InterfaceError, OperationalError, router, transaction
from django.db.models import QuerySet

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import RESULTS
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.messages.shared_cache import CacheEntry, cache_key, cache_of, errors_logged
from beanstalk_dispatch.process import state

from .record import Progress, Status, TaskRecord, from_django, now, to_django

if TYPE_CHECKING:
    from .models import StoredResult

logger = logging.getLogger("beanstalk_dispatch.task")

T = TypeVar("T")
DATABASE: Final = "db"
"""The value of BEANSTALK_DISPATCH_RESULTS that is not a cache."""
_SLOW_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 10.0
APP: Final = "beanstalk_dispatch.contrib.results"


class _StoreGuard:
    """A guard around calls of the store: an error of the store is logged, and not raised.

    After a failure that has taken more than a second, the store is left alone for ten seconds, so
    that a store that hangs does not take its timeout from every task.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Call the store again at once."""
        self._paused_until = 0.0

    def call(self, action: Callable[[], T], task_id: str, *, what: str = "written") -> T | None:
        """Return the result of ``action``; None if it has failed, or if the store is left alone."""
        started = time.monotonic()
        if started < self._paused_until:
            return None
        with errors_logged(logger, f"result not {what} id=%s", task_id, level=logging.ERROR):
            return action()
        ended = time.monotonic()
        if ended - started > _SLOW_SECONDS:
            self._paused_until = ended + _PAUSE_SECONDS
        return None


GUARD: Final = _StoreGuard()
state.declare(GUARD.forget)


@functools.lru_cache(maxsize=1)
def store_of(config: Config) -> CacheStore | DatabaseStore | None:
    """Return the configured store; None if results are not kept.

    Raise ConfigurationError if it is wrong.
    """
    if config.results is None:
        return None
    if config.results == DATABASE:
        return DatabaseStore(config.result_ttl)
    return CacheStore(config.results, config.result_ttl)


def progress_in_words(config: Config, task_ids: Sequence[str]) -> Mapping[str, str]:
    """Return how far tasks are in words, by their ids. Raise any error of the store."""
    store = store_of(config)
    if store is None or not task_ids:
        return {}
    found = {name: json.loads(each) for name, each in store.load_progress(task_ids).items()}
    return {name: str(Progress(*each)) for name, each in found.items() if each}


class CacheStore:
    """A store that keeps each record under a key of its own, which expires."""

    def __init__(self, alias: str, time_to_live: timedelta) -> None:
        self._alias = alias
        self._seconds = time_to_live.total_seconds()

    def add(self, records: Sequence[TaskRecord]) -> None:
        """Keep records of tasks that are about to be sent."""
        cache = self._open_cache()
        if len(records) == 1:
            cache.set(*self.entry(records[0]))
        else:
            entries = map(self.entry, records)
            cache.set_many({each.key: each.value for each in entries}, self._seconds)

    def entry(self, record: TaskRecord) -> CacheEntry:
        """Return the entry that keeps a record."""
        return CacheEntry(result_key(record.id), record.to_fields(), self._seconds)

    def save(self, record: TaskRecord) -> None:
        """Keep a record in place of an older one."""
        self._open_cache().set(*self.entry(record))

    def save_progress(self, record: TaskRecord) -> bool:
        """Keep the progress of a task, if its record says that it runs."""
        kept = self.load(record.id)
        if kept is not None and kept.status is Status.RUNNING:
            self.save(record)
        return True

    def load(self, task_id: str) -> TaskRecord | None:
        """Return the record of a task, until it expires."""
        fields = self._open_cache().get(result_key(task_id))
        return None if fields is None else TaskRecord.from_fields(fields)

    def load_progress(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the progress of tasks as JSON, by their ids, with one request."""
        found = self._open_cache().get_many([result_key(each) for each in task_ids])
        return {each["id"]: each["progress"] for each in found.values()}

    def _open_cache(self) -> Any:
        """Return this thread's connection to the cache.

        Raise ConfigurationError if there is no such cache.
        """
        return cache_of(self._alias, RESULTS)


def result_key(task_id: str) -> str:
    """Return the key of the record of a task."""
    return cache_key("result", task_id)


class DatabaseStore:
    """A store that keeps each record in a row, which ``beanstalk_results prune`` deletes."""

    def __init__(self, time_to_live: timedelta) -> None:
        self._time_to_live = time_to_live
        if not apps.is_installed(APP):
            variable = RESULTS.variable
            raise ConfigurationError(f"{variable}=db needs {APP!r} in INSTALLED_APPS")

    def add(self, records: Sequence[TaskRecord]) -> None:
        """Keep records of tasks that are about to be sent.

        Within a transaction the rows are written after its commit. A worker that is faster writes
        its row first, which stays: a row that nobody else can see yet would make it wait.
        """
        rows = [self._to_row(each) for each in records]
        using = router.db_for_write(type(rows[0]))

        def insert() -> None:
            self._query_rows(using).bulk_create(rows, ignore_conflicts=True)

        # Outside of a transaction it is called at once, and may raise.
        in_transaction = transaction.get_connection(using).in_atomic_block
        transaction.on_commit(insert, using=using, robust=in_transaction)

    def save(self, record: TaskRecord) -> None:
        """Keep a record in place of an older one, in one query."""
        self._query_database(functools.partial(self._insert_or_update, record))

    def save_progress(self, record: TaskRecord) -> bool:
        """Keep the progress of a task, if its record says that it runs.

        Not in a transaction, before whose end nobody would see it, and which would lock the row.
        """
        text = record.to_fields()["progress"]

        def update(using: str) -> None:
            if not transaction.get_connection(using).in_atomic_block:
                rows = self._query_rows(using).filter(id=record.id, status=Status.RUNNING)
                rows.update(progress=text)

        self._query_database(update)
        return True

    def load(self, task_id: str) -> TaskRecord | None:
        """Return the record of a task, until it expires. A replica may not have it yet."""
        fields = self._query_database(functools.partial(self._select, task_id))
        return None if fields is None else TaskRecord.from_fields(_with_times(fields, from_django))

    def load_progress(self, task_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the progress of tasks as JSON, by their ids, with one request."""
        rows = self._query_rows(router.db_for_read(_import_model())).filter(id__in=task_ids)
        return dict(rows.values_list("id", "progress"))

    def _query_database(self, query: Callable[[str], T]) -> T:
        """Return the result of ``query`` for the alias of the database that is written to.

        A connection that was lost while the task ran is made again, once.
        """
        using = router.db_for_write(_import_model())
        connection = transaction.get_connection(using)
        before = connection.connection
        # In the transaction of a caller whose task runs in its own process, an error must not
        # spoil the transaction.
        safely = transaction.atomic(using=using) if connection.in_atomic_block else nullcontext()
        try:
            with safely:
                return query(using)
        except (OperationalError, InterfaceError):
            if before is None or connection.in_atomic_block:
                raise
            # Django has connected again already if it could not roll back. A connection that works
            # is the task's: it may have temporary tables, locks and work that is not committed.
            if connection.connection is before and connection.is_usable():
                raise
            connection.close()
            return query(using)

    def _insert_or_update(self, record: TaskRecord, using: str) -> None:
        row = self._to_row(record)
        names = [*record.to_fields().keys() - {"id"}, "expires_at"]
        connection = transaction.get_connection(using)
        has_target = connection.features.supports_update_conflicts_with_target
        self._query_rows(using).bulk_create(
            [row],
            update_conflicts=True,
            update_fields=names,
            unique_fields=["id"] if has_target else None,
        )

    def _select(self, task_id: str, using: str) -> Mapping[str, Any] | None:
        rows = self._query_rows(using).filter(id=task_id, expires_at__gt=to_django(now()))
        return rows.values().first()

    def _to_row(self, record: TaskRecord) -> StoredResult:
        fields = record.to_fields() | {"expires_at": now() + self._time_to_live}
        return _import_model()(**_with_times(fields, to_django))

    def _query_rows(self, using: str) -> QuerySet[StoredResult]:
        return _import_model().objects.using(using)


def _with_times(
    fields: Mapping[str, Any], convert: Callable[[datetime], datetime | None]
) -> dict[str, Any]:
    """Return the fields with each time converted."""
    return {
        name: convert(value) if isinstance(value, datetime) else value
        for name, value in fields.items()
    }


def _import_model() -> type[StoredResult]:
    from .models import StoredResult  # noqa: PLC0415  # models need the app in INSTALLED_APPS

    return StoredResult
