"""Tasks of the project, as a newcomer and as an app's user would write them."""

from __future__ import annotations

import time
from typing import Any

import overseer
from crontask import cron
from django.tasks import task

from beanstalk_dispatch.contrib.tasks import task as task_with_policy
from tests.jobs import append


@task
def add(a: int, b: int) -> int:
    return a + b


@task_with_policy(max_attempts=3, backoff=0, takes_context=True)
def flaky(context: Any, good_at: int) -> int:
    if context.attempt < good_at:
        raise ValueError(f"attempt {context.attempt}")
    return int(context.attempt)


@task
def linger(path: str) -> None:
    """Is killed the first time."""
    append(path, 0)
    time.sleep(1)
    append(path, 1)


@overseer.task(retries=1, backoff_base=0)  # type: ignore[untyped-decorator]
def reciprocal(number: int) -> float:
    """Overseer retries it, as a task of its own."""
    return 1 / number


@cron("* * * * *")  # type: ignore[untyped-decorator]
@task
def tick() -> str:
    return "tick"
