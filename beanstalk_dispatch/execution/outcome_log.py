"""The one log line of each delivery."""

from __future__ import annotations

import logging

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.log_lines import failed_line, quoted
from beanstalk_dispatch.outcomes import OUTCOMES, Outcome, Result
from beanstalk_dispatch.refusals import REFUSALS

logger = logging.getLogger("beanstalk_dispatch.task")


def log_outcome(delivery: Delivery, result: Result, config: Config, *, milliseconds: float) -> None:
    """Log what became of a delivery. Of bad signatures, one in a minute is logged."""
    level = OUTCOMES[result.outcome].level
    if not logger.isEnabledFor(level):
        return
    repeated: str | None = ""
    if result.outcome is Outcome.BAD_SIGNATURE:
        repeated = REFUSALS.repeated("bad-signature")
    if repeated is None:
        return
    message = delivery.message
    extra = "" if delivery.waited is None else f" waited_ms={delivery.waited * 1000:.0f}"
    if result.reason:
        extra += f" reason={_reason_with_cause(result)!r}"
    if result.dead_lettered:
        extra += f" dead_letter_queue={config.dead_letter_queue}"
    logger.log(
        level,
        "task id=%s function=%s outcome=%s receive_count=%d ms=%.0f%s",
        quoted(message.id if message else delivery.message_id),
        quoted(message.function if message else delivery.task_name),
        result.outcome,
        delivery.receive_count,
        milliseconds,
        repeated + extra,
    )


def _reason_with_cause(result: Result) -> str:
    """The log says more than the response: why and where an import failed."""
    cause = result.exception.__cause__ if result.exception else None
    if result.outcome is Outcome.UNKNOWN_FUNCTION and cause:
        return f"{result.reason} ({type(cause).__name__}: {cause}{failed_line(cause)})"
    return result.reason
