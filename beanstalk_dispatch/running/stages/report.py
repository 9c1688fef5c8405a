"""report: log one line for each delivery, and notify the observers of all deliveries."""

from __future__ import annotations

import logging
from typing import Final

from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.logging.log_lines import failed_line, quoted
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome, Result, Successor
from beanstalk_dispatch.observers import observed
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.definitions.configured import configured_observers
from beanstalk_dispatch.running.limits.outer_limit import send_signal
from beanstalk_dispatch.running.run import Run, Surround
from beanstalk_dispatch.running.unrun_receives import UNRUN
from beanstalk_dispatch.signals import delivery_finished

logger = logging.getLogger("beanstalk_dispatch.task")


_NOT_RUN: Final = frozenset(
    {
        Outcome.RUNNING,
        Outcome.UNAVAILABLE,
        Outcome.OVERDUE,
        Outcome.BAD_SIGNATURE,
        Outcome.DEFERRED,
    }
)


def report(run: Run) -> Surround:
    """Surround the delivery with the observers' ``delivering``; log and signal its outcome."""
    observers = configured_observers(run.config)
    with observed(observers, "delivering", run):
        result = yield
        run.outcome = result.outcome
        run.set_fate(result)
        if result.outcome in _NOT_RUN:
            is_shared = result.outcome is not Outcome.UNAVAILABLE  # it may be the cache
            UNRUN.note(run.delivery, is_shared=is_shared)
        log_outcome(run, result)
        if delivery_finished.receivers:
            send_signal(
                "delivery_finished", delivery_finished,
                sender=report, delivery=run, outcome=result.outcome, exception=run.exception,
            )  # fmt: skip
    return None


def log_outcome(run: Run, result: Result) -> None:
    """Log the outcome of a delivery.

    One line a minute is logged of bad signatures, and of functions that this machine cannot import.
    """
    level = OUTCOMES[result.outcome].level
    if not logger.isEnabledFor(level):
        return
    repeated: str | None = ""
    if result.outcome is Outcome.BAD_SIGNATURE:
        repeated = THROTTLE.repeated("bad-signature")
    elif result.outcome is Outcome.UNAVAILABLE and isinstance(run.exception, UnknownFunction):
        repeated = THROTTLE.repeated(f"unavailable {_name_in_table(run)}")
    if repeated is None:
        return
    message, delivery = run.message, run.delivery
    extra = "" if delivery.waited is None else f" waited_ms={delivery.waited * 1000:.0f}"
    if result.reason:
        extra += f" reason={_reason_with_cause(run, result)!r}"
    if result.successor is Successor.DEAD_LETTER:
        extra += f" dead_letter_queue={run.config.dead_letter_queue}"
    logger.log(
        level,
        "task id=%s function=%s outcome=%s receive_count=%d ms=%.0f%s",
        quoted(message.id if message else delivery.message_id),
        quoted(message.function if message else delivery.task_name),
        result.outcome,
        delivery.receive_count,
        (clock.monotonic() - run.started) * 1000,
        repeated + extra,
        extra={
            "queue": delivery.queue,
            "message_id": delivery.message_id,
            "attempt": message.attempt if message else None,
            "reason": result.reason,
        },
    )


def _name_in_table(run: Run) -> str:
    """Return the name of a task that the table lists, so that there are few of them."""
    return run.message.function if run.message.function in run.config.table else ""


def _reason_with_cause(run: Run, result: Result) -> str:
    """Return the reason with the cause and place of a failed import, which the response omits."""
    cause = run.exception.__cause__ if run.exception else None
    if isinstance(run.exception, UnknownFunction) and cause:
        return f"{result.reason} ({type(cause).__name__}: {cause}{failed_line(cause)})"
    return result.reason
