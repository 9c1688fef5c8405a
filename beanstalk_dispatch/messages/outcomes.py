"""Outcome: what became of a delivery, and what follows from it, in one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


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


class Settle(StrEnum):
    """What a consumer does with the message of a delivery."""

    DELETE = "delete"
    HIDE = "hide"
    """Have it delivered again, after ``Result.retry_after`` seconds where it says so."""
    LEAVE = "leave"
    """Have it delivered again when its visibility timeout ends: it can never run, and the queue's
    redrive policy takes it."""


class Successor(StrEnum):
    """Who has the message in place of SQS, so that SQS may delete it whatever its outcome is."""

    COPY = "copy"
    """A copy with the same task id, which was sent."""
    DEAD_LETTER = "dead-letter"
    """BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE."""
    NOBODY = "nobody"
    """BEANSTALK_DISPATCH_ON_FAILURE says that a failure is acknowledged."""


@dataclass(frozen=True, slots=True)
class Consequences:
    """What follows from an outcome, if the message has no successor."""

    status: int
    """The HTTP status of the endpoint's answer. The daemon deletes on 200 and on nothing else."""
    settle: Settle
    """What any other consumer does with the message."""
    level: int
    """The level of the delivery's log line."""
    is_failure: bool = False
    """Whether something went wrong that somebody should look at."""


_OK: Final = 200
_DELETE, _HIDE, _LEAVE = Settle
OUTCOMES: Final[Mapping[Outcome, Consequences]] = MappingProxyType(
    {
        Outcome.DONE: Consequences(_OK, _DELETE, logging.INFO),
        Outcome.DUPLICATE: Consequences(_OK, _DELETE, logging.INFO),
        Outcome.CANCELLED: Consequences(_OK, _DELETE, logging.INFO),
        # Only on a FIFO queue is a retry the same message.
        Outcome.RETRY: Consequences(503, _HIDE, logging.INFO),
        Outcome.DEFERRED: Consequences(503, _HIDE, logging.INFO),
        Outcome.MALFORMED: Consequences(400, _LEAVE, logging.ERROR, is_failure=True),
        Outcome.UNKNOWN_FUNCTION: Consequences(400, _LEAVE, logging.ERROR, is_failure=True),
        Outcome.BAD_SIGNATURE: Consequences(403, _HIDE, logging.ERROR, is_failure=True),
        Outcome.NOT_ALLOWED: Consequences(403, _LEAVE, logging.ERROR, is_failure=True),
        Outcome.RUNNING: Consequences(409, _HIDE, logging.WARNING),
        Outcome.FAILED: Consequences(500, _HIDE, logging.ERROR, is_failure=True),
        Outcome.TIMED_OUT: Consequences(500, _HIDE, logging.ERROR, is_failure=True),
        Outcome.CUT: Consequences(500, _HIDE, logging.ERROR, is_failure=True),
        Outcome.UNAVAILABLE: Consequences(503, _HIDE, logging.ERROR, is_failure=True),
        Outcome.DRAINING: Consequences(503, _HIDE, logging.WARNING),
        Outcome.OVERDUE: Consequences(503, _HIDE, logging.WARNING),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a delivery, as data. A consumer needs nothing else to settle the message."""

    outcome: Outcome
    reason: str = ""
    """Why, in words. Holds no task data and no traceback."""
    retry_after: float | None = None
    """Seconds until the next delivery, where the consumer can hide a message for a time."""
    is_final: bool = False
    """The message will not run again: its retries are spent, or it never can."""
    successor: Successor | None = None

    @property
    def settle(self) -> Settle:
        """Return what becomes of the message."""
        return Settle.DELETE if self.successor else OUTCOMES[self.outcome].settle

    @property
    def status(self) -> int:
        """Return the HTTP status with which aws-sqsd does that."""
        return _OK if self.successor else OUTCOMES[self.outcome].status

    @property
    def is_acknowledged(self) -> bool:
        """Return True if SQS is to delete the message."""
        return self.successor is not None or OUTCOMES[self.outcome].settle is Settle.DELETE

    @property
    def is_failure(self) -> bool:
        """Return True if something went wrong that somebody should look at."""
        return OUTCOMES[self.outcome].is_failure

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``from_json`` makes the same result of them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Result:
        """Make a result of what ``to_json`` returned."""
        successor = fields["successor"]
        return cls(
            **{
                **fields,
                "outcome": Outcome(fields["outcome"]),
                "successor": successor and Successor(successor),
            }
        )
