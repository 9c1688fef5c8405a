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
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.utils.text import slugify
from sentry_sdk.crons import MonitorStatus, capture_checkin

from beanstalk_dispatch import conf, cron
from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.execution.task_options import time_limit_of
from beanstalk_dispatch.log_lines import quoted_error
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.safe_task import SafeTask

from .variables import CHECKIN_MARGIN, CRON_YAML, MAX_RUNTIME, get_values

logger = logging.getLogger("beanstalk_dispatch.sentry")

_MAX_SLUG: Final = 50
_HEADER: Final = "sentry-monitor"


def checking_in(
    task: SafeTask, delivery: Delivery, message: Message
) -> AbstractContextManager[object]:
    """Send check-ins if this is a periodic task."""
    if not (getattr(task, "sentry_monitor", True) and is_periodic(delivery, message)):
        return nullcontext()
    runtime = getattr(task, "sentry_max_runtime", None) or get_values()[MAX_RUNTIME]
    margin = getattr(task, "sentry_checkin_margin", None) or get_values()[CHECKIN_MARGIN]
    limit = math.ceil(time_limit_of(task) / 60)
    return check_in(delivery, message, max_runtime=runtime or limit, margin=margin)


@contextmanager
def check_in(
    delivery: Delivery, message: Message, *, max_runtime: int, margin: int | None
) -> Iterator[None]:
    """Send two check-ins of one run: in progress, then ok or error.

    A run that will be repeated is not an error. Its repetition is a message like any other and
    checks in again. ``max_runtime`` and ``margin`` are in minutes.
    """
    name = message.function
    message.headers = {**message.headers, _HEADER: "1"}
    monitor: dict[str, Any] = {
        "monitor_slug": slug_of(name, conf.get_config().periodic_tasks),
        "monitor_config": _monitor_config(name, max_runtime=max_runtime, margin=margin),
    }
    started = time.monotonic()
    check_in_id = capture_checkin(status=MonitorStatus.IN_PROGRESS, **monitor)
    status = MonitorStatus.ERROR
    try:
        yield
        if delivery.outcome in {Outcome.DONE, Outcome.RETRY, Outcome.CANCELLED}:
            status = MonitorStatus.OK
    finally:
        duration = time.monotonic() - started
        capture_checkin(status=status, check_in_id=check_in_id, duration=duration, **monitor)


def slug_of(name: str, periodic_tasks: Sequence[str]) -> str:
    """The slug of a task's monitor. It is never empty, and never that of another task."""
    slug = slugify(name)[:_MAX_SLUG]
    is_shared = any(
        other != name and slugify(other)[:_MAX_SLUG] == slug for other in periodic_tasks
    )
    if slug and not is_shared:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{slug[: _MAX_SLUG - 9]}-{digest}".lstrip("-")


def is_periodic(delivery: Delivery, message: Message) -> bool:
    """Whether this is a periodic task, or a repetition of one."""
    return bool(delivery.task_name) or _HEADER in message.headers


def _monitor_config(name: str, *, max_runtime: int, margin: int | None) -> dict[str, Any] | None:
    """What Sentry makes the monitor from; None leaves it as it is there."""
    schedule = _read_schedules().get(name)
    if schedule is None:
        return None
    config = {
        "schedule": {"type": "crontab", "value": schedule},
        "timezone": "UTC",
        "max_runtime": max_runtime,
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
