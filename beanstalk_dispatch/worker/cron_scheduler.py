"""Puts the periodic tasks of a cron.yaml on a queue when they are due, as the daemon does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from beanstalk_dispatch.cron import PeriodicTask
from beanstalk_dispatch.endpoint.sqsd import (
    PATH_ATTRIBUTE,
    SCHEDULED_AT_ATTRIBUTE,
    TASK_NAME_ATTRIBUTE,
    format_time,
)
from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.sqs.opening import open_queue

logger = logging.getLogger("beanstalk_dispatch.worker")

_BODY: Final = "elasticbeanstalk scheduled job"
_LOOK_EVERY: Final = 1.0  # seconds


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
            open_queue(self._queue).send(_BODY, {"MessageAttributes": typed})
        except SchedulingError as exc:
            logger.error("periodic task=%s was not sent: %s", task.name, exc)
