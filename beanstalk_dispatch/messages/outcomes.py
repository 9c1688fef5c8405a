"""Outcome: the result of a delivery and its consequences, in one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, final


class Outcome(StrEnum):
    """The result of one delivery, in one word."""

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
    EXPIRED = "expired"
    RUNNING = "running"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"
    OVERDUE = "overdue"


class Settle(StrEnum):
    """The action of a consumer on the message of a delivery."""

    DELETE = "delete"
    HIDE = "hide"
    """The message is delivered again, after ``Result.retry_after`` seconds if that is set."""
    LEAVE = "leave"
    """The message is delivered again when its visibility timeout ends.

    It can never run, so the queue's redrive policy takes it.
    """


class Successor(StrEnum):
    """The owner of the message in place of SQS, which may then delete it after any outcome."""

    COPY = "copy"
    """A copy with the same task id, which was sent."""
    DEAD_LETTER = "dead-letter"
    """The queue of BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE, to which the message was sent."""
    NOBODY = "nobody"
    """Nobody, because BEANSTALK_DISPATCH_ON_FAILURE says that a failure is acknowledged."""


@dataclass(frozen=True, slots=True)
class Consequences:
    """The consequences of an outcome, if the message has no successor."""

    status: int
    """The HTTP status of the endpoint's answer. The daemon deletes on 200 and on nothing else."""
    settle: Settle
    """The action of any other consumer on the message."""
    level: int
    """The level of the delivery's log line."""
    is_failure: bool = False
    """True if something went wrong that somebody should look at."""


_OK: Final = 200
_DELETE, _HIDE, _LEAVE = Settle
OUTCOMES: Final[Mapping[Outcome, Consequences]] = MappingProxyType(
    {
        Outcome.DONE: Consequences(_OK, _DELETE, logging.INFO),
        Outcome.DUPLICATE: Consequences(_OK, _DELETE, logging.INFO),
        Outcome.CANCELLED: Consequences(_OK, _DELETE, logging.INFO),
        Outcome.EXPIRED: Consequences(_OK, _DELETE, logging.INFO),
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

UNWANTED: Final = frozenset({Outcome.CANCELLED, Outcome.EXPIRED})
"""The outcomes of a task that nobody wants any more. That is the end of it, and no failure."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a delivery, as data. A consumer needs nothing else to settle the message."""

    outcome: Outcome
    reason: str = ""
    """The reason in words. It holds no task data and no traceback."""
    retry_after: float | None = None
    """The seconds until the next delivery, where the consumer can hide a message for a time."""
    is_final: bool = False
    """True if the message will not run again: its retries are spent, or it can never run."""
    successor: Successor | None = None
    settle: Settle = field(init=False, compare=False, repr=False)
    """The action that settles the message."""
    status: int = field(init=False, compare=False, repr=False)
    """The HTTP status that makes aws-sqsd settle the message so."""
    is_acknowledged: bool = field(init=False, compare=False, repr=False)
    """True if ``settle`` is DELETE, and so ``status`` 200: SQS is to delete the message."""
    is_failure: bool = field(init=False, compare=False, repr=False)
    """True if something went wrong that somebody should look at."""

    def __post_init__(self) -> None:
        """Set the consequences, which the outcome and the successor determine."""
        row = OUTCOMES[self.outcome]
        settle = Settle.DELETE if self.successor else row.settle
        object.__setattr__(self, "settle", settle)
        object.__setattr__(self, "status", _OK if self.successor else row.status)
        object.__setattr__(self, "is_acknowledged", settle is Settle.DELETE)
        object.__setattr__(self, "is_failure", row.is_failure)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Result:
        """Return the result whose ``changed_fields`` these are."""
        successor = fields.get("successor")
        return cls(
            **{
                **fields,
                "outcome": Outcome(fields["outcome"]),
                "successor": successor and Successor(successor),
            }
        )
