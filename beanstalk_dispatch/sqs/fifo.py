"""What a FIFO queue allows where a standard queue allows something else.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.conf.queue_address import FIFO_SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """The rules of one type of queue."""

    takes_delay: bool
    """A message may have a delay of its own. On a FIFO queue only the queue has one.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """

    needs_group_id: bool
    """A message without a MessageGroupId is refused."""

    takes_deduplication_id: bool
    """A MessageDeduplicationId is accepted. On a standard queue it is refused."""

    keeps_order: bool
    """Messages of one group arrive in the order in which they were sent.

    So after a message that was not sent, no later one may be sent; and while a message of a group
    is in flight, SQS delivers no other message of that group.
    """

    @property
    def retries_by_visibility(self) -> bool:
        """A retry hides the message that was received, because no delayed copy can be sent."""
        return not self.takes_delay


STANDARD: Final = QueueRules(
    takes_delay=True, needs_group_id=False, takes_deduplication_id=False, keeps_order=False
)
FIFO: Final = QueueRules(
    takes_delay=False, needs_group_id=True, takes_deduplication_id=True, keeps_order=True
)


def queue_rules(queue_name: str) -> QueueRules:
    """The rules of the queue whose own name is ``queue_name``; SQS requires the suffix."""
    return FIFO if queue_name.endswith(FIFO_SUFFIX) else STANDARD
