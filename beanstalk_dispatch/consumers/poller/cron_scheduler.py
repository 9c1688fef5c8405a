"""Sends the periodic tasks of a cron.yaml to a queue when they are due, as the daemon does.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features-managing-env-tiers.html#worker-periodictasks
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db import connections

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint.sqsd import (
    PATH_ATTRIBUTE,
    SCHEDULED_AT_ATTRIBUTE,
    TASK_NAME_ATTRIBUTE,
    format_time,
)
from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.cron import PeriodicTask, occurrence_id
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of
from beanstalk_dispatch.sqs.opening import open_queue, resolve_address

from .worker import Tick, every

logger = logging.getLogger("beanstalk_dispatch.worker")

_BODY: Final = "elasticbeanstalk scheduled job"
_CHECK_SECONDS: Final = 1.0
"""Seconds between two checks whether a periodic task is due."""
PENDING_SECONDS: Final = 30
"""Seconds that the other workers wait for the one that has begun to send an occurrence.

So an occurrence of a task that is due every minute is sent before the next one, even if a worker is
killed while it sends.
"""
_LOOK_BACK: Final = timedelta(minutes=1)
"""The age of the occurrences that a worker sends which has just started, if nobody else has."""
_SENT_SECONDS: Final = 86400
"""Seconds for which an occurrence is known to be sent. Workers that slept longer send it again."""
_PENDING, _SENT = "pending", "sent"


class Scheduler:
    """A sender of a message for each periodic task that is due, as a leader's daemon is.

    With a lease cache several workers may have one: each occurrence is sent by one of them. Its
    entry is added before the send and confirmed after it, so that another worker sends what a
    killed one has not. If both have, the messages have the same id, and the lease runs one.
    """

    def __init__(self, tasks: Sequence[PeriodicTask], queue: str) -> None:
        """Take the queue by a name as ``schedule_function`` takes it."""
        from cronsim import CronSim  # noqa: PLC0415 - optional

        self._queue = queue
        start = datetime.now(UTC)
        if get_config().lease_cache is not None:
            start -= _LOOK_BACK
        self._occurrences = [(task, CronSim(task.schedule, start)) for task in tasks]
        self._due = [next(moments) for _, moments in self._occurrences]

    def next_runs(self) -> list[tuple[str, float]]:
        """Return each task's name, and the Unix seconds at which it is sent next."""
        pairs = zip(self._occurrences, self._due, strict=True)
        return [(task.name, due_at.timestamp()) for (task, _), due_at in pairs]

    def tick(self, is_stopping: Callable[[], bool]) -> Tick:
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
        for position, (task, moments) in enumerate(self._occurrences):
            if self._due[position] <= now and self._send_once(task, self._due[position]):
                self._due[position] = next(moment for moment in moments if moment > now)

    def _send_once(self, task: PeriodicTask, due_at: datetime) -> bool:
        """Send an occurrence, unless another worker does. Return False if it is to be tried again.

        If the cache does not answer, each worker sends it.
        """
        config = get_config()
        if config.lease_cache is None:
            self._send_message(task, due_at)
            return True
        queue = resolve_address(self._queue, config).name
        key = cache_key("occurrence", occurrence_id(queue, task.name, due_at.timestamp()))
        try:
            return self._send_as_claimed(cache_of(config.lease_cache), key, task, due_at)
        finally:
            connections.close_all()  # this thread's, if the cache is in a database

    def _send_as_claimed(self, cache: Any, key: str, task: PeriodicTask, due_at: datetime) -> bool:
        try:
            if not cache.add(key, _PENDING, PENDING_SECONDS):
                return bool(cache.get(key) == _SENT)
        except Exception as exc:
            logger.warning(
                "not known whether sent task=%s error=%s: each worker sends it, and the lease "
                "finds the duplicates",
                quoted(task.name), quoted_error(exc, with_type=True),
            )  # fmt: skip
            self._send_message(task, due_at)
            return True
        is_sent = self._send_message(task, due_at)
        if is_sent:
            with suppress(Exception):  # it is then sent again, as a duplicate
                cache.set(key, _SENT, _SENT_SECONDS)
        return is_sent

    def _send_message(self, task: PeriodicTask, due_at: datetime) -> bool:
        """Return False if SQS has not taken the message, or has not said so."""
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
            return False
        return True
