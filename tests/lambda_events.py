"""Events as Lambda's event source mapping makes them of messages of SQS."""

from __future__ import annotations

import itertools
import time
from typing import Any, Final

from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.queue import Received

_numbers: Final = itertools.count()


class Context:
    """Lambda's context object, of which an invocation has so many seconds left."""

    def __init__(self, seconds: float = 60) -> None:
        self._ends_at = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(max(self._ends_at - time.monotonic(), 0) * 1000)


def record(
    body: str, *, queue: str = "jobs", message_id: str | None = None, receive_count: int = 1,
    group: str | None = None, **attributes: str,
) -> dict[str, Any]:  # fmt: skip
    """One record. ``attributes`` are the sender's, with their dots as underscores."""
    now = str(int(time.time() * 1000))
    return {
        "messageId": message_id or f"sqs-{next(_numbers)}",
        "receiptHandle": "handle",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": str(receive_count),
            "SentTimestamp": now,
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": now,
        } | ({"MessageGroupId": group} if group else {}),
        "messageAttributes": {
            name.replace("_", ".", 2): {"stringValue": value, "dataType": "String"}
            for name, value in attributes.items()
        },
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:eu-west-1:123456789012:{queue}",
        "awsRegion": "eu-west-1",
    }  # fmt: skip


def task(function: str, *args: Any, queue: str = "jobs", group: str | None = None,
         **members: Any) -> dict[str, Any]:  # fmt: skip
    """The record of a message of ours."""
    message = Message(function=function, args=args, **members)
    return record(message.encode(queue=queue), queue=queue, group=group)


def record_of(received: Received) -> dict[str, Any]:
    """The record of a message that was received from SQS."""
    made = record(
        received.body, queue=received.queue.name, message_id=received.message_id,
        receive_count=received.receive_count,
    )  # fmt: skip
    made["attributes"] |= received.attributes
    return made


def event(*records: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(records)}
