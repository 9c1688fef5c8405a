"""Deletes the rows of results that have expired, in batches that lock a table for a short time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.db import router

from .record import now, to_django

BATCH: Final = 1000


def prune(using: str | None = None) -> Iterator[int]:
    """How many rows each batch has deleted, until none is left that has expired."""
    from .models import StoredResult  # noqa: PLC0415  # models need the app in INSTALLED_APPS

    rows = StoredResult.objects.using(using or router.db_for_write(StoredResult))
    until = to_django(now())
    while ids := list(rows.filter(expires_at__lte=until).values_list("id", flat=True)[:BATCH]):
        yield rows.filter(id__in=ids, expires_at__lte=until).delete()[0]
