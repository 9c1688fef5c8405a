"""The number of messages that wait in the outbox, their waiting time, and those for later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q
from django.db.models.functions import Coalesce

from .claims import database_now
from .models import OutboxMessage
from .rows import NEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The messages that wait for one queue in one database."""

    database: str
    queue: str
    count: int
    """The number of messages that SQS should have by now."""
    oldest_seconds: float
    """Since the oldest message was stored, or since it is due if it has a delay."""
    refused: int
    """The number of them that SQS has refused at least once."""
    delayed: int
    """The number of messages that are due much later, and are not counted in ``count``."""
    next_due_at: str | None
    """The time at which the first of these is due, in ISO 8601; None if there is none."""


def delayed(now: datetime) -> Q:
    """Return the condition for a message that stays in the outbox, because it is due much later."""
    return Q(due_at__gt=now + NEAR - timedelta(minutes=1))  # it is sent in a full minute


def waiting_in(database: str) -> list[Waiting]:
    """Return the waiting messages of one database, by queue. Raise DatabaseError if it fails."""
    now = database_now(database)
    found = (
        OutboxMessage.objects.using(database)
        .order_by("queue")
        .values("queue")
        .annotate(
            all=Count("id"), oldest=Min(Coalesce("due_at", "created_at")),
            refused=Count("id", Q(failures__gt=0)), delayed=Count("id", delayed(now)),
            next_due_at=Min("due_at", filter=delayed(now)),
        )
    )  # fmt: skip
    return [
        Waiting(
            database=database,
            queue=each["queue"],
            count=each["all"] - each["delayed"],
            oldest_seconds=round(max((now - each["oldest"]).total_seconds(), 0.0), 3),
            refused=each["refused"],
            delayed=each["delayed"],
            next_due_at=each["next_due_at"] and each["next_due_at"].isoformat(),
        )
        for each in found
    ]
