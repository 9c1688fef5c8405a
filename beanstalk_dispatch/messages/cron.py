"""Read Elastic Beanstalk's periodic tasks from a cron.yaml.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features-managing-env-tiers.html#worker-periodictasks
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch.exceptions import ConfigurationError

from .message import NAME_FORM, is_name

MISSING_LIBRARY: Final = (
    "cron.yaml needs PyYAML and cronsim: pip install 'django-beanstalk-dispatch[local]'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTask:
    """One entry of a cron.yaml."""

    name: str
    """The task's name in the dispatch table."""
    url: str
    """The path that the daemon POSTs to."""
    schedule: str
    """The five fields of the schedule, in UTC."""


def occurrence_id(queue: str, name: str, due_at: float) -> str:
    """Return the id of a periodic task's run that is due at ``due_at``, in Unix seconds.

    It is derived, so that two messages for one occurrence have the same id. The lease then takes
    the second for a duplicate.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{queue}\n{name}\n{due_at:.0f}"))


def load(
    path: Path, *, on_problem: Callable[[ConfigurationError], None] | None = None
) -> list[PeriodicTask]:
    """Read a cron.yaml. Raise ConfigurationError if an entry is wrong; it names the entry.

    With ``on_problem``, which gets the error, a wrong entry is left out instead. A file that
    cannot be read, or that is not a cron.yaml, raises ConfigurationError in both cases.
    """
    try:
        import cronsim  # noqa: F401, PLC0415 - optional
        import yaml  # noqa: PLC0415 - optional
    except ImportError as exc:
        raise ConfigurationError(MISSING_LIBRARY) from exc
    try:
        content = yaml.safe_load(path.read_text())
    except RecursionError as exc:
        raise ConfigurationError(f"{path}: nested too deeply") from exc
    except (OSError, ValueError, yaml.YAMLError) as exc:  # ValueError: not UTF-8, or no such date
        raise ConfigurationError(f"{path}: {' '.join(str(exc).split())}") from exc
    entries = content.get("cron") if isinstance(content, dict) else None
    if not isinstance(entries, list) or content.get("version") != 1:
        raise ConfigurationError(f"{path}: expected 'version: 1' and a list under 'cron:'")
    tasks: list[PeriodicTask] = []
    for position, entry in enumerate(entries, 1):
        try:
            tasks.append(_periodic_task(path, position, entry))
        except ConfigurationError as exc:
            if on_problem is None:
                raise
            on_problem(exc)
    return tasks


def next_run(task: PeriodicTask, after: datetime) -> datetime:
    """Return the moment at which a task is due next."""
    from cronsim import CronSim  # noqa: PLC0415 - optional

    found: datetime = next(CronSim(task.schedule, after))
    return found


def _periodic_task(path: Path, position: int, entry: Any) -> PeriodicTask:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - optional

    fields = ("name", "url", "schedule")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(f), str) for f in fields):
        raise ConfigurationError(
            f"{path}: entry {position}: expected the strings name, url, schedule"
        )
    if not is_name(entry["name"]):
        raise ConfigurationError(f"{path}: entry {position}: name is not {NAME_FORM}")
    if not re.fullmatch(r"/[!-~]*", entry["url"]):
        raise ConfigurationError(
            f"{path}: {entry['name']}: url {entry['url']!r} is not a path; write one like "
            "/beanstalk_dispatch/dispatcher"
        )
    if len(entry["schedule"].split()) != 5:
        raise ConfigurationError(
            f"{path}: {entry['name']}: schedule {entry['schedule']!r} does not have the five "
            "fields minute, hour, day, month, weekday"
        )
    try:
        CronSim(entry["schedule"], datetime.now(UTC))
    except CronSimError as exc:
        raise ConfigurationError(f"{path}: {entry['name']}: {entry['schedule']!r}: {exc}") from exc
    return PeriodicTask(**{field: entry[field] for field in fields})
