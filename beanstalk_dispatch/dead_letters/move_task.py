"""A redrive by SQS itself: faster than one message after the other, but it cannot filter."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.queues.waiting import problem_of
from beanstalk_dispatch.sqs.queue import Queue
from beanstalk_dispatch.sqs.quotas import MAX_MOVES_PER_SECOND

from .sweep import Steps, SweepReport, wait

POLL_SECONDS: Final = 1.0
"""Seconds between two questions about the progress."""
MAX_FAILED_POLLS: Final = 30
"""The number of questions in a row without an answer after which the move is given up."""


def move_all(queue: Queue, arn: str, report: SweepReport, *, rate: float | None) -> Steps:
    """Have SQS move every message, and yield the report until it has. Close it to cancel the move.

    SQS runs one such move of a queue at a time, for at most 36 hours. Raise SendError if SQS does
    not start the move, or cannot complete it.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    """
    pace = {}
    if rate is not None:
        pace["MaxNumberOfMessagesPerSecond"] = max(1, min(MAX_MOVES_PER_SECOND, int(rate)))
    handle = queue.request("start_message_move_task", SourceArn=arn, **pace)["TaskHandle"]
    report.by_sqs = True
    is_over, failed_polls = False, 0
    try:
        while not (is_over or failed_polls > MAX_FAILED_POLLS):
            yield from wait(POLL_SECONDS, report)
            try:
                newest = _newest_move(queue, arn)
            except SendError as exc:
                failed_polls, report.waiting_for = failed_polls + 1, problem_of(exc)
            else:
                failed_polls, report.waiting_for = 0, ""
                is_over = newest["Status"] in {"COMPLETED", "CANCELLED", "FAILED"}
                _note_progress(newest, report)
        if not is_over:
            report.error = f"cancelling the move: {report.waiting_for}"
        yield report
    finally:
        if not is_over:
            with suppress(SendError):  # what was moved stays moved
                queue.request("cancel_message_move_task", TaskHandle=handle)


def _newest_move(queue: Queue, arn: str) -> Mapping[str, Any]:
    """Return SQS's description of the newest move of a queue. Raise SendError if there is none.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListMessageMoveTasks.html
    """
    answer = queue.request("list_message_move_tasks", SourceArn=arn, MaxResults=1)
    if not answer.get("Results"):
        raise SendError(f"ListMessageMoveTasks on {queue.name}: SQS lists no task")
    newest: Mapping[str, Any] = answer["Results"][0]
    return newest


def _note_progress(newest: Mapping[str, Any], report: SweepReport) -> None:
    report.done = newest.get("ApproximateNumberOfMessagesMoved", 0)
    report.about = max(newest.get("ApproximateNumberOfMessagesToMove", 0), report.done)
    if newest["Status"] == "FAILED":
        reason = newest.get("FailureReason") or "it says no more"
        raise SendError(f"SQS could not move every letter: {reason}")
    if newest["Status"] == "CANCELLED":
        report.error = "the move was cancelled"
