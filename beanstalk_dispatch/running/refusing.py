"""The Result of a delivery that an exception ends, and of a task that could not start."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from beanstalk_dispatch.exceptions import (
    AlreadyDone,
    AlreadyRunning,
    BadSignature,
    ConfigurationError,
    LeaseError,
    LeaseUnavailable,
    MalformedMessage,
    MessageError,
    NotAllowed,
    UnknownFunction,
)
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor

from . import dead_letters
from .limits.outer_limit import speakable
from .limits.time_limit import TimeLimitExceeded
from .process_exceptions import is_for_the_process
from .run import Run, failure_of
from .waiting import refused_here

logger = logging.getLogger("beanstalk_dispatch.task")

_OUTCOMES: Final[dict[type[BaseException], Outcome]] = {
    MalformedMessage: Outcome.MALFORMED,
    UnknownFunction: Outcome.UNKNOWN_FUNCTION,
    BadSignature: Outcome.BAD_SIGNATURE,
    NotAllowed: Outcome.NOT_ALLOWED,
    AlreadyDone: Outcome.DUPLICATE,
    AlreadyRunning: Outcome.RUNNING,
    LeaseUnavailable: Outcome.UNAVAILABLE,
}


def result_of(run: Run, exc: BaseException) -> Result | None:
    """Return the Result of an exception of a stage.

    Return None if it is for the process or the caller.
    """
    if isinstance(exc, ConfigurationError) or _is_for_process_or_caller(run, exc):
        return None
    if isinstance(exc, MessageError | UnknownFunction):
        run.exception = exc
        if (waits := refused_here(run, exc)) is not None:
            return waits
        refused = Result(outcome=_OUTCOMES[type(exc)], reason=str(exc), is_final=True)
        return sent_to_dead_letter_queue(run, refused)
    if isinstance(exc, LeaseError):
        run.exception = exc
        return Result(outcome=_OUTCOMES[type(exc)], reason=str(exc), retry_after=exc.retry_after)
    return failed_outside(run, exc)


def _is_for_process_or_caller(run: Run, exc: BaseException) -> bool:
    is_of_caller = isinstance(exc, TimeLimitExceeded) and run.config.execute_synchronously
    return is_of_caller or is_for_the_process(exc)


def failed_outside(run: Run, raised: BaseException) -> Result:
    """Return and log the failure of a task that has not begun, such as of its ``__init__``.

    It is not acknowledged, whatever ON_FAILURE says. Raise an exception that is for the process or
    the caller.
    """
    if _is_for_process_or_caller(run, raised):
        raise raised
    exc, message = speakable(raised), run.message
    logger.error(
        "SafeTask failed outside of its run() id=%s function=%s error=%s",
        quoted(message and message.id), quoted(message and message.function),
        quoted_error(exc), exc_info=exc,
    )  # fmt: skip
    run.exception = exc
    return failure_of(exc)


def sent_to_dead_letter_queue(run: Run, result: Result) -> Result:
    """Send the message to the dead-letter queue, if there is one, and return its new Result.

    A message that this queue did not take is not acknowledged.
    """
    alias = run.config.dead_letter_queue
    if not alias or run.config.execute_synchronously:
        return result
    is_taken = dead_letters.send(run, alias=alias, outcome=result.outcome)
    return replace(result, successor=Successor.DEAD_LETTER if is_taken else None)
