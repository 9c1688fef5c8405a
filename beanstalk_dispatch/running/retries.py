"""The decision on the retry of a failed run, and its delay."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.safe_task import RETRY_LIMIT, Retry, SafeTask

from .definitions.options import seconds_of

MAX_BACKOFF_SECONDS: Final = 3600.0
"""The longest delay that a task's ``retry_backoff`` grows to, in seconds."""
_MAX_DOUBLINGS: Final = 32
_MAX_SECONDS: Final = 2.0**31


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """The decision on a run that failed."""

    is_retried: bool
    """True if the message is sent again, as the next attempt."""
    is_final: bool
    """True if its retries are spent. A task that has none is left to SQS's redelivery."""
    delay: float | None
    """The seconds until it runs again, as a retry or as a redelivery.

    None: it is redelivered when its visibility timeout ends.
    """


def decide(
    task: SafeTask, exception: BaseException, attempt: int, earlier_runs: int = 0
) -> RetryDecision:
    """Decide on the retry of ``task``, whose run number ``attempt`` raised ``exception``.

    A redelivery backs off with the ``earlier_runs`` of the same message, too. Raise any exception
    that comes from wrong options of the task.
    """
    limit = _retry_limit(task, exception)
    is_retried = limit is not None and attempt <= limit
    return RetryDecision(
        is_retried=is_retried,
        is_final=limit is not None and attempt > limit,
        delay=retry_delay(task, exception, attempt if is_retried else attempt + earlier_runs),
    )


def retry_delay(task: SafeTask, exception: BaseException | None, attempt: int) -> float:
    """Return the seconds until ``task`` runs again.

    They are the delay of Retry, the value of a ``retry_backoff`` that is a function, or exponential
    backoff with jitter.
    """
    if isinstance(exception, Retry) and exception.delay is not None:
        return exception.delay
    if callable(task.retry_backoff):
        return min(max(seconds_of(task.retry_backoff(exception, attempt)), 0.0), _MAX_SECONDS)
    bound = seconds_of(task.retry_backoff) * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS)
    return random.uniform(0, min(bound, MAX_BACKOFF_SECONDS))


def _retry_limit(task: SafeTask, exception: BaseException) -> int | None:
    """Return the number of retries of a task that raised ``exception``; None leaves it to SQS."""
    if isinstance(exception, Retry):
        return RETRY_LIMIT if task.max_retries is None else task.max_retries
    if isinstance(exception, tuple(task.dont_retry_on)):
        return 0
    if task.max_retries is not None and not isinstance(exception, tuple(task.retry_on)):
        return 0
    return task.max_retries
