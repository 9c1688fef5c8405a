"""Run a received message in this process, as the worker does."""

from __future__ import annotations

from collections.abc import Callable

from django.core.signals import request_started

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint.sqsd import delivery_from_attributes
from beanstalk_dispatch.exceptions import MessageError
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.outcomes import Settle
from beanstalk_dispatch.process.role import PROCESS
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.consumer import NOBODY, DelayedCopies
from beanstalk_dispatch.running.left_behind.connections import are_open, end_request
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.stages.read import decode
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import Ack, Nack

TaskStarts = Callable[[float], None]
"""A function to call when a task starts, with its time limit in seconds."""
Runner = Callable[[Received, TaskStarts], Ack | Nack]
"""A function that runs a message, and returns the answer for SQS.

It may call its second argument.
"""


def delivery_of(received: Received) -> Delivery:
    """Return the delivery that the daemon would report for a received message."""
    queue = received.queue
    return delivery_from_attributes(
        received.body,
        received.attributes,
        received.message_attributes,
        queue=queue.name,
        location=queue.location,
        message_id=received.message_id,
        max_receives=queue.max_receives,
        unrun_receives=received.unrun_receives,
    )


def task_id_of(received: Received) -> str:
    """Return the id of a received message's task, for a log line; without one, that of SQS."""
    try:
        return decode(Run(delivery_of(received), get_config(), NOBODY)).id
    except MessageError:
        return received.message_id


class PollerConsumer(DelayedCopies):
    """The poller as a run sees it while one message runs."""

    children = CHILDREN
    can_hide = True

    def __init__(self, on_start: TaskStarts) -> None:
        self._on_start = on_start

    def task_starts(self, time_limit: float) -> None:
        """Have the message's visibility extended for as long as its task may run."""
        self._on_start(time_limit)

    def is_ending(self) -> bool:
        """Return True once the worker is stopping."""
        return PROCESS.is_ending


def run_here(received: Received, on_start: TaskStarts = lambda time_limit: None) -> Ack | Nack:
    """Run a message in this thread, between Django's signals for the start and end of a request.

    A child sends them itself, so its parent does so only for a connection of its own.
    """
    config = get_config()
    run = Run(delivery_of(received), config, PollerConsumer(on_start))
    runs_here = config.isolation == "thread"
    if runs_here or are_open():
        request_started.send_robust(sender=run_here)
    try:
        result = pipeline.run_delivery(run)
    finally:
        if runs_here or are_open():
            end_request(run_here)
    if result.settle is Settle.DELETE:
        return Ack(is_failure=result.is_failure)
    return Nack(result.retry_after if result.settle is Settle.HIDE else None)
