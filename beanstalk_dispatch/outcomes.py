"""Outcome: what became of a delivery, and what follows from it, in one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Outcome(StrEnum):
    """What became of one delivery."""

    DONE = "done"
    RETRY = "retry"
    DEFERRED = "deferred"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CUT = "cut"
    MALFORMED = "malformed"
    UNKNOWN_FUNCTION = "unknown-function"
    BAD_SIGNATURE = "bad-signature"
    NOT_ALLOWED = "not-allowed"
    DUPLICATE = "duplicate"
    CANCELLED = "cancelled"
    RUNNING = "running"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows from an outcome."""

    status: int
    """The HTTP status of the endpoint's answer. The daemon deletes on 200 and on nothing else."""
    level: int
    """The level of the delivery's log line."""
    is_failure: bool
    """Whether something went wrong that somebody should look at."""


OUTCOMES: Final[Mapping[Outcome, Consequences]] = MappingProxyType(
    {
        Outcome.DONE: Consequences(200, logging.INFO, is_failure=False),
        Outcome.RETRY: Consequences(200, logging.INFO, is_failure=False),
        Outcome.DEFERRED: Consequences(200, logging.INFO, is_failure=False),
        Outcome.DUPLICATE: Consequences(200, logging.INFO, is_failure=False),
        Outcome.CANCELLED: Consequences(200, logging.INFO, is_failure=False),
        Outcome.MALFORMED: Consequences(400, logging.ERROR, is_failure=True),
        Outcome.UNKNOWN_FUNCTION: Consequences(400, logging.ERROR, is_failure=True),
        Outcome.BAD_SIGNATURE: Consequences(403, logging.ERROR, is_failure=True),
        Outcome.NOT_ALLOWED: Consequences(403, logging.ERROR, is_failure=True),
        Outcome.RUNNING: Consequences(409, logging.WARNING, is_failure=False),
        Outcome.FAILED: Consequences(500, logging.ERROR, is_failure=True),
        Outcome.TIMED_OUT: Consequences(500, logging.ERROR, is_failure=True),
        Outcome.CUT: Consequences(500, logging.ERROR, is_failure=True),
        Outcome.UNAVAILABLE: Consequences(503, logging.ERROR, is_failure=True),
        Outcome.DRAINING: Consequences(503, logging.WARNING, is_failure=False),
        Outcome.OVERDUE: Consequences(503, logging.WARNING, is_failure=False),
    }
)
ACKNOWLEDGED: Final = 200
"""The status of a failure that is acknowledged: BEANSTALK_DISPATCH_ON_FAILURE, or a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a delivery, and what its consumer is to do with the message."""

    outcome: Outcome
    reason: str = ""
    """Why, in words. Holds no task data and no traceback."""
    exception: BaseException | None = None
    acknowledged: bool = False
    """SQS may delete the message. Otherwise the message is to be delivered again."""
    retry_after: float | None = None
    """Seconds until the next delivery, where the consumer can hide a message for a time."""
    final: bool = False
    """The message must not run again: it can never succeed, or has no retry left."""
    dead_lettered: bool = False
    """The dead-letter queue of BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE has the message."""

    @property
    def status(self) -> int:
        """The HTTP status that makes aws-sqsd do with the message what this result says."""
        consequences = OUTCOMES[self.outcome]
        is_forgiven = self.acknowledged and consequences.is_failure
        return ACKNOWLEDGED if is_forgiven else consequences.status
