"""Whether a failed run is repeated, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.safe_task import RETRY_LIMIT, Retry, SafeTask

from .task_options import seconds_of

MAX_BACKOFF_SECONDS: Final = 3600.0
"""The longest delay that a task's ``retry_backoff`` grows to."""
_MAX_DOUBLINGS: Final = 32
_MAX_SECONDS: Final = 2.0**31


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    """What is to become of a run that failed."""

    is_retried: bool
    """Whether the message is sent again, as the next attempt."""
    is_final: bool
    """Whether its retries are spent. A task that has none is left to SQS's redelivery."""
    delay: float
    """Seconds until it runs again, as a retry or as a redelivery."""


def decide(task: SafeTask, exception: BaseException, attempt: int) -> RetryDecision:
    """Decide on the repetition of ``task``, of which run number ``attempt`` raised ``exception``.

    Raises what wrong options of the task raise.
    """
    limit = _retry_limit(task, exception)
    return RetryDecision(
        is_retried=limit is not None and attempt <= limit,
        is_final=limit is not None and attempt > limit,
        delay=retry_delay(task, exception, attempt),
    )


def retry_delay(task: SafeTask, exception: BaseException | None, attempt: int) -> float:
    """Seconds until ``task`` runs again.

    They are Retry's own, what a ``retry_backoff`` that is a function returns, or exponential
    backoff with jitter.
    """
    if isinstance(exception, Retry) and exception.delay is not None:
        return exception.delay
    if callable(task.retry_backoff):
        return min(max(seconds_of(task.retry_backoff(exception, attempt)), 0.0), _MAX_SECONDS)
    bound = seconds_of(task.retry_backoff) * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS)
    return random.uniform(0, min(bound, MAX_BACKOFF_SECONDS))


def _retry_limit(task: SafeTask, exception: BaseException) -> int | None:
    """How often a task that raised ``exception`` is repeated; None leaves that to SQS."""
    if isinstance(exception, Retry):
        return RETRY_LIMIT if task.max_retries is None else task.max_retries
    if isinstance(exception, tuple(task.dont_retry_on)):
        return 0
    if task.max_retries is not None and not isinstance(exception, tuple(task.retry_on)):
        return 0
    return task.max_retries
