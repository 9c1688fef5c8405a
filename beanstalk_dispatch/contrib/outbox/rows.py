"""The conversion of a call into a row of the outbox, and of a row into a message to send."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

from beanstalk_dispatch.exceptions import MalformedMessage
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.message import now as message_time
from beanstalk_dispatch.messages.signatures import strip_signature
from beanstalk_dispatch.scheduling.destination import Destination
from beanstalk_dispatch.scheduling.prepare import Prepared
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS

from .models import OutboxMessage

AT_ONCE: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""The ``available_at`` of a row that is available at once, at any time of this machine's clock."""
NEAR: Final = timedelta(seconds=MAX_DELAY_SECONDS)
"""The time before a message is due in which SQS can keep it."""


def to_row(destination: Destination, prepared: Prepared) -> OutboxMessage:
    """Make the row for a checked call. It is not saved."""
    message, parameters = prepared.message, dict(prepared.send_parameters)
    delay = parameters.pop("DelaySeconds", 0)
    body = strip_signature(prepared.body)
    if destination.is_base64:
        body = message.encode(queue=destination.address.name)
    keeps_order = destination.is_fifo
    return OutboxMessage(
        task_id=message.id,
        function=message.function,
        queue=destination.name,
        fifo_group=parameters["MessageGroupId"] if keeps_order else "",
        body=body,
        parameters=json.dumps(parameters),
        due_at=_due_at(message, delay),
        available_at=in_settings_zone(_available_at(message)),
    )


def _due_at(message: Message, delay: int) -> datetime | None:
    if message.not_before is not None:
        return in_settings_zone(datetime.fromtimestamp(message.not_before, UTC))
    return timezone.now() + timedelta(seconds=delay) if delay else None


def _available_at(message: Message) -> datetime:
    """Return the time from which on SQS can keep the message until it is due.

    It is a full minute, so that messages which are due in the same minute are sent in tens.
    """
    if message.not_before is None:
        return AT_ONCE
    minutes = math.ceil((message.not_before - MAX_DELAY_SECONDS) / 60)
    return datetime.fromtimestamp(minutes * 60, UTC)


def in_settings_zone(moment: datetime) -> datetime:
    """Return a time as Django has it: naive and in its own time zone, if USE_TZ is False."""
    return moment if settings.USE_TZ else timezone.make_naive(moment)


def to_prepared(row: OutboxMessage, destination: Destination, *, now: datetime) -> Prepared:
    """Prepare the message of a row, signed with the key of today and as old as its signature.

    ``now`` is the time of the database. Raise MalformedMessage if the row was changed, or
    MessageTooLarge.
    """
    message = Message.decode(row.body, queue=destination.address.name)
    if (message.id, message.function) != (row.task_id, row.function):
        raise MalformedMessage("the row was changed: its body has another id or function")
    if destination.config.max_age:
        message = replace(message, sent_at=message_time())
    parameters = json.loads(row.parameters)
    if delay := _remaining_delay(row.due_at, now):
        parameters["DelaySeconds"] = delay
    text = message.write(legacy=destination.is_base64)
    return Prepared(message, text, destination.seal(message, text), parameters)


def _remaining_delay(due_at: datetime | None, now: datetime) -> int:
    """Return the rest of a delay in seconds, as many as SQS takes.

    A worker waits for the others.
    """
    if due_at is None:
        return 0
    seconds = math.ceil((due_at - now).total_seconds())
    return min(max(seconds, 0), MAX_DELAY_SECONDS)
