"""The attributes of spans and metrics.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import OUTCOMES
from beanstalk_dispatch.running.definitions.declared_tasks import is_listed

ERROR_TYPE: Final = "error.type"
FUNCTION: Final = "beanstalk_dispatch.function"
OUTCOME: Final = "beanstalk_dispatch.outcome"

Attributes = Mapping[str, str | int]


@functools.lru_cache(maxsize=256)
def of_operation(operation: str, queue: str) -> Attributes:
    """Return the attributes of every span and every metric, from which a sampler may choose."""
    return {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": queue,
    }


def of_message(message: Message) -> Attributes:
    """Return the attributes of a span of one message, which has the id of its task."""
    return {
        "messaging.message.id": message.id,
        FUNCTION: message.function,
        "beanstalk_dispatch.attempt": message.attempt,
    }


def of_delivery(delivery: RunView) -> Attributes:
    """Return the attributes of the process span of a delivery, without those of its operation."""
    facts, message = delivery.delivery, delivery.message
    attributes: dict[str, str | int] = {
        "beanstalk_dispatch.receive_count": facts.receive_count,
        "messaging.message.body.size": len(facts.body),
    }
    if facts.message_id is not None:
        attributes["beanstalk_dispatch.message_id"] = facts.message_id
    if message is not None:
        attributes |= of_message(message)
    return attributes


def of_outcome(delivery: RunView) -> Attributes:
    """Return the outcome of a delivery, with the type of its error if it is a failure."""
    outcome, error = delivery.outcome, delivery.exception
    if outcome is None:  # an exception for the process, such as Ctrl-C
        return {}
    if not OUTCOMES[outcome].is_failure:
        return {OUTCOME: outcome.value}
    return {
        OUTCOME: outcome.value,
        ERROR_TYPE: outcome.value if error is None else type(error).__qualname__,
    }


def of_metrics(delivery: RunView) -> Attributes:
    """Return the labels of a delivery's metrics. Only a listed function is one, so they are few."""
    labels = {**of_operation("process", delivery.queue), **of_outcome(delivery)}
    if delivery.message and is_listed(delivery.message.function, get_config()):
        labels[FUNCTION] = delivery.message.function
    return labels
