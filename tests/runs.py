"""Runs of single deliveries, without a queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Result
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.consumer import NOBODY, DelayedCopies
from beanstalk_dispatch.running.left_behind.threads import LEFT
from beanstalk_dispatch.running.run import Consumer, Run
from beanstalk_dispatch.running.stages.attempt import attempt as attempt_stage
from beanstalk_dispatch.safe_task import SafeTask

DELAYED_COPIES = DelayedCopies()


def deliver(body: bytes | str, delivery: Delivery, consumer: Consumer = DELAYED_COPIES) -> Result:
    """Run a body that was delivered, and return what came of it."""
    return deliver_and_keep(body, delivery, consumer)[1]


def deliver_and_keep(
    body: bytes | str, delivery: Delivery, consumer: Consumer = DELAYED_COPIES
) -> tuple[Run, Result]:
    """Return the run, too."""
    run = Run(replace(delivery, body=body), get_config(), consumer)
    return run, pipeline.run_delivery(run)


def run_of(message: Message | None = None, **facts: Any) -> Run:
    """Return the run of a message that is being delivered."""
    run = Run(Delivery(**facts), get_config(), NOBODY)
    run.message = message
    return run


def attempt(task: SafeTask, *args: Any, number: int = 1, **kwargs: Any) -> Run:
    """Start a task once, as its attempt of this number, and return the run."""
    message = Message(function="f", id="1", args=args, kwargs=kwargs, attempt=number)
    run = run_of(message, queue="q")
    run.task, run.hooked = task, (task,)
    task.delivery = run
    copy_context().run(attempt_stage, run)
    return run


@contextmanager
def noted(message: Message) -> Iterator[None]:
    """In the block a task runs, as far as the threads that it starts are concerned."""
    starter = LEFT.begin(message)
    try:
        yield
    finally:
        LEFT.end(starter)
