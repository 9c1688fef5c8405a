"""The consumers that others inherit from: one that sends nothing, and one that sends copies."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.opening import open_queue_by_own_name
from beanstalk_dispatch.sqs.parameters import check_size, send_parameters
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS

from .run import Children


class Nobody:
    """The consumer of a task that a project runs by itself: nothing is sent for it."""

    children: Children | None = None
    can_hide = False

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        """Do nothing: such a task has no message."""

    def task_starts(self, time_limit: float) -> None:
        """Do nothing: nobody hides the message, so there is no visibility to extend."""

    def is_ending(self) -> bool:
        """Return False: nobody says that the process ends."""
        return False


NOBODY = Nobody()


class DelayedCopies(Nobody):
    """A consumer that can only acknowledge, such as the endpoint. A retry is a delayed copy."""

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        """Send a delayed copy to the queue that the delivery came from.

        Beyond SQS's 15 minutes the copy carries ``not_before`` and is sent again when it arrives.
        """
        config = get_config()
        target = open_queue_by_own_name(delivery.queue)
        if delay > MAX_DELAY_SECONDS:
            message = replace(message, not_before=round(time.time() + delay, 3))
        body = message.encode(
            queue=target.name,
            keys=config.signing_keys,
            legacy=config.sends_base64,
            is_copy=True,
            location=target.location,
        )
        check_size(body, function=message.function)
        seconds = min(math.ceil(delay), MAX_DELAY_SECONDS)
        group_id = None if target.is_fifo else delivery.group_id
        target.send(body, send_parameters(target.address, delay=seconds, group_id=group_id))
