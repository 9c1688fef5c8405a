"""follow up: send the retry or the dead letter of an attempt that has failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome, Result, Successor
from beanstalk_dispatch.observers import observed
from beanstalk_dispatch.resuming import NextLeg
from beanstalk_dispatch.running.ending import sent_again
from beanstalk_dispatch.running.refusing import sent_to_dead_letter_queue
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

from .read import decode

OUTCOMES_TO_FOLLOW: Final = frozenset(
    each for each in Outcome if each is Outcome.RETRY or OUTCOMES[each].is_failure
)
# The clock of SQS's 12 hours has started at the receive, so no more than half of it is used.
_MAX_HIDDEN_SECONDS: Final = MAX_VISIBILITY_SECONDS / 2


def follow_up(run: Run, result: Result) -> Result:
    """Send the retry or the dead letter of an attempt that has failed."""
    if result.outcome is Outcome.RETRY:
        return _retried(run, result)
    return result if result.is_acknowledged else _failed(run, result)


def _retried(run: Run, result: Result) -> Result:
    delay = result.retry_after or 0.0
    if run.retries_by_hiding and (delay <= _MAX_HIDDEN_SECONDS or not run.consumer.can_hide):
        return result
    received = decode(run)  # the task may have changed its arguments
    copy = replace(
        run.message,
        args=received.args,
        kwargs=received.kwargs,
        attempt=run.message.attempt + 1,
        headers={**run.message.headers, **run.headers},
        not_before=None,
    )
    why = ""
    if run.leg is not None:
        copy = replace(
            copy, cursor=run.leg.cursor, leg=copy.leg + 1, progress=list(run.leg.progress)
        )
    if isinstance(run.exception, NextLeg):  # not an attempt
        copy, why = replace(copy, first_attempt=copy.first_attempt + 1), str(run.exception)
    with observed(run.entry.observers, "retrying", run):
        return sent_again(run, copy, delay, Outcome.RETRY, waits_because=why)


def _failed(run: Run, result: Result) -> Result:
    if run.config.on_failure == "acknowledge":
        result = replace(result, successor=Successor.NOBODY)
    return sent_to_dead_letter_queue(run, result) if result.is_final else result
