"""Backoff: requests that fail are tried again later and later, and the log is told now and then."""

from __future__ import annotations

import logging
import math
import random
import time
from typing import Final

from beanstalk_dispatch.exceptions import SchedulingError

logger = logging.getLogger("beanstalk_dispatch.worker")

LONGEST: Final = 30.0
"""Seconds between two tries, at most."""
_LOG_EVERY: Final = 60.0


class Backoff:
    """Requests of one kind to one queue. ``longest``: seconds between two tries, at most."""

    def __init__(self, what: str, queue: str, longest: float = LONGEST) -> None:
        self.failures = 0
        self.retry_at = 0.0
        self.failing_since = math.inf
        self._what, self._queue, self._longest = what, queue, longest
        self._logged_at = -math.inf
        self._is_logged = False

    @property
    def is_over(self) -> bool:
        """Whether the next request may be made."""
        return self.retry_at <= time.monotonic()

    def failed(self, error: object) -> None:
        """Back off with jitter; say so at once, and then at intervals."""
        now = time.monotonic()
        self.failures += 1
        self.failing_since = min(self.failing_since, now)
        pause = random.uniform(0.5, 1) * min(2.0 ** min(self.failures - 1, 10), self._longest)
        self.retry_at = now + pause
        if now - self._logged_at < _LOG_EVERY:
            return
        self._logged_at, self._is_logged = now, True
        is_news = isinstance(error, Exception) and not isinstance(error, SchedulingError)
        logger.error(
            "%s queue=%s failures=%d retry_in=%.1f error=%s",
            self._what,
            self._queue,
            self.failures,
            pause,
            error,
            exc_info=error if is_news else None,  # type: ignore[arg-type]
        )

    def worked(self) -> None:
        if self._is_logged:
            logger.info("%s queue=%s recovered failures=%d", self._what, self._queue, self.failures)
        self.failures, self.retry_at, self._is_logged = 0, 0.0, False
        self.failing_since = math.inf
