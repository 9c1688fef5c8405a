"""A redrive by SQS itself: faster than one message after the other, but it cannot filter."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.queues.waiting import problem_of
from beanstalk_dispatch.sqs.administration import (
    MAX_MOVES_PER_SECOND,
    MoveProgress,
    cancel_move,
    move_progress,
    start_move,
)
from beanstalk_dispatch.sqs.queue import Queue

from .sweep import Steps, SweepReport, wait

POLL_SECONDS: Final = 1.0
"""Seconds between two questions about the progress."""
MAX_FAILED_POLLS: Final = 30
"""The number of questions in a row without an answer after which the move is given up."""


def move_all(queue: Queue, arn: str, report: SweepReport, *, rate: float | None) -> Steps:
    """Have SQS move every message, and yield the report until it has. Close it to cancel the move.

    Raise SendError if SQS does not start the move, or cannot complete it.
    """
    per_second = None if rate is None else max(1, min(MAX_MOVES_PER_SECOND, int(rate)))
    handle = start_move(queue, arn, per_second=per_second)
    report.by_sqs = True
    is_over, failed_polls = False, 0
    try:
        while not (is_over or failed_polls > MAX_FAILED_POLLS):
            yield from wait(POLL_SECONDS, report)
            try:
                progress = move_progress(queue, arn)
            except SendError as exc:
                failed_polls, report.waiting_for = failed_polls + 1, problem_of(exc)
            else:
                is_over, failed_polls, report.waiting_for = progress.is_over, 0, ""
                _read_progress(progress, report)
        if not is_over:
            report.error = f"cancelling the move: {report.waiting_for}"
        yield report
    finally:
        if not is_over:
            with suppress(SendError):
                cancel_move(queue, handle)


def _read_progress(progress: MoveProgress, report: SweepReport) -> None:
    report.done, report.about = progress.moved, max(progress.to_move, progress.moved)
    if progress.status == "FAILED":
        raise SendError(f"SQS could not move every letter: {progress.failure or 'it says no more'}")
    if progress.status == "CANCELLED":
        report.error = "the move was cancelled"
