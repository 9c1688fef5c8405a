"""One SQS queue: send, receive, delete, and change visibility."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress, location_of
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.process import clock

from .batch_sender import (
    NOT_LISTED,
    BatchEntry,
    BatchSender,
    Sent,
    batch_entry,
    failure_reason,
)  # fmt: skip
from .circuit import Circuit
from .clients import Clients
from .error_codes import Scope
from .errors import (
    boto_errors,
    is_missing_queue,
    member,
    refuse_page,
    scope_of,
    scope_of_entry,
    send_error,
)
from .joined_sends import JoinedSends
from .timeouts import SHORT_TIMEOUTS, Timeouts, long_poll_timeouts, send_timeouts

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MAX_ANSWER_SECONDS: Final = 2.0
"""The longest time that the answer to a long poll is on its way."""

RECEIVED_ATTRIBUTES: Final = (
    "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SentTimestamp",
    "MessageGroupId",
)  # fmt: skip
"""The attributes of SQS that a consumer asks for with each message.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
"""


@dataclass(slots=True, kw_only=True, eq=False)
class Received:
    """One received message."""

    queue: Queue
    message_id: str
    """The id that SQS gave the message; a message that is received again keeps it."""
    receipt: str = field(repr=False)
    """The receipt handle of this receive, for deletes and visibility changes."""
    body: str = field(repr=False)
    expires: float
    """The time at which the visibility timeout ends, in monotonic seconds."""
    attributes: Mapping[Any, str]
    """The attributes of SQS, such as ApproximateReceiveCount."""
    message_attributes: Mapping[str, str] = field(repr=False)
    """The sender's attributes of type String or Number, as strings."""
    sent_attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The sender's attributes as SQS delivers them, to send the message again."""
    unrun_receives: int = 0
    """The number of its earlier receives that are known not to have started its task."""
    can_extend: bool = True
    """False once SQS has refused to extend the visibility."""
    is_extending: bool = False
    """True while a heartbeat is under way."""
    requeue_delay: float = 0.0
    """The seconds until it is to be delivered again, once it is requeued."""
    deadline: float = math.inf
    """The time to stop extending the visibility, in monotonic seconds."""

    @property
    def receive_count(self) -> int:
        """Return the number of times that SQS has handed it out, this time included."""
        return int(self.attributes.get("ApproximateReceiveCount", "1"))

    @property
    def is_hidden(self) -> bool:
        """Return False once SQS may have delivered it again.

        Its receipt must not be used then.
        """
        return clock.monotonic() < self.expires


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of a batch that SQS did not delete or hide, with the reason."""

    message: Received
    reason: str
    is_final: bool
    """True if trying again cannot succeed."""


class Queue:
    """An open queue: its URL is known. Each of its clients is made on first use."""

    def __init__(self, address: QueueAddress, url: str, clients: Clients) -> None:
        self.address = address
        self.name = address.name
        """The queue's own name, not its alias."""
        self.is_fifo = address.is_fifo
        self.url = url
        self.location = location_of(url)
        """The region and account of the queue, if its URL contains them."""
        self.max_receives: int | None = None
        """The number of receives after which SQS moves a message away, once it was asked for."""
        self._is_asked_for_policy = False
        self._clients = clients
        self._clients_by_timeouts: dict[Timeouts, SQSClient] = {}
        self._is_missing = False
        self._send_timeouts = send_timeouts(clients.config)
        self._sender: tuple[SQSClient, Circuit] | None = None
        """The client that sends, with its circuit."""
        self._joined = JoinedSends(
            alone=self.send,
            together=self.send_together,
            time_limit=clients.config.send_timeout.total_seconds(),
        )
        self.send_joined = self.send if self.is_fifo else self._joined.send
        """Does as ``send``, on a standard queue together with other threads that send to it."""

    def is_usable(self, config: Config) -> bool:
        """Return True if a send can use this object.

        Return False once the configuration has changed, or the credentials or the URL went bad.
        """
        clients = self._clients
        return clients.config is config and not (clients.is_retired or self._is_missing)

    @property
    def client(self) -> SQSClient:
        """Return the client that sends. Raise SendError if it cannot be made."""
        return self._client_with(self._send_timeouts)

    def _make_sender(self) -> tuple[SQSClient, Circuit]:
        client = self.client
        self._sender = client, self._clients.circuit(client)
        return self._sender

    def _client_with(self, timeouts: Timeouts) -> SQSClient:
        # Not a cached_property: on Python 3.11 its lock may be held by another thread at a fork.
        client = self._clients_by_timeouts.get(timeouts)
        if client is None:
            client = self._clients.get(self.address, timeouts)
            self._clients_by_timeouts[timeouts] = client
        return client

    def send(self, body: str, send_parameters: Mapping[str, Any]) -> str:
        """Send one message and return its SQS message id.

        Raise SendError if SQS does not take it.
        """
        try:
            client, circuit = self._sender or self._make_sender()
            answer = circuit.call(
                client.send_message, QueueUrl=self.url, MessageBody=body, **send_parameters
            )
            return str(member(answer, "MessageId"))
        except boto_errors() as exc:
            raise self._to_send_error("SendMessage", exc) from exc

    def send_batch(self, entries: Sequence[BatchEntry]) -> Sent:
        """Send ``entries`` in as few requests as SQS's limits allow.

        Return the ids of the sent entries and the reasons of the unsent ones. On a standard queue
        several requests are made at a time if there are more than three. On a FIFO queue they are
        made in order. An entry that SQS refuses for a reason of its own is sent again, up to
        BATCH_ATTEMPTS times. After a request that failed as a whole, or an entry that failed for no
        reason of its own, no further request is begun, and its entries count as unsent. On a FIFO
        queue no further request is made after an unsent entry either, because it would overtake
        that entry.
        """
        sender = BatchSender(
            entries,
            request=self._send_message_batch,
            reason_of=lambda exc: str(self._to_send_error("SendMessageBatch", exc)),
            keeps_order=self.is_fifo,
        )
        return sender.send()

    def send_together(self, entries: Sequence[BatchEntry]) -> list[str | SendError | None]:
        """Send the entries of different callers in one request: SendMessageBatch.

        Return for each its SQS message id, or the error if the request failed. None stands for an
        entry that is to be sent by itself: SQS did not take it, or refuses the request because of
        one of its entries.
        """
        numbered = [batch_entry(position, entry) for position, entry in enumerate(entries)]
        try:
            answer = self._send_message_batch(numbered)
        except boto_errors() as exc:
            if scope_of(exc) is Scope.MESSAGE:
                return [None] * len(entries)
            error = str(self._to_send_error("SendMessageBatch", exc))
            return [_with_cause(SendError(error), exc) for _ in entries]
        ids = {int(each["Id"]): each["MessageId"] for each in answer.get("Successful", ())}
        return [ids.get(position) for position in range(len(entries))]

    def _send_message_batch(self, entries: list[Any]) -> Mapping[str, Any]:
        client, circuit = self._sender or self._make_sender()
        return circuit.call(client.send_message_batch, QueueUrl=self.url, Entries=entries)

    def receive(
        self,
        *,
        count: int,
        wait: int,
        visibility: int,
        attributes: Sequence[Any] = RECEIVED_ATTRIBUTES,
    ) -> list[Received]:
        """Receive up to ``count`` messages, waiting at most ``wait`` seconds for the first.

        They stay hidden for ``visibility`` seconds. ``attributes`` names the attributes of SQS that
        are asked for. Raise SendError if the request fails.
        """
        # What is received is also deleted. To make that client later, beside busy threads, is slow.
        self._client_with(SHORT_TIMEOUTS)
        started = clock.monotonic()
        try:
            response = self._client_with(long_poll_timeouts(wait)).receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait,
                VisibilityTimeout=visibility,
                MessageSystemAttributeNames=attributes,
                MessageAttributeNames=["All"],
            )
            refuse_page(response)
        except Exception as exc:
            raise self._to_send_error("ReceiveMessage", exc) from exc
        # The visibility clock starts when SQS hands a message out, not when the answer arrives.
        # After a long poll that moment is unknown, but the answer's way is short.
        took = clock.monotonic() - started
        received_at = max(started, clock.monotonic() - min(took, _MAX_ANSWER_SECONDS))
        expires = received_at + visibility
        return [self._to_received(raw, expires) for raw in response.get("Messages", ())]

    def _to_received(self, raw: Mapping[str, Any], expires: float) -> Received:
        sent_attributes = raw.get("MessageAttributes", {})
        return Received(
            queue=self,
            message_id=raw["MessageId"],
            receipt=raw["ReceiptHandle"],
            body=raw["Body"],
            expires=expires,
            attributes=raw.get("Attributes", {}),
            message_attributes={
                name: value.get("StringValue", "") for name, value in sent_attributes.items()
            },
            sent_attributes=sent_attributes,
        )

    def delete_batch(self, messages: Sequence[Received]) -> list[Refused]:
        """Delete up to MAX_BATCH_ENTRIES messages. Return those that SQS did not delete.

        Raise SendError if the request fails.
        """
        entries = [{"Id": str(i), "ReceiptHandle": each.receipt} for i, each in enumerate(messages)]
        request = self._client_with(SHORT_TIMEOUTS).delete_message_batch
        return self._settle("DeleteMessageBatch", request, messages, entries)

    def change_visibility_batch(
        self, messages: Sequence[Received], seconds: Sequence[int]
    ) -> list[Refused]:
        """Hide up to MAX_BATCH_ENTRIES messages for ``seconds`` from now, each for its own.

        Return those that SQS did not hide. Raise SendError if the request fails.
        """
        started = clock.monotonic()
        receipts = [each.receipt for each in messages]
        entries = [
            {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": seconds[i]}
            for i, receipt in enumerate(receipts)
        ]
        request = self._client_with(SHORT_TIMEOUTS).change_message_visibility_batch
        refused = self._settle("ChangeMessageVisibilityBatch", request, messages, entries)
        failed = {each.message for each in refused}
        for i, each in enumerate(messages):
            if each not in failed and each.receipt == receipts[i]:  # not received again meanwhile
                each.expires = started + seconds[i]
        return refused

    def _settle(
        self, operation: str, request: Callable[..., Any], messages: Sequence[Received],
        entries: Sequence[Any],
    ) -> list[Refused]:  # fmt: skip
        """Make a request about a batch. Return the messages that its answer has not as done."""
        try:
            answer = request(QueueUrl=self.url, Entries=entries)
        except Exception as exc:
            raise self._to_send_error(operation, exc) from exc
        successful = {int(each["Id"]) for each in answer.get("Successful", ())}
        failed = {int(each["Id"]): each for each in answer.get("Failed", ())}
        return [
            _refused(message, failed.get(i, NOT_LISTED))
            for i, message in enumerate(messages)
            if i not in successful
        ]

    def start_asking_max_receives(self) -> None:
        """Ask for the redrive policy, once, in a thread: no message waits for the answer."""
        if not self._is_asked_for_policy:
            self._is_asked_for_policy = True
            thread = threading.Thread(
                target=self.ask_max_receives, name="beanstalk_dispatch-redrive", daemon=True
            )
            with suppress(RuntimeError):  # without a thread it is not known
                thread.start()

    def ask_max_receives(self) -> None:
        """Ask for the redrive policy. These credentials may not be allowed to."""
        _, self.max_receives = redrive_policy(self._read_attribute("RedrivePolicy"))

    def depth(self) -> int | None:
        """Return the number of visible messages, approximately.

        Return None if these credentials may not ask, or the request fails.
        """
        found = self._read_attribute("ApproximateNumberOfMessages")
        return None if found is None else int(found)

    def _read_attribute(self, attribute: Any) -> str | None:
        try:
            answer = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=[attribute])
        except Exception:
            return None
        return answer.get("Attributes", {}).get(attribute)

    def request(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Make a request that no method above makes, such as ``purge_queue``.

        ``operation`` is the name of a method of boto3's client. Raise SendError if the request
        fails.
        """
        try:
            answer: Mapping[str, Any] = getattr(self.client, operation)(**parameters)
        except boto_errors() as exc:
            name = getattr(exc, "operation_name", operation)
            raise self._to_send_error(name, exc) from exc
        return answer

    def _to_send_error(self, operation: str, exc: Exception) -> SendError:
        """Return the SendError for ``exc``.

        Note the errors after which the queue must be opened again.
        """
        if is_missing_queue(exc):
            self._is_missing = True
        elif scope_of(exc) is Scope.EVERYBODY:
            self._clients.retire()
        return send_error(operation, self.address, exc)


def redrive_policy(value: str | None) -> tuple[str | None, int | None]:
    """Return the ARN of the dead-letter queue, and the receives after which SQS moves a message.

    ``value`` is the attribute RedrivePolicy of a queue. Both are None without a policy.
    """
    policy = json.loads(value or "{}")
    return policy.get("deadLetterTargetArn"), int(policy.get("maxReceiveCount", 0)) or None


def _with_cause(error: SendError, cause: Exception) -> SendError:
    error.__cause__ = cause
    return error


def _refused(message: Received, failure: Mapping[str, Any]) -> Refused:
    is_final = scope_of_entry(failure) is Scope.MESSAGE
    return Refused(message, failure_reason(failure), is_final)
