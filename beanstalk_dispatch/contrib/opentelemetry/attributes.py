"""The attributes of spans and metrics.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import OUTCOMES
from beanstalk_dispatch.running.declared_tasks import is_listed

ERROR_TYPE: Final = "error.type"
FUNCTION: Final = "beanstalk_dispatch.function"
OUTCOME: Final = "beanstalk_dispatch.outcome"

Attributes = dict[str, str | int]


def of_operation(operation: str, queue: str) -> Attributes:
    """Return the attributes of every span and every metric."""
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
    """Return the attributes of the process span of a delivery."""
    attributes = of_operation("process", delivery.queue)
    if delivery.message is not None:
        attributes |= of_message(delivery.message)
    if delivery.message_id is not None:
        attributes["beanstalk_dispatch.message_id"] = delivery.message_id
    attributes["beanstalk_dispatch.receive_count"] = delivery.receive_count
    attributes["messaging.message.body.size"] = len(delivery.body)
    return attributes


def of_outcome(delivery: RunView) -> Attributes:
    """Return the outcome of a delivery, with the type of its error if it is a failure."""
    outcome = delivery.outcome
    if outcome is None:  # an exception for the process, such as Ctrl-C
        return {}
    attributes: Attributes = {OUTCOME: outcome.value}
    if OUTCOMES[outcome].is_failure:
        error = delivery.exception
        attributes[ERROR_TYPE] = outcome.value if error is None else type(error).__qualname__
    return attributes


def of_listed_function(delivery: RunView) -> Attributes:
    """Return the function of a delivery if it is listed, so that metrics have few labels."""
    message = delivery.message
    if message is None or not is_listed(message.function, get_config()):
        return {}
    return {FUNCTION: message.function}
