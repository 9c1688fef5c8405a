"""The number of messages that wait in the outbox, and their waiting time."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Min, Q

from .claims import database_now
from .models import OutboxMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The messages that wait for one queue in one database."""

    database: str
    queue: str
    count: int
    oldest_seconds: float
    """Since the oldest message was stored."""
    refused: int
    """The number of them that SQS has refused at least once."""


def waiting_in(database: str) -> list[Waiting]:
    """Return the waiting messages of one database, by queue. Raise DatabaseError if it fails."""
    now = database_now(database)
    found = (
        OutboxMessage.objects.using(database)
        .order_by("queue")
        .values("queue")
        .annotate(
            count=Count("id"), oldest=Min("created_at"), refused=Count("id", Q(failures__gt=0))
        )
    )
    return [
        Waiting(
            database=database,
            queue=each["queue"],
            count=each["count"],
            oldest_seconds=round(max((now - each["oldest"]).total_seconds(), 0.0), 3),
            refused=each["refused"],
        )
        for each in found
    ]
