"""The calling process as a consumer: runs calls at once, with the stages of any other consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Result
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.consumer import Nobody
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.scheduling.destination import Destination
from beanstalk_dispatch.scheduling.prepare import Prepared
from beanstalk_dispatch.scheduling.send import SendResult


def run_here(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
    """Run calls in this process instead of sending them. Raise UnknownFunction."""
    for each in prepared:
        execute(destination, each.body)
    return [each.message.id for each in prepared]


def execute(destination: Destination, body: str) -> tuple[Run, Result]:
    """Run a body in this process. Raise UnknownFunction.

    Retries run at once, too; the run and its Result are the last ones.
    """
    address, config = destination.address, destination.config
    caller = CallingProcess(config)
    while True:
        delivery = Delivery(body=body, queue=address.name, location=address.location)
        run = Run(delivery, config, caller)
        result = pipeline.run_delivery(run)
        if isinstance(run.exception, UnknownFunction):
            raise run.exception
        if caller.next_body is None:
            return run, result
        body, caller.next_body = caller.next_body, None


class CallingProcess(Nobody):
    """The consumer of a call that runs in its caller's process: a retry runs at once."""

    def __init__(self, config: Config) -> None:
        self.next_body: str | None = None
        self._config = config

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        """Have the message run at once, without its delay."""
        message = replace(message, not_before=None)
        self.next_body = message.encode(
            queue=delivery.queue, keys=self._config.signing_keys, location=delivery.location
        )
