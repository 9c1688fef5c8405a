"""The durations of tasks since a moment, beside those of the same time before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Avg, Count, F, Max, Q

from .models import StoredResult
from .record import Status, now, to_django

COLUMNS: Final = ("Function", "Change", "Mean", "Before", "Longest", "Wait", "Runs", "Failed")
_NONE: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """The durations of one function's tasks in seconds, by their last attempts.

    None stands for a time in which no task of the function has finished.
    """

    function: str
    mean: float | None
    before: float | None
    """The mean of those that were scheduled before the moment."""
    longest: float | None
    wait: float | None
    """The mean time between schedule and first start."""
    runs: int
    failed: int

    @property
    def change(self) -> float:
        """The mean as a multiple of that before; 0 if one of them is not known."""
        return self.mean / self.before if self.mean and self.before else 0.0

    def cells(self) -> list[str]:
        """Return the cells of its row below COLUMNS."""
        times = [
            _NONE if each is None else f"{each:.3f}s"
            for each in (self.mean, self.before, self.longest, self.wait)
        ]
        change = f"x {self.change:.1f}" if self.change else _NONE
        return [self.function, change, *times, str(self.runs), str(self.failed)]

    def as_json(self) -> dict[str, Any]:
        """Return the durations as the JSON object of ``--json``."""
        return asdict(self) | {"change": self.change or None}


def durations(since: datetime, database: str | None = None) -> Sequence[Durations]:
    """Return the durations by function, the one that has become slower by most first.

    One query reads the finished tasks that were scheduled in twice the time since then.
    """
    ran, waited = F("finished_at") - F("last_attempted_at"), F("started_at") - F("enqueued_at")
    moment, start = to_django(since), to_django(since - (now() - since))
    is_new, is_old = Q(enqueued_at__gte=moment), Q(enqueued_at__lt=moment)
    rows = (
        StoredResult.objects.using(database)
        .filter(enqueued_at__gte=start, finished_at__isnull=False)
        .order_by()
        .values("function")
        .annotate(
            mean=Avg(ran, filter=is_new),
            before=Avg(ran, filter=is_old),
            longest=Max(ran, filter=is_new),
            wait=Avg(waited, filter=is_new),
            runs=Count("pk", filter=is_new),
            failed=Count("pk", filter=is_new & Q(status=Status.FAILED)),
        )
    )
    found = [Durations(**{name: _seconds(each) for name, each in row.items()}) for row in rows]
    return sorted(found, key=lambda each: (-each.change, -(each.mean or 0)))


def _seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value
