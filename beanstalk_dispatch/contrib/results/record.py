"""The record of one task, from the moment that it is scheduled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.utils import timezone

from beanstalk_dispatch.logging.log_lines import traceback_of

MAX_ERRORS: Final = 10
"""The number of errors kept of one task: those of its last attempts."""
MAX_WORKERS: Final = 100
"""The number of worker ids kept of one task: those of its last attempts. The others are counted."""
MAX_RETURN_VALUE: Final = 500_000
"""Characters of JSON. A larger value is not kept: Memcached takes 1 MiB for a whole record."""
MAX_PROGRESS: Final = 2**53
"""The largest number that is the same in every JSON."""
UNKNOWN_WORKER: Final = "unknown"
BACKEND_HEADER: Final = "task_backend"
QUEUE_HEADER: Final = "task_queue"
SUPERSEDED_HEADER: Final = "superseded_by"
HEADERS: Final = (BACKEND_HEADER, QUEUE_HEADER)
"""The headers of a message that are kept. They say how a Django ``@task`` was enqueued."""


class Status(StrEnum):
    """The states of a task, in django.tasks' own words."""

    READY = "READY"
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    SUCCESSFUL = "SUCCESSFUL"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailure:
    """The error with which an attempt has failed."""

    exception_class_path: str
    """The path of the class, as in ``builtins.ValueError``."""
    traceback: str
    """The start and the end of the traceback, of at most 20,000 characters."""

    @classmethod
    def of(cls, exception: BaseException) -> TaskFailure:
        """Describe an exception. Local variables are not part of it."""
        kind = type(exception)
        return cls(
            exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
            traceback=traceback_of(exception),
        )


class Progress(NamedTuple):
    """The progress of a task. ``str`` returns it as ``300 of 1,000 (30 %)``."""

    n: float
    of: float | None = None
    """The end of the task, if it is known."""

    @classmethod
    def checked(cls, n: object, of: object) -> Progress:
        """Return the progress as numbers for JSON. Raise an error for other values."""
        return cls(_to_number(n), None if of is None else _to_number(of))

    def __str__(self) -> str:
        if self.of is None:
            return f"{self.n:,}"
        share = f" ({self.n / self.of:.0%})".replace("%", " %") if self.of else ""
        return f"{self.n:,} of {self.of:,}{share}"


def _to_number(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= MAX_PROGRESS:
        raise ValueError(f"progress is a number from 0 to 2**53, not {value!r:.50}")
    return int(number) if number.is_integer() else number


@dataclass(slots=True, kw_only=True)
class TaskRecord:
    """The record of one task. Times are in UTC."""

    id: str
    """The task id."""
    function: str
    """The task's name in the dispatch table, or the dotted path of a Django ``@task``."""
    queue: str = ""
    """The queue's name."""
    status: Status = Status.READY
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    """The time at which the first attempt began."""
    last_attempted_at: datetime | None = None
    """The time at which the last attempt began."""
    finished_at: datetime | None = None
    """The time at which the task succeeded, or failed permanently."""
    worker_ids: list[str] = field(default_factory=list)
    """The process of each attempt. It is ``unknown`` if the attempt was not recorded, or if a
    hundred others came after it."""
    errors: list[TaskFailure] = field(default_factory=list)
    """The last ten failures, the newest at the end."""
    progress: Progress | None = None
    """The progress that the task has reported last."""
    return_value: Any = field(default=None, repr=False)
    """The return value of the task, if it is JSON of at most 500,000 characters."""
    args: list[Any] | None = field(default=None, repr=False)
    """The arguments, if BEANSTALK_DISPATCH_RESULT_ARGUMENTS is set."""
    kwargs: dict[str, Any] | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    """The headers of the message that say how a Django ``@task`` was enqueued."""
    is_announced: bool = False
    """A Django task has failed permanently, and ``task_finished`` has been sent."""

    @property
    def attempts(self) -> int:
        """The number of times that the task has started."""
        return len(self.worker_ids)

    @property
    def superseded_by(self) -> str | None:
        """The id of the task that runs instead, because its message held the unique key.

        This one stays READY. None if the call was sent.
        """
        return self.headers.get(SUPERSEDED_HEADER)

    @property
    def is_finished(self) -> bool:
        """True if the task has succeeded, or has failed permanently."""
        return self.status in {Status.SUCCESSFUL, Status.FAILED}

    def to_fields(self) -> dict[str, Any]:
        """Return the fields as strings, numbers and times, as a store keeps them."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        fields["status"] = str(self.status)
        fields["errors"] = [dataclasses.asdict(each) for each in self.errors]
        fields["worker_ids"] = _with_count(self.worker_ids)
        return fields | {name: _to_json(fields[name]) for name in JSON_FIELDS}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> TaskRecord:
        """Read the fields that ``to_fields`` has written. Fields of a newer version are ignored."""
        known = {each.name for each in dataclasses.fields(cls)}
        values = {name: value for name, value in fields.items() if name in known}
        values |= {name: json.loads(values[name]) for name in JSON_FIELDS}
        values["progress"] = values["progress"] and Progress(*values["progress"])
        values["status"] = Status(values["status"])
        values["worker_ids"] = without_count(values["worker_ids"])
        values["errors"] = [TaskFailure(**each) for each in values["errors"]]
        return cls(**values)


def _with_count(worker_ids: list[str]) -> list[int | str]:
    """Return the last ids, after the number of those that are not kept if there are any."""
    earlier = len(worker_ids) - MAX_WORKERS
    return [*worker_ids] if earlier <= 0 else [earlier, *worker_ids[earlier:]]


def without_count(counted: list[Any]) -> list[str]:
    """Return an id for each attempt, from the form in which they are kept."""
    if counted and isinstance(counted[0], int):
        return [UNKNOWN_WORKER] * counted[0] + counted[1:]
    return counted


JSON_FIELDS: Final = (
    "worker_ids", "errors", "progress", "return_value", "args", "kwargs", "headers",
)  # fmt: skip
"""The fields that are kept as JSON. It is ASCII, which every database takes as it is."""


def _to_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def json_of(value: object) -> str | None:
    """Return the value as JSON; None if it has none, as a model instance that a task returns."""
    try:
        return _to_json(value)
    except (TypeError, ValueError, RecursionError):
        return None


def from_seconds(seconds: float | None) -> datetime | None:
    """Return a time of a message, which is in Unix seconds, as a datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def to_django(moment: datetime | None) -> datetime | None:
    """Return a time as Django has it: naive and in its own time zone, if USE_TZ is False."""
    return moment if moment is None or settings.USE_TZ else timezone.make_naive(moment)


def from_django(moment: datetime) -> datetime:
    """Return the time in UTC of one that ``to_django`` has made."""
    return (moment if settings.USE_TZ else timezone.make_aware(moment)).astimezone(UTC)
