"""A queue with a dead-letter queue on a real server, and dead letters of both kinds on it."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.dead_letters.queue import DeadLetterQueue
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.sqs.administration import get_attributes
from beanstalk_dispatch.sqs.opening import open_beside, open_queue
from beanstalk_dispatch.sqs.queue import Queue
from tests.batches import Entry
from tests.proxy import Answer, error

KEY: Final = "a-key-of-the-tests"


class Dead:
    """The dead-letter queue of ``jobs``; messages are sent to it as SQS or a worker would."""

    def __init__(self, name: str) -> None:
        self.source_name = name
        self.name = f"{name}-dead-letter"

    @property
    def source(self) -> Queue:
        return open_queue("jobs")

    @property
    def queue(self) -> Queue:
        return open_beside(self.source, self.name)

    def open(self) -> DeadLetterQueue:
        return DeadLetterQueue.open(self.name)

    def body(self, function: str = "record", number: int = 0, **members: Any) -> str:
        message = Message(function=function, args=[number], **members)
        return message.encode(queue=self.source_name, keys=get_config().signing_keys)

    def moved(self, function: str = "record", number: int = 0, **members: Any) -> None:
        """A dead letter as SQS moves it: the message itself, with its attributes."""
        attribute = {"tenant": {"DataType": "String", "StringValue": "customer-12"}}
        self.queue.send(self.body(function, number, **members), {"MessageAttributes": attribute})

    def sent(self, function: str = "fail", number: int = 0, **reason: Any) -> None:
        """A dead letter as this package sends it."""
        self.queue.send(self.dead_letter(function, number, **reason), {})

    def sent_many(self, count: int, function: str = "fail") -> None:
        dead_letters = [self.dead_letter(function, number) for number in range(count)]
        self.queue.send_batch([Entry(body=each, send_parameters={}) for each in dead_letters])

    def dead_letter(self, function: str = "fail", number: int = 0, **reason: Any) -> str:
        task_id = f"{function}-{number}"
        whole = {
            "outcome": "failed",
            "exception": "ValueError: the reason",
            "traceback": "Traceback (most recent call last):\nValueError: the reason",
            "attempts": 3,
            "receive_count": 1,
            "id": task_id,
            "function": function,
            "queue": self.source_name,
            "at": time.time() - 60,
        } | reason
        body = self.body(function, number, id=task_id, attempt=3)
        keys = get_config().signing_keys
        return wrap(body, whole, queue=self.source_name, keys=keys)

    def ids(self, queue: Queue | None = None) -> list[str]:
        """The task ids on a queue, on the dead-letter queue by default; they stay visible."""
        found = []
        for each in receive_all(queue or self.queue):
            keys = get_config().signing_keys
            message = Message.decode(
                each.body, queue=self.source_name, keys=keys, default_id=each.message_id
            )
            found.append(message.id)
        return sorted(found)


def receive_all(queue: Queue) -> list[Any]:
    """Everything that is visible, which is visible again then."""
    received: list[Any] = []
    while batch := queue.receive(count=10, wait=0, visibility=60):
        received += batch
    for first in range(0, len(received), 10):
        batch = received[first : first + 10]
        queue.change_visibility_batch(batch, [0] * len(batch))
    return received


def failing(operation: str, *, after: int = 0, times: int = 10**6, status: int = 500) -> Any:
    """Let some requests of one operation fail."""
    code = "AccessDenied" if status == 403 else "InternalError"
    count = 0

    def spoil(name: str, request: dict[str, Any]) -> Answer | None:
        nonlocal count
        if name != operation:
            return None
        count += 1
        return error(status, code) if after < count <= after + times else None

    return spoil


def set_redrive_policy(queue: Queue, target: Queue) -> None:
    policy = {"deadLetterTargetArn": get_attributes(target).arn, "maxReceiveCount": "5"}
    queue.client.set_queue_attributes(
        QueueUrl=queue.url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )
