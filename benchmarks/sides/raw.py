"""The baseline of a producer: boto3's client, called by hand."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import boto3

from .tasks import ENDPOINT, KEY, QUEUE, REGION, SECRET

DISTRIBUTIONS = ["boto3", "botocore"]


def body(number: int, task: str = "noop") -> str:
    """A message with the members that this package's own has."""
    content = {
        "v": 1, "id": str(uuid.uuid4()), "function": task, "args": [number, "two"],
        "kwargs": {"x": 3}, "sent_at": round(time.time(), 3),
    }  # fmt: skip
    return json.dumps(content, separators=(",", ":"))


def in_threads(count: int, threads: int, work: Callable[[int], object]) -> None:
    """Call ``work`` with a share of ``count`` in each of that number of threads."""
    started = [threading.Thread(target=work, args=(count // threads,)) for _ in range(threads)]
    for each in started:
        each.start()
    for each in started:
        each.join()


def operations() -> dict[str, Callable[..., Any]]:
    client = boto3.client(
        "sqs", endpoint_url=ENDPOINT, region_name=REGION,
        aws_access_key_id=KEY, aws_secret_access_key=SECRET,
    )  # fmt: skip
    url = f"{ENDPOINT}/000000000000/{QUEUE}"

    def one(count: int) -> None:
        for number in range(count):
            client.send_message(QueueUrl=url, MessageBody=body(number))

    def large(count: int) -> None:
        for number in range(count):
            client.send_message(QueueUrl=url, MessageBody=body(number, "n" * 10_000))

    def many(count: int, task: str = "noop") -> None:
        for start in range(0, count, 10):
            numbers = range(start, min(start + 10, count))
            entries: list[Any] = [{"Id": str(n), "MessageBody": body(n, task)} for n in numbers]
            client.send_message_batch(QueueUrl=url, Entries=entries)

    def threads(count: int) -> None:
        in_threads(count, 32, one)

    return {"one": one, "many": many, "large": large, "threads": threads}
