"""The rules of FIFO queues that differ from those of standard queues.

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
    """True if a message may have a delay of its own. On a FIFO queue only the queue has one.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    """

    needs_group_id: bool
    """True if a message without a MessageGroupId is refused."""

    takes_deduplication_id: bool
    """True if a MessageDeduplicationId is accepted. On a standard queue it is refused."""

    keeps_order: bool
    """True if messages of one group arrive in the order in which they were sent.

    So after a message that was not sent, no later one may be sent. While a message of a group is in
    flight, SQS delivers no other message of that group.
    """

    @property
    def retries_by_visibility(self) -> bool:
        """Return True if a retry hides the received message.

        No delayed copy can be sent then.
        """
        return not self.takes_delay


STANDARD: Final = QueueRules(
    takes_delay=True, needs_group_id=False, takes_deduplication_id=False, keeps_order=False
)
FIFO: Final = QueueRules(
    takes_delay=False, needs_group_id=True, takes_deduplication_id=True, keeps_order=True
)


def queue_rules(queue_name: str) -> QueueRules:
    """Return the rules of the queue whose own name is ``queue_name``; SQS requires the suffix."""
    return FIFO if queue_name.endswith(FIFO_SUFFIX) else STANDARD
