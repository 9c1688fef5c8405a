"""The conversion of a call into a row of the outbox, and of a row into a message to send."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import MalformedMessage
from beanstalk_dispatch.messages.message import Message, strip_signature
from beanstalk_dispatch.messages.message import now as message_time
from beanstalk_dispatch.scheduling import send
from beanstalk_dispatch.scheduling.send import Prepared
from beanstalk_dispatch.sqs.fifo import queue_rules
from beanstalk_dispatch.sqs.opening import resolve_address
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS

from .models import OutboxMessage

AT_ONCE: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""The ``available_at`` of a row that is available at once, at any time of this machine's clock."""


def to_row(queue: str, prepared: Prepared, config: Config) -> OutboxMessage:
    """Return the row for a checked call. It is not saved."""
    message, parameters = prepared.message, dict(prepared.send_parameters)
    name = resolve_address(queue, config).name
    delay = parameters.pop("DelaySeconds", 0)
    keeps_order = queue_rules(name).keeps_order
    return OutboxMessage(
        task_id=message.id,
        function=message.function,
        queue=queue,
        fifo_group=parameters["MessageGroupId"] if keeps_order else "",
        body=message.encode(queue=name) if config.sends_base64 else strip_signature(prepared.body),
        parameters=json.dumps(parameters),
        due_at=_due_at(message, delay),
        available_at=_in_settings_zone(AT_ONCE),
    )


def _due_at(message: Message, delay: int) -> datetime | None:
    if message.not_before is not None:
        return _in_settings_zone(datetime.fromtimestamp(message.not_before, UTC))
    return timezone.now() + timedelta(seconds=delay) if delay else None


def _in_settings_zone(moment: datetime) -> datetime:
    return moment if settings.USE_TZ else timezone.make_naive(moment)


def to_prepared(row: OutboxMessage, config: Config, *, now: datetime) -> Prepared:
    """Return the message that SQS gets for a row, signed today and as old as its signature.

    ``now`` is the time of the database. Raise UnknownQueue if the queue is not known,
    MalformedMessage if the row was changed, and MessageTooLarge if SQS would not take it.
    """
    address = resolve_address(row.queue, config)
    message = Message.decode(row.body, queue=address.name)
    if (message.id, message.function) != (row.task_id, row.function):
        raise MalformedMessage("the row was changed: its body has another id or function")
    if config.max_age:
        message = replace(message, sent_at=message_time())
    parameters = json.loads(row.parameters)
    if delay := _remaining_delay(row.due_at, now):
        parameters["DelaySeconds"] = delay
    return Prepared(message, send.encode(message, address, config), parameters)


def _remaining_delay(due_at: datetime | None, now: datetime) -> int:
    """Return the rest of a delay in seconds, as many as SQS takes.

    A worker waits for the others.
    """
    if due_at is None:
        return 0
    seconds = math.ceil((due_at - now).total_seconds())
    return min(max(seconds, 0), MAX_DELAY_SECONDS)
