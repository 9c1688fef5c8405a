"""Celery on SQS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery

from . import tasks

DISTRIBUTIONS = ["celery", "kombu", "botocore"]

app = Celery(
    "benchmark", broker=tasks.ENDPOINT.replace("http://", f"sqs://{tasks.KEY}:{tasks.SECRET}@")
)
app.conf.update(
    broker_transport_options={
        "region": tasks.REGION, "is_secure": False,
        "predefined_queues": {
            tasks.QUEUE: {
                "url": tasks.URL, "access_key_id": tasks.KEY, "secret_access_key": tasks.SECRET,
            },
        },
    },
    task_default_queue=tasks.QUEUE, task_ignore_result=True, worker_hijack_root_logger=False,
    worker_enable_remote_control=False, broker_connection_retry_on_startup=True,
)  # fmt: skip
registered = {
    name: app.task(function, name=name, ignore_result=True)
    for name, function in tasks.TASKS.items()
}


def operations() -> dict[str, Callable[..., Any]]:
    def one(count: int, task: str = "noop") -> None:
        send = registered[task].delay
        for number in range(count):
            send(number, "two", x=3)

    return {"one": one, "many": one}
