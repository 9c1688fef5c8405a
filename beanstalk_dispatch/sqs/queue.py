"""One SQS queue: send, receive, delete, and change visibility."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.queue_address import QueueAddress

from .clients import SEND_TIMEOUTS, SHORT_TIMEOUTS, Clients, Timeouts, long_poll_timeouts
from .errors import boto_errors, first_line, has_stale_credentials, is_missing_queue, send_error
from .fifo import QueueRules, queue_rules
from .quotas import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH_ATTEMPTS: Final = 4
"""How often an entry is sent that SQS refuses for a reason of its own."""

_MAX_ANSWER_SECONDS: Final = 2.0
"""How long the answer to a long poll is on its way at most."""

_RECEIVED_ATTRIBUTES: Final[list[Any]] = [
    "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SentTimestamp",
    "MessageGroupId",
]  # fmt: skip

_NOT_LISTED: Final[Mapping[str, Any]] = {"SenderFault": False, "Code": "missing in SQS's answer"}
"""The failure of an entry that the answer lists neither as Successful nor as Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One message of a batch to send; its size and parameters are already checked."""

    body: str = field(repr=False)
    send_parameters: Mapping[str, Any]
    """SendMessage's parameters besides the body: see ``parameters.send_parameters``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The result of a batch: each position is in exactly one of the two mappings."""

    ids: dict[int, str]
    """Position of a sent entry → its SQS message id."""
    unsent: dict[int, str]
    """Position of an entry that was not sent → the reason."""


