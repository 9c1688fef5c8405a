"""An operator's questions about a queue: its attributes and its source queues.

Elastic Beanstalk's roles do not allow them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.exceptions import SendError

from .queue import Queue, redrive_policy

_ATTRIBUTES: Final = (
    "QueueArn", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed", "VisibilityTimeout", "MessageRetentionPeriod",
    "RedrivePolicy",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAttributes:
    """The attributes of a queue in an answer to GetQueueAttributes.

    SQS calls its counts approximate.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
    """

    arn: str
    visible: int
    """The number of messages that a receive can get now."""
    in_flight: int
    """The number of messages that were received and are hidden."""
    delayed: int
    """The number of messages whose delay is not over."""
    visibility_timeout: int
    """The seconds for which a receive hides a message, if the consumer does not say otherwise."""
    retention: int
    """The seconds after which SQS deletes a message."""
    dead_letter_queue: str | None
    """The own name of the dead-letter queue of the redrive policy, if there is one."""
    max_receives: int | None
    """The number of receives after which SQS moves a message to the dead-letter queue."""

    @property
    def total(self) -> int:
        """Return the number of messages in all, approximately."""
        return self.visible + self.in_flight + self.delayed


def get_attributes(queue: Queue) -> QueueAttributes:
    """Return the attributes of a queue, which SQS is asked for. Raise SendError if that fails.

    An answer without counts is an error, and not an empty queue: a fleet would be ended for it.
    """
    answer = queue.request(
        "get_queue_attributes", QueueUrl=queue.url, AttributeNames=list(_ATTRIBUTES)
    )
    try:
        return _attributes_of(answer)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        reason = f"{type(exc).__name__}: {exc}"
        raise SendError(
            f"GetQueueAttributes on {queue.name}: not an answer of SQS: {reason}"
        ) from exc


def _attributes_of(answer: Mapping[str, Any]) -> QueueAttributes:
    found = answer["Attributes"]
    target, max_receives = redrive_policy(found.get("RedrivePolicy"))
    return QueueAttributes(
        arn=found.get("QueueArn", ""),
        visible=int(found["ApproximateNumberOfMessages"]),
        in_flight=int(found["ApproximateNumberOfMessagesNotVisible"]),
        delayed=int(found["ApproximateNumberOfMessagesDelayed"]),
        visibility_timeout=int(found.get("VisibilityTimeout", 0)),
        retention=int(found.get("MessageRetentionPeriod", 0)),
        dead_letter_queue=target.rpartition(":")[2] if target else None,
        max_receives=max_receives,
    )


def source_queue_names(queue: Queue) -> list[str]:
    """Return the own names of the queues whose redrive policy names ``queue``, or raise SendError.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListDeadLetterSourceQueues.html
    """
    names: list[str] = []
    page: dict[str, str] = {}
    while True:
        answer = queue.request("list_dead_letter_source_queues", QueueUrl=queue.url, **page)
        names += [QueueAddress.parse(url).name for url in answer.get("queueUrls", ())]
        if not answer.get("NextToken"):
            return names
        page = {"NextToken": answer["NextToken"]}
