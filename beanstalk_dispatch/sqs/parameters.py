"""The parameters of SendMessage, checked before any request is made."""

from __future__ import annotations

from typing import Any

from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.exceptions import InvalidCall, MessageTooLarge

from .quotas import MAX_DEDUPLICATION_ID_LENGTH, MAX_GROUP_ID_LENGTH, MAX_MESSAGE_BYTES


def send_parameters(
    address: QueueAddress,
    *,
    delay: int = 0,
    group_id: str | None = None,
    deduplication_id: str | None = None,
    message_id: str | None = None,
) -> dict[str, Any]:
    """Return SendMessage's parameters besides the queue's URL and the body.

    ``delay`` is in whole seconds, up to MAX_DELAY_SECONDS. On a FIFO queue ``message_id`` is the
    deduplication id if no other is given. Raise InvalidCall if the queue does not take a parameter.
    """
    is_fifo = address.is_fifo
    parameters: dict[str, Any] = {}
    if delay:
        parameters["DelaySeconds"] = delay
    if group_id is not None:
        _check_id("group_id", group_id, MAX_GROUP_ID_LENGTH)
        parameters["MessageGroupId"] = group_id
    if deduplication_id is not None:
        _check_id("deduplication_id", deduplication_id, MAX_DEDUPLICATION_ID_LENGTH)
        parameters["MessageDeduplicationId"] = deduplication_id
    if delay and is_fifo:
        raise InvalidCall(
            f"{address.name} is a FIFO queue, which takes no delay per message; set a "
            "delay on the queue instead"
        )
    if group_id is None and is_fifo:
        raise InvalidCall(f"{address.name} is a FIFO queue; give the call a group_id")
    if is_fifo:
        parameters.setdefault("MessageDeduplicationId", message_id)
    elif deduplication_id is not None:
        raise InvalidCall(f"{address.name} is not a FIFO queue; it takes no deduplication_id")
    return parameters


def check_size(body: str, *, function: str) -> None:
    """Raise MessageTooLarge if the ASCII string ``body`` is above SQS's limit."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"{function}: the message has {len(body):,} bytes, SQS takes at most "
            f"{MAX_MESSAGE_BYTES:,}; store the data elsewhere and pass its key"
        )


def _check_id(name: str, value: str, max_length: int) -> None:
    if not (isinstance(value, str) and 0 < len(value) <= max_length) or not (
        value.isascii() and value.isprintable() and " " not in value
    ):
        raise InvalidCall(
            f"{name} {value!r}: expected 1 to {max_length} ASCII letters, digits and punctuation "
            "marks"
        )
