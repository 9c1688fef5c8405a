"""taskiq on SQS, with taskiq-aio-sqs: a producer that is asynchronous throughout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from taskiq_aio_sqs import SQSBroker

from . import tasks

DISTRIBUTIONS = ["taskiq", "taskiq-aio-sqs", "aiobotocore", "botocore"]

broker = SQSBroker(
    tasks.QUEUE, endpoint_url=tasks.ENDPOINT, region_name=tasks.REGION,
    aws_access_key_id=tasks.KEY, aws_secret_access_key=tasks.SECRET,
    max_number_of_messages=10,
)  # fmt: skip
registered = {
    name: broker.register_task(function, task_name=name) for name, function in tasks.TASKS.items()
}


def operations() -> dict[str, Callable[..., Any]]:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(broker.startup())

    async def each(count: int, task: str = "noop") -> None:
        for number in range(count):
            await registered[task].kiq(number, "two", x=3)

    async def together(count: int) -> None:
        await asyncio.gather(*(registered["noop"].kiq(n, "two", x=3) for n in range(count)))

    def one(count: int, task: str = "noop") -> None:
        loop.run_until_complete(each(count, task))

    def gather(count: int) -> None:
        loop.run_until_complete(together(count))

    return {"one": one, "many": one, "gather": gather}