@dataclass(slots=True, kw_only=True, eq=False)
class Received:
    """One received message."""

    queue: Queue
    message_id: str
    """SQS's id; a message that is received again keeps it."""
    receipt: str = field(repr=False)
    """The receipt handle of this receive, for deletes and visibility changes."""
    body: str = field(repr=False)
    expires: float
    """When the visibility timeout ends, in monotonic seconds."""
    attributes: Mapping[Any, str]
    """SQS's own attributes, such as ApproximateReceiveCount."""
    message_attributes: Mapping[str, str] = field(repr=False)
    """The sender's attributes of type String or Number, as strings."""
    unrun_receives: int = 0
    """How many of its earlier receives are known not to have started its task."""
    can_extend: bool = True
    """False once SQS has refused to extend the visibility."""
    deadline: float = math.inf
    """When to stop extending the visibility, in monotonic seconds."""

    @property
    def receive_count(self) -> int:
        """How often SQS has handed it out, this time included."""
        return int(self.attributes.get("ApproximateReceiveCount", "1"))

    @property
    def is_hidden(self) -> bool:
        """False once SQS may have delivered it again. Its receipt must not be used then."""
        return time.monotonic() < self.expires


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of a batch that SQS did not delete or hide."""

    message: Received
    reason: str
    is_final: bool
    """True if trying again cannot succeed."""


class Queue:
    """An open queue: its URL is known. Each of its clients is made on first use."""

    def __init__(self, address: QueueAddress, url: str, clients: Clients) -> None:
        self.address = address
        self.url = url
        self._clients = clients
        self._clients_by_timeouts: dict[Timeouts, SQSClient] = {}
        self._is_missing = False

    @property
    def name(self) -> str:
        """The queue's own name, not its alias."""
        return self.address.name

    @property
    def rules(self) -> QueueRules:
        """What this type of queue, FIFO or standard, allows."""
        return queue_rules(self.name)

    def is_usable(self, config: Config) -> bool:
        """False once the configuration has changed, or the credentials or the URL went bad."""
        clients = self._clients
        return clients.config is config and not (clients.is_retired or self._is_missing)

    @property
    def client(self) -> SQSClient:
        """The client that sends. Raises SendError if it cannot be made."""
        return self._client(SEND_TIMEOUTS)

    def _long_poll_client(self, wait: int) -> SQSClient:
        return self._client(long_poll_timeouts(wait))

    @property
    def _short_timeout_client(self) -> SQSClient:
        return self._client(SHORT_TIMEOUTS)

    def _client(self, timeouts: Timeouts) -> SQSClient:
        # Not a cached_property: on Python 3.11 its lock may be held by another thread at a fork.
        client = self._clients_by_timeouts.get(timeouts)
        if client is None:
            client = self._clients.get(self.address, timeouts)
            self._clients_by_timeouts[timeouts] = client
        return client

    def send(self, body: str, send_parameters: Mapping[str, Any]) -> str:
        """Send one message and return its SQS message id. Raises SendError.

        ``send_parameters`` come from ``parameters.send_parameters``.
        """
        try:
            return self.client.send_message(QueueUrl=self.url, MessageBody=body, **send_parameters)[
                "MessageId"
            ]
        except boto_errors() as exc:
            raise self._to_send_error("SendMessage", exc) from exc

    def send_batch(self, entries: Sequence[Entry]) -> Sent:
        """Send ``entries`` in order, in as few requests as SQS's limits allow.

        An entry that SQS refuses for a reason of its own is sent again, up to BATCH_ATTEMPTS
        times. After a request that failed as a whole no further request is made, and its entries
        count as unsent. On a FIFO queue no further request is made after an unsent entry either,
        because it would overtake that entry.
        """
        sent = Sent(ids={}, unsent={})
        reason = ""
        for positions in _chunks(entries):
            if not reason:
                try:
                    self._send_chunk(entries, positions, sent)
                except boto_errors() as exc:
                    reason = str(self._to_send_error("SendMessageBatch", exc))
            for position in positions:
                if position not in sent.ids:
                    sent.unsent.setdefault(position, reason)
            if sent.unsent and self.rules.keeps_order:
                reason = reason or "not tried, because an earlier message was not sent"
        return sent

    def _send_chunk(self, entries: Sequence[Entry], positions: Sequence[int], sent: Sent) -> None:
        pending, attempt = list(positions), 0
        while pending:
            attempt += 1
            response = self.client.send_message_batch(
                QueueUrl=self.url,
                Entries=[_batch_entry(position, entries[position]) for position in pending],
            )
            for successful in response.get("Successful", ()):
                sent.ids[int(successful["Id"])] = successful["MessageId"]
            failed = {int(each["Id"]): each for each in response.get("Failed", ())}
            pending = [position for position in pending if position not in sent.ids]
            for position in pending:
                failure: Mapping[str, Any] = failed.get(position, _NOT_LISTED)
                if failure["SenderFault"] or attempt == BATCH_ATTEMPTS:
                    sent.unsent[position] = _failure_reason(failure)
            pending = [position for position in pending if position not in sent.unsent]
            if pending:
                time.sleep(random.uniform(0, 0.1 * 2**attempt))

    def receive(self, *, count: int, wait: int, visibility: int) -> list[Received]:
        """Receive up to ``count`` messages, waiting at most ``wait`` seconds for the first.

        They stay hidden for ``visibility`` seconds. Raises SendError.
        """
        # What is received is also deleted. To make that client later, beside busy threads, is slow.
        _ = self._short_timeout_client
        started = time.monotonic()
        try:
            response = self._long_poll_client(wait).receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait,
                VisibilityTimeout=visibility,
                MessageSystemAttributeNames=_RECEIVED_ATTRIBUTES,
                MessageAttributeNames=["All"],
            )
        except Exception as exc:
            raise self._to_send_error("ReceiveMessage", exc) from exc
        # The visibility clock starts when SQS hands a message out, not when the answer arrives.
        # After a long poll that moment is unknown, but the answer's way is short.
        took = time.monotonic() - started
        received_at = max(started, time.monotonic() - min(took, _MAX_ANSWER_SECONDS))
        return [
            Received(
                queue=self,
                message_id=raw["MessageId"],
                receipt=raw["ReceiptHandle"],
                body=raw["Body"],
                expires=received_at + visibility,
                attributes=raw.get("Attributes", {}),
                message_attributes={
                    name: value.get("StringValue", "")
                    for name, value in raw.get("MessageAttributes", {}).items()
                },
            )
            for raw in response.get("Messages", ())
        ]

    def delete_batch(self, messages: Sequence[Received]) -> list[Refused]:
        """Delete up to MAX_BATCH_ENTRIES messages; return those that SQS did not delete.

        Raises SendError.
        """
        try:
            response = self._short_timeout_client.delete_message_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": each.receipt} for i, each in enumerate(messages)
                ],
            )
        except Exception as exc:
            raise self._to_send_error("DeleteMessageBatch", exc) from exc
        return _refused(response, messages)

    def change_visibility_batch(
        self, messages: Sequence[Received], seconds: Sequence[int]
    ) -> list[Refused]:
        """Hide up to MAX_BATCH_ENTRIES messages for ``seconds`` from now, each for its own.

        Returns those that SQS did not hide. Raises SendError.
        """
        started = time.monotonic()
        receipts = [each.receipt for each in messages]
        try:
            response = self._short_timeout_client.change_message_visibility_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": seconds[i]}
                    for i, receipt in enumerate(receipts)
                ],
            )
        except Exception as exc:
            raise self._to_send_error("ChangeMessageVisibilityBatch", exc) from exc
        refused = _refused(response, messages)
        failed = {each.message for each in refused}
        for i, each in enumerate(messages):
            if each not in failed and each.receipt == receipts[i]:  # not received again meanwhile
                each.expires = started + seconds[i]
        return refused

    def depth(self) -> int | None:
        """About how many messages are visible; None if these credentials may not ask."""
        try:
            answer = self.client.get_queue_attributes(
                QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        except Exception:
            return None
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def _to_send_error(self, operation: str, exc: Exception) -> SendError:
        """The SendError for ``exc``. After some errors the queue must be opened again."""
        if is_missing_queue(exc):
            self._is_missing = True
        elif has_stale_credentials(exc):
            self._clients.retire()
        return send_error(operation, self.address, exc)


def _refused(response: Mapping[str, Any], messages: Sequence[Received]) -> list[Refused]:
    """The messages that the answer to a batch does not list as Successful."""
    successful = {int(each["Id"]) for each in response.get("Successful", ())}
    failed = {int(each["Id"]): each for each in response.get("Failed", ())}
    failures = [
        (message, failed.get(i, _NOT_LISTED))
        for i, message in enumerate(messages)
        if i not in successful
    ]
    return [
        Refused(message, _failure_reason(failure), failure["SenderFault"])
        for message, failure in failures
    ]


def _failure_reason(failure: Mapping[str, Any]) -> str:
    message = first_line(failure.get("Message"))
    return f"{failure['Code']}: {message}" if message else failure["Code"]


def _batch_entry(position: int, entry: Entry) -> Any:
    return {"Id": str(position), "MessageBody": entry.body, **entry.send_parameters}


def _chunks(entries: Sequence[Entry]) -> Iterator[list[int]]:
    """The positions of ``entries``, in runs that each fit into one request."""
    positions: list[int] = []
    size = 0
    for position, entry in enumerate(entries):
        is_full = len(positions) == MAX_BATCH_ENTRIES or size + len(entry.body) > MAX_BATCH_BYTES
        if positions and is_full:
            yield positions
            positions, size = [], 0
        positions.append(position)
        size += len(entry.body)
    if positions:
        yield positions
