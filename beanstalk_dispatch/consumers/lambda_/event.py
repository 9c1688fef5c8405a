"""The event of SQS for a Lambda function: its records, each of which is one receive of one message.

https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html#example-standard-queue-message-event
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.consumers.endpoint.sqsd import delivery_from_attributes
from beanstalk_dispatch.messages.delivery import Delivery

Record = Mapping[str, Any]

_OTHER_EVENT: Final = "this is not an event of an SQS event source mapping"
_REQUIRED: Final = ("messageId", "body", "eventSourceARN")


def records_of(event: Any) -> Sequence[Record]:
    """Return the records of an event. Raise ValueError if it is not an event of SQS.

    Each record is checked before a task runs: an error in the middle of a batch would have the
    messages before it delivered again, although they are done.
    """
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not all(map(_is_of_sqs, records)):
        raise ValueError(
            f"{_OTHER_EVENT}; expected Records with the eventSource aws:sqs and with "
            f"{', '.join(_REQUIRED)}"
        )
    for record in records:
        delivery_of(record, deadline=0.0)
    return records


def _is_of_sqs(record: Any) -> bool:
    return (
        isinstance(record, Mapping)
        and record.get("eventSource") == "aws:sqs"
        and all(isinstance(record.get(name), str) for name in _REQUIRED)
    )


def delivery_of(record: Record, *, deadline: float) -> Delivery:
    """Return the delivery that a record reports. ``deadline`` is on the package's monotonic clock.

    Raise ValueError if its attributes are not those of SQS.
    """
    try:
        address = QueueAddress.parse(record["eventSourceARN"])
        sent = record.get("messageAttributes", {})
        return delivery_from_attributes(
            record["body"],
            record.get("attributes", {}),
            {name: each.get("stringValue") for name, each in sent.items()},
            queue=address.name,
            location=address.location,
            message_id=record["messageId"],
            deadline=deadline,
        )
    except (AttributeError, TypeError, ValueError) as exc:
        raise ValueError(f"{_OTHER_EVENT}: message {record['messageId']!r}: {exc}") from exc


def queue_name(record: Record) -> str:
    """Return the name of the queue that a record comes from."""
    return QueueAddress.parse(record["eventSourceARN"]).name
