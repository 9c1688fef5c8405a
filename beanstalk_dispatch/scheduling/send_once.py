"""Sends calls, without those whose key the message of another one holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.messages import unique_key

from .destination import Destination
from .prepare import Prepared
from .send import Send, SendResult

logger = logging.getLogger("beanstalk_dispatch.scheduling")


def send_once(
    destination: Destination, prepared: Sequence[Prepared], send: Send
) -> list[SendResult]:
    """Send calls as ``send`` does. A call whose key another message holds gets the id of that."""
    if destination.is_local or not [each for each in prepared if each.message.unique]:
        return send(destination, prepared)
    holders = [_holder(destination, each) for each in prepared]
    calls = [each for each, holder in zip(prepared, holders, strict=True) if holder is None]
    sent: list[SendResult] = []
    try:
        sent = send(destination, calls) if calls else []
    finally:
        _settle(destination, calls, sent)
    in_order = iter(sent)
    return [next(in_order) if holder is None else holder for holder in holders]


def _holder(destination: Destination, call: Prepared) -> str | None:
    """Return the id of the task that holds the call's key; None if the call is to be sent."""
    message = call.message
    holder = unique_key.claim(message, destination.config) if message.unique else None
    if holder is not None:
        logger.info(
            "not sent, because its key is held id=%s function=%s holder=%s",
            message.id, quoted(message.function), quoted(holder),
        )  # fmt: skip
    return holder


def _settle(
    destination: Destination, calls: Sequence[Prepared], sent: Sequence[SendResult]
) -> None:
    """Keep the keys of the calls that were sent, and free the others."""
    is_sent = [isinstance(each, str) for each in sent] or [False] * len(calls)
    for call, is_kept in zip(calls, is_sent, strict=True):
        if call.message.unique:
            settle = unique_key.confirm if is_kept else unique_key.free
            settle(call.message, destination.config)
