"""Django tasks for the tests. What they saw is in ``tests.jobs.calls``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from beanstalk_dispatch.client import cancel
from beanstalk_dispatch.contrib.tasks import task
from beanstalk_dispatch.exceptions import TaskCancelled
from beanstalk_dispatch.safe_task import Retry
from tests.jobs import calls, run_in_steps


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@task
def fail(reason: str = "no reason") -> None:
    raise ValueError(reason)


@task
def not_json() -> Any:
    return {1, 2}


@task(max_attempts=3, backoff=0, takes_context=True)
def flaky(context: Any, good_at: int) -> int:
    """Fails until its attempt number ``good_at``."""
    calls.append(("flaky", context.attempt))
    if context.attempt < good_at:
        raise ValueError(f"attempt {context.attempt}")
    return int(context.attempt)


@task(max_attempts=5, backoff=0, retry_on=(OSError,))
def choosy(kind: str) -> None:
    raise {"os": OSError, "value": ValueError}[kind](kind)


def _no_delay(exception: BaseException, result: Any) -> timedelta:
    calls.append(("backoff", type(exception).__name__, result.attempts))
    return timedelta(0)


@task(max_attempts=2, backoff=_no_delay)
def own_backoff() -> None:
    raise KeyError("key")


@task(timeout=0.2, max_attempts=1)
def too_slow() -> None:
    run_in_steps(30)


@task
def retry_once() -> str:
    calls.append(("retry",))
    if len(calls) < 2:
        raise Retry(delay=0)
    return "done"


@task(max_attempts=2, backoff=0)
def asks_again() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as exc:
        raise Retry from exc


meanwhile: list[Any] = []


@task
def fails_after() -> None:
    meanwhile.pop()()
    raise ValueError("slower than its duplicate")


@task
def interrupted() -> None:
    raise KeyboardInterrupt


@task
def stop() -> None:
    raise TaskCancelled


@task(max_attempts=3, backoff=0, takes_context=True)
def cancels_itself(context: Any) -> None:
    cancel(context.task_result.id)
    raise ValueError("to be tried again")


@task
async def coroutine(value: str) -> tuple[str, ...]:
    calls.append(("coroutine", value))
    return (value,)


@task(queue_name="mail")
def mail(to: str) -> str:
    return to


def _broken(exception: BaseException, result: Any) -> float:
    raise ZeroDivisionError("of the backoff")


@task(max_attempts=2, backoff=_broken)
def broken_backoff() -> None:
    raise ValueError("first")


@task(max_attempts=2, backoff=timedelta(seconds=90), timeout=timedelta(minutes=5))
def patient() -> None:
    """Has limits of each kind."""


@task(takes_context=True)
def inner(context: Any, outer_id: str) -> bool:
    return bool(context.task_result.id != outer_id)


@task(takes_context=True)
def outer(context: Any) -> list[Any]:
    own_id = context.task_result.id
    result = inner.enqueue(own_id)
    return [context.task_result.id, result.return_value]
