"""Run a received message in this process, as the worker does."""

from __future__ import annotations

from collections.abc import Callable

from django.core.signals import request_finished, request_started

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.endpoint.sqsd import (
    SCHEDULED_AT_ATTRIBUTE,
    TASK_NAME_ATTRIBUTE,
    parse_time,
    printable,
)
from beanstalk_dispatch.execution import executor
from beanstalk_dispatch.execution.consumer import DelayedCopies
from beanstalk_dispatch.outcomes import OUTCOMES
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import Ack, Nack

TaskStarts = Callable[[float], None]
"""Called when a task starts, with its time limit in seconds."""
Runner = Callable[[Received, TaskStarts], Ack | Nack]
"""Runs a message and says what SQS is to do with it. May call its second argument."""


def delivery_of(received: Received) -> Delivery:
    """The delivery that the daemon would report for a received message."""
    attributes, message_attributes = received.attributes, received.message_attributes
    first = attributes.get("ApproximateFirstReceiveTimestamp")
    sent = attributes.get("SentTimestamp")
    return Delivery(
        queue=received.queue.name,
        location=received.queue.location,
        message_id=received.message_id,
        receive_count=received.receive_count,
        unrun_receives=received.unrun_receives,
        first_received_at=int(first) / 1000 if first else None,
        sent_at=int(sent) / 1000 if sent else None,
        task_name=printable(message_attributes.get(TASK_NAME_ATTRIBUTE)),
        scheduled_at=parse_time(message_attributes.get(SCHEDULED_AT_ATTRIBUTE)),
        group_id=attributes.get("MessageGroupId"),
    )


class PollerConsumer(DelayedCopies):
    """The poller as execution sees it while one message runs."""

    can_hide = True

    def __init__(self, on_start: TaskStarts) -> None:
        self._on_start = on_start

    def task_starts(self, time_limit: float) -> None:
        """Have the message's visibility extended for as long as its task may run."""
        self._on_start(time_limit)


def run_here(received: Received, on_start: TaskStarts = lambda time_limit: None) -> Ack | Nack:
    """Run a message in this thread, between Django's signals for the start and end of a request."""
    delivery = delivery_of(received)
    body = "" if delivery.task_name else received.body
    request_started.send_robust(sender=run_here)
    try:
        result = executor.run(body, delivery, PollerConsumer(on_start))
    finally:
        request_finished.send_robust(sender=run_here)
    # Without a delay the message can never run, and is left to the queue's redrive policy.
    if not result.acknowledged:
        return Nack(result.retry_after)
    return Ack(is_failure=OUTCOMES[result.outcome].is_failure)
