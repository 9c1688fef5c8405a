"""Deletes the rows of results that have expired, in batches that lock a table for a short time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from django.db import router
from django.db.models import QuerySet

from .models import StoredResult
from .record import from_django, now, to_django

BATCH_ROWS: Final = 1000
TASK_SECONDS: Final = 50.0
"""Seconds that the periodic task deletes. The next run continues from there."""


def prune(using: str | None = None) -> Iterator[int]:
    """Delete the rows that have expired, in batches. Yields how many rows each has deleted."""
    rows = _query_rows(using)
    until = to_django(now())
    while ids := list(rows.filter(expires_at__lte=until).values_list("id", flat=True)[:BATCH_ROWS]):
        yield rows.filter(id__in=ids, expires_at__lte=until).delete()[0]


def prune_results() -> int:
    """Delete for at most 50 seconds as a periodic task, and return the number of deleted rows."""
    deleted, ends = 0, time.monotonic() + TASK_SECONDS
    for count in prune():
        deleted += count
        if time.monotonic() >= ends:
            break
    return deleted


def oldest_expired(using: str) -> timedelta | None:
    """Return the time since which the oldest row has expired; None if no row has."""
    rows = _query_rows(using).filter(expires_at__lte=to_django(now()))
    oldest = rows.order_by("expires_at").values_list("expires_at", flat=True).first()
    return None if oldest is None else now() - from_django(oldest)


def _query_rows(using: str | None) -> QuerySet[StoredResult]:
    return StoredResult.objects.using(using or router.db_for_write(StoredResult))
