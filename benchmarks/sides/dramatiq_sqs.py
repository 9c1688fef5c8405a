"""dramatiq on SQS, with dramatiq-sqs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
from dramatiq.middleware import AgeLimit, Callbacks, Pipelines, Retries, ShutdownNotifications
from dramatiq_sqs import SQSBroker

from . import tasks

DISTRIBUTIONS = ["dramatiq", "dramatiq-sqs", "botocore"]

broker = SQSBroker(
    endpoint_url=tasks.ENDPOINT, region_name=tasks.REGION,
    aws_access_key_id=tasks.KEY, aws_secret_access_key=tasks.SECRET,
    middleware=[AgeLimit(), ShutdownNotifications(), Callbacks(), Pipelines(), Retries()],
)  # fmt: skip
dramatiq.set_broker(broker)
actors = {
    name: dramatiq.actor(function, queue_name=tasks.QUEUE) for name, function in tasks.TASKS.items()
}


def operations() -> dict[str, Callable[..., Any]]:
    def one(count: int, task: str = "noop") -> None:
        send = actors[task].send
        for number in range(count):
            send(number, "two", x=3)

    return {"one": one, "many": one}
