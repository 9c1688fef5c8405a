"""Backoff: a longer wait after each failed request to SQS, and one log line a minute at most."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.logging.log_lines import quoted_error
from beanstalk_dispatch.process import clock

logger = logging.getLogger("beanstalk_dispatch.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffTimes:
    """The pauses after failed requests, in seconds. Tests pass shorter times."""

    first_retry: float = 1.0
    """The longest pause after the first of several failed requests."""
    longest_retry: float = 30.0
    """The longest pause between two requests that fail."""
    failure_log_interval: float = 60.0
    """The seconds between two log lines about requests that continue to fail."""


class Backoff:
    """The time at which an operation on a queue may be tried again after failures."""

    def __init__(
        self, operation: str, queue: str, *, times: BackoffTimes, longest: float | None = None
    ) -> None:
        self.failures = 0
        """The number of rounds of requests that have failed since a request succeeded."""
        self.retry_at = 0.0
        """The time of the next request, in monotonic seconds."""
        self.failing_since = math.inf
        """The time of the first of these failures, in monotonic seconds; infinite without one."""
        self._operation, self._queue, self._times = operation, queue, times
        self._longest = times.longest_retry if longest is None else longest
        self._failed_at = -math.inf
        self._logged_at = -math.inf
        self._is_logged = False

    @property
    def is_over(self) -> bool:
        """Return True if the next request may be made."""
        return self.retry_at <= clock.monotonic()

    @property
    def failing_seconds(self) -> float:
        """Return the time from the first to the last of these failures; negative without one."""
        return self._failed_at - self.failing_since

    def hurry(self) -> None:
        """Allow a request at once, and from now on each further one after the shortest pause."""
        self.retry_at, self._longest = 0.0, self._times.first_retry

    def failed(self, error: object, *, started: float = math.inf) -> None:
        """Note that a request has failed, and log it unless that was done a short time ago.

        A request that was ``started`` before the last failure had failed says nothing new: several
        requests that are open at the same time fail together, and count once.
        """
        now = clock.monotonic()
        if started < self._failed_at:
            return
        self._failed_at = now
        self.failures += 1
        self.failing_since = min(self.failing_since, now)
        pause = self._retry_delay()
        self.retry_at = now + pause
        if now - self._logged_at < self._times.failure_log_interval:
            return
        self._logged_at, self._is_logged = now, True
        is_unexpected = isinstance(error, Exception) and not isinstance(error, SchedulingError)
        logger.error(
            "%s failed queue=%s failures=%d retry_in=%.1f error=%s",
            self._operation,
            self._queue,
            self.failures,
            pause,
            quoted_error(error),
            exc_info=error if is_unexpected else None,  # type: ignore[arg-type]
        )

    def _retry_delay(self) -> float:
        """Return a pause that doubles with each failure, with jitter so that retries spread out."""
        pause = self._times.first_retry * 2.0 ** min(self.failures - 1, 10)
        return random.uniform(0.5, 1) * min(pause, self._longest)

    def succeeded(self) -> None:
        """Note that a request has succeeded."""
        if self._is_logged:
            logger.info(
                "%s recovered queue=%s failures=%d", self._operation, self._queue, self.failures
            )
        self.failures, self.retry_at, self._is_logged = 0, 0.0, False
        self.failing_since = math.inf
