"""How many messages wait in the outbox, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, Min, Q

from .claims import database_now
from .models import OutboxMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for one queue in one database."""

    database: str
    queue: str
    count: int
    oldest_seconds: float
    """Since the oldest message was stored."""
    refused: int
    """How many of them SQS has refused at least once."""


def waiting_in(database: str) -> list[Waiting]:
    """What waits in one database, by queue. Raises DatabaseError."""
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
