"""cron.yaml: Elastic Beanstalk's periodic tasks, read and put on a queue when they are due.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features-managing-env-tiers.html#worker-periodictasks
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import sqs
from .exceptions import ConfigurationError, SchedulingError
from .sqsd import PATH_ATTRIBUTE, SCHEDULED_AT_ATTRIBUTE, TASK_NAME_ATTRIBUTE, format_time

logger = logging.getLogger(__name__)

MISSING = "cron.yaml needs PyYAML and cronsim: pip install 'django-beanstalk-dispatch[local]'"
_BODY = "elasticbeanstalk scheduled job"
_LOOK_EVERY = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTask:
    """One entry: ``schedule`` has five fields and is in UTC, ``url`` is a path."""

    name: str
    url: str
    schedule: str


def load(path: Path) -> list[PeriodicTask]:
    """Read a cron.yaml. Raises ConfigurationError naming the entry and what is wrong."""
    try:
        import yaml
        from cronsim import CronSim, CronSimError
    except ImportError as exc:
        raise ConfigurationError(MISSING) from exc
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigurationError(f"{path}: {exc}") from exc
    entries = content.get("cron") if isinstance(content, dict) else None
    if not isinstance(entries, list) or content.get("version") != 1:
        raise ConfigurationError(f"{path}: expected 'version: 1' and a list under 'cron:'")
    tasks = [_task(path, position, entry) for position, entry in enumerate(entries, 1)]
    for task in tasks:
        try:
            CronSim(task.schedule, datetime.now(UTC))
        except CronSimError as exc:
            raise ConfigurationError(f"{path}: {task.name}: {task.schedule!r}: {exc}") from exc
    return tasks


def _task(path: Path, position: int, entry: Any) -> PeriodicTask:
    fields = ("name", "url", "schedule")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(f), str) for f in fields):
        raise ConfigurationError(f"{path}: entry {position}: expected texts name, url, schedule")
    if not entry["url"].startswith("/"):
        raise ConfigurationError(f"{path}: {entry['name']}: url {entry['url']!r} is not a path")
    return PeriodicTask(**{field: entry[field] for field in fields})


class Scheduler:
    """Sends the message of each task when it is due, as the daemon of the leader machine does."""

    def __init__(self, tasks: list[PeriodicTask], queue: str) -> None:
        from cronsim import CronSim

        self._queue = queue
        start = datetime.now(UTC)
        self._next = [(task, CronSim(task.schedule, start)) for task in tasks]
        self._due = {task.name: next(times) for task, times in self._next}

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Until ``is_stopping``, look every second."""
        pause = threading.Event()
        while not is_stopping():
            try:
                self.send_due(datetime.now(UTC))
            except Exception:
                logger.exception("periodic tasks were not sent")
            pause.wait(_LOOK_EVERY)

    def send_due(self, now: datetime) -> None:
        for task, times in self._next:
            if self._due[task.name] <= now:
                self._send(task, self._due[task.name])
                self._due[task.name] = next(at for at in times if at > now)

    def _send(self, task: PeriodicTask, at: datetime) -> None:
        attributes = {
            TASK_NAME_ATTRIBUTE: task.name,
            SCHEDULED_AT_ATTRIBUTE: format_time(at.timestamp()),
            PATH_ATTRIBUTE: task.url,
        }
        typed = {n: {"DataType": "String", "StringValue": v} for n, v in attributes.items()}
        try:
            sqs.queue(self._queue).send(_BODY, {"MessageAttributes": typed})
        except SchedulingError as exc:
            logger.error("periodic task=%s was not sent: %s", task.name, exc)
