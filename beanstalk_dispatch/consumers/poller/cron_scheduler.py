"""Sends the periodic tasks of a cron.yaml to a queue when they are due, as the daemon does.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features-managing-env-tiers.html#worker-periodictasks
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from beanstalk_dispatch.consumers.endpoint.sqsd import (
    PATH_ATTRIBUTE,
    SCHEDULED_AT_ATTRIBUTE,
    TASK_NAME_ATTRIBUTE,
    format_time,
)
from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.cron import PeriodicTask
from beanstalk_dispatch.sqs.opening import open_queue

from .threads import every

logger = logging.getLogger("beanstalk_dispatch.worker")

_BODY: Final = "elasticbeanstalk scheduled job"
_CHECK_SECONDS: Final = 1.0
"""Seconds between two checks whether a periodic task is due."""


class Scheduler:
    """A sender of a message for each periodic task that is due, as a leader's daemon is."""

    def __init__(self, tasks: Sequence[PeriodicTask], queue: str) -> None:
        """Take the queue by a name as ``schedule_function`` takes it."""
        from cronsim import CronSim  # noqa: PLC0415 - optional

        self._queue = queue
        start = datetime.now(UTC)
        self._occurrences = [(task, CronSim(task.schedule, start)) for task in tasks]
        self._due = {task.name: next(moments) for task, moments in self._occurrences}

    def tick(self, is_stopping: Callable[[], bool]) -> Callable[[], None]:
        """Return a tick that sends the tasks that are due, once a second until ``is_stopping``."""

        def send() -> None:
            if is_stopping():
                return
            try:
                self.send_due(datetime.now(UTC))
            except Exception as exc:
                logger.exception("periodic tasks not sent error=%s", type(exc).__name__)

        return every(_CHECK_SECONDS, send)

    def send_due(self, now: datetime) -> None:
        """Send the tasks that are due at ``now``, each once, however long it has been due."""
        for task, moments in self._occurrences:
            if self._due[task.name] <= now:
                self._send_message(task, self._due[task.name])
                self._due[task.name] = next(moment for moment in moments if moment > now)

    def _send_message(self, task: PeriodicTask, due_at: datetime) -> None:
        attributes = {
            TASK_NAME_ATTRIBUTE: task.name,
            SCHEDULED_AT_ATTRIBUTE: format_time(due_at.timestamp()),
            PATH_ATTRIBUTE: task.url,
        }
        typed = {n: {"DataType": "String", "StringValue": v} for n, v in attributes.items()}
        try:
            open_queue(self._queue).send(_BODY, {"MessageAttributes": typed})
        except SchedulingError as exc:
            logger.error(
                "periodic task not sent task=%s error=%s", quoted(task.name), quoted_error(exc)
            )
