"""Check-ins of periodic tasks, and the monitor that Sentry makes from the first of them.

https://docs.sentry.io/platforms/python/crons/
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.utils.text import slugify

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import quoted_error
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.definitions.options import time_limit_of
from beanstalk_dispatch.safe_task import SafeTask

from .sdk import sentry_sdk
from .variables import CHECKIN_MARGIN, CRON_YAML, MAX_RUNTIME, get_values

logger = logging.getLogger("beanstalk_dispatch.sentry")

_MAX_SLUG: Final = 50
_HEADER: Final = "sentry-monitor"


@contextmanager
def checking_in(task: SafeTask, delivery: RunView, message: Message) -> Iterator[None]:
    """Send two check-ins of one run of a periodic task: in progress, then ok or error.

    A run that will be repeated is not an error, as a retry or by SQS. A retry is a message like any
    other, and checks in again because of a header. Where nobody knows how often SQS delivers the
    message, the first failure is an error, and a redelivery checks in only if it has succeeded.
    """
    is_periodic = bool(delivery.task_name) or _HEADER in message.headers
    if not (is_periodic and getattr(task, "sentry_monitor", True)):
        yield
        return
    delivery.headers[_HEADER] = "1"
    monitor: dict[str, Any] = {
        "monitor_slug": slug_of(message.function, conf.get_config().periodic_tasks),
        "monitor_config": _monitor_config(task, message.function),
    }
    is_repetition = delivery.receive_count > 1 and delivery.max_receives is None
    started = time.monotonic()
    check_in_id = None
    if not is_repetition:
        check_in_id = sentry_sdk.crons.capture_checkin(status="in_progress", **monitor)
    status = "error"
    try:
        yield
        is_repeated = delivery.max_receives is not None and not delivery.is_final
        if is_repeated or delivery.outcome in {Outcome.DONE, Outcome.RETRY, Outcome.CANCELLED}:
            status = "ok"
    finally:
        if status == "ok" or delivery.is_final or not is_repetition:
            duration = time.monotonic() - started
            sentry_sdk.crons.capture_checkin(
                status=status, check_in_id=check_in_id, duration=duration, **monitor
            )


def slug_of(name: str, periodic_tasks: Sequence[str]) -> str:
    """Return the slug of a task's monitor. It is never empty, and never that of another task."""
    slug = slugify(name)[:_MAX_SLUG]
    is_shared = any(
        other != name and slugify(other)[:_MAX_SLUG] == slug for other in periodic_tasks
    )
    if slug and not is_shared:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slug[: _MAX_SLUG - 9]}-{digest}".lstrip("-")


def _monitor_config(task: SafeTask, name: str) -> dict[str, Any] | None:
    """Return the definition of the monitor for Sentry; None leaves the monitor as it is there."""
    if (schedule := _read_schedules().get(name)) is None:
        return None
    values = get_values()
    runtime = getattr(task, "sentry_max_runtime", None) or values[MAX_RUNTIME]
    margin = getattr(task, "sentry_checkin_margin", None) or values[CHECKIN_MARGIN]
    config = {
        "schedule": {"type": "crontab", "value": schedule},
        "timezone": "UTC",
        "max_runtime": runtime or math.ceil(time_limit_of(task) / 60),
    }
    return config | ({"checkin_margin": margin} if margin else {})


@functools.cache
def _read_schedules() -> Mapping[str, str]:
    """Periodic task → its schedule, from the bundle's cron.yaml; nothing if it cannot be read."""
    places = [Path.cwd(), Path(getattr(settings, "BASE_DIR", "."))]
    path = get_values()[CRON_YAML] or next(
        (place / "cron.yaml" for place in places if (place / "cron.yaml").is_file()), None
    )
    if path is None:
        searched = " ".join(map(str, places))
        logger.info("check-ins are sent without a schedule error=no cron.yaml in %s", searched)
        return {}
    try:
        tasks = cron.load(path, on_problem=_log_problem)
    except ConfigurationError as exc:
        _log_problem(exc)
        return {}
    return {task.name: task.schedule for task in tasks}


def _log_problem(problem: Exception) -> None:
    logger.warning("check-ins are sent without a schedule error=%s", quoted_error(problem))
