"""read: decode the body."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from beanstalk_dispatch.conf.variables import MAX_AGE, PERIODIC_TASKS
from beanstalk_dispatch.exceptions import BadSignature, MessageError, NotAllowed
from beanstalk_dispatch.messages.cron import occurrence_id
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.run import Run

_MAX_CLOCK_DIFFERENCE: Final = 60.0
"""The seconds by which a periodic task may be sent before it is due."""


def read(run: Run) -> None:
    """Set ``run.message``, or ``run.exception`` for ``accept``, which observers see happen."""
    try:
        run.message = decode(run)
        if run.config.max_age is not None and not run.delivery.is_periodic:
            _check_age(run.message, run.config.max_age)
    except MessageError as exc:
        run.exception = exc


def _check_age(message: Message, limit: timedelta) -> None:
    """Raise BadSignature if the message is too old, or does not say when it was sent."""
    if message.sent_at is None:
        raise BadSignature(
            f"the message does not say when it was sent, and {MAX_AGE.variable} is set"
        )
    age = time.time() - max(message.sent_at, message.not_before or 0)
    if age > limit.total_seconds():
        raise BadSignature(f"too old: sent {age:.0f} s ago; {MAX_AGE.variable} is {limit}")


def decode(run: Run) -> Message:
    """Return the message of the delivery, verified and decoded.

    Raise a MessageError if it is not one.
    """
    delivery, config = run.delivery, run.config
    if delivery.is_periodic:
        return _periodic_message(run)
    keys = config.signing_keys
    return Message.decode(
        delivery.body,
        queue=delivery.queue,
        keys=keys,
        default_id=delivery.message_id,
        location=(delivery.location or config.location_of(delivery.queue)) if keys else None,
    )


def _periodic_message(run: Run) -> Message:
    """Return the message of a periodic task of cron.yaml, which no key can sign."""
    name = str(run.delivery.task_name)
    if name not in run.config.periodic_tasks:
        raise NotAllowed(f"periodic task {name!r} is not in {PERIODIC_TASKS.variable}")
    task_id = _occurrence_id(run.delivery, name) or run.delivery.message_id
    return Message(function=name) if task_id is None else Message(function=name, id=task_id)


def _occurrence_id(delivery: Delivery, name: str) -> str | None:
    """Return the id of the occurrence; None without a time, or if it is in the future.

    Nobody has signed the time. The id of a later occurrence would let a forged message run today
    and make that occurrence a duplicate.
    """
    due_at, sent_at = delivery.scheduled_at, delivery.sent_at or time.time()
    if due_at is None or due_at > sent_at + _MAX_CLOCK_DIFFERENCE:
        return None
    return occurrence_id(delivery.queue, name, due_at)
