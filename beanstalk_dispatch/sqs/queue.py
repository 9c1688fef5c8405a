"""Amazon SQS through boto3: clients, queues, limits. Nothing else imports boto3.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from beanstalk_dispatch.conf import SETTINGS, Config, default_region, get_config
from beanstalk_dispatch.exceptions import (
    InvalidCall,
    MessageTooLarge,
    SendError,
    UnknownQueue,
    listed,
)
from beanstalk_dispatch.queue_address import QueueAddress

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

logger = logging.getLogger("beanstalk_dispatch.scheduling")

MAX_MESSAGE_BYTES: Final = 1_048_576
MAX_BATCH_ENTRIES: Final = 10
MAX_BATCH_BYTES: Final = 1_048_576
MAX_DELAY: Final = 900
"""Seconds. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html"""
MAX_VISIBILITY: Final = 43_200
"""Seconds."""
MAX_ID_LENGTH: Final = 128
"""Characters of a MessageGroupId or MessageDeduplicationId."""

BATCH_ATTEMPTS: Final = 4
_MISSING_QUEUE: Final = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
# What a new client may cure.
_STALE: Final = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
    "NoCredentialsError",
    "RuntimeError",  # botocore's, for credentials that were refreshed and are still expired
})  # fmt: skip
_ANSWER_TIME: Final = 2.0
_RECEIVED_ATTRIBUTES: Final[list[Any]] = [
    "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp", "SentTimestamp",
    "MessageGroupId",
]  # fmt: skip
# For an entry of a batch of which SQS says neither that it was taken nor that it failed.
_UNANSWERED: Final[Any] = {"SenderFault": False, "Code": "no answer"}
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException"})
# What create_queues gives a queue: Elastic Beanstalk's own defaults.
# https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-elasticbeanstalksqsd
_VISIBILITY_TIMEOUT: Final = 300
_MAX_RECEIVES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of a batch, by position: SQS's message ids, and reasons of what is not there."""

    ids: dict[int, str]
    unsent: dict[int, str]


@dataclass(slots=True, kw_only=True, eq=False)
class Received:
    """One received message. ``expires``: when its visibility runs out, in monotonic seconds.

    ``extends``: False once SQS has refused to extend its visibility; ``due``: from when on it
    is not to be extended, in monotonic seconds.
    """

    queue: Queue
    message_id: str
    receipt: str
    body: str
    expires: float
    attributes: Mapping[Any, str]
    message_attributes: Mapping[str, str]
    extends: bool = True
    due: float = math.inf

    @property
    def is_ours(self) -> bool:
        """False once SQS may have delivered it again; its receipt must not be used any more."""
        return time.monotonic() < self.expires


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of a batch that SQS did not delete or hide; ``is_final``: nor would it later."""

    message: Received
    reason: str
    is_final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One message of a batch, its limits already checked."""

    body: str
    options: Mapping[str, Any]


class Queue:
    """One queue, ready to be used: its URL is known and its client is made."""

    __slots__ = ("_keeping_client", "_polling_client", "address", "client", "url")

    def __init__(self, address: QueueAddress, url: str, client: SQSClient) -> None:
        self.address = address
        self.url = url
        self.client = client
        self._polling_client: SQSClient | None = None
        self._keeping_client: SQSClient | None = None

    @property
    def name(self) -> str:
        return self.address.name

    def send(self, body: str, options: Mapping[str, Any]) -> str:
        """Send one message; its SQS message id. ``options`` come from ``send_options``."""
        try:
            return self.client.send_message(QueueUrl=self.url, MessageBody=body, **options)[
                "MessageId"
            ]
        except _boto_errors() as exc:
            raise self._lost("SendMessage", exc) from exc

    def send_batch(self, entries: Sequence[Entry]) -> Sent:
        """Send ``entries`` in order, in as few requests as SQS's limits allow.

        What SQS refuses for reasons of its own is sent again, a few times; after a request that
        failed as a whole no further one is made, and what it held counts as unsent. Nor, on a
        FIFO queue, after one of which an entry was not taken.
        """
        sent = Sent(ids={}, unsent={})
        reason = ""
        for positions in _chunks(entries):
            if not reason:
                try:
                    self._send_chunk(entries, positions, sent)
                except _boto_errors() as exc:
                    reason = str(self._lost("SendMessageBatch", exc))
            for position in positions:
                if position not in sent.ids:
                    sent.unsent.setdefault(position, reason)
            if sent.unsent and self.address.is_fifo:
                reason = reason or "not tried, since one before it was not sent"
        return sent

    def _send_chunk(self, entries: Sequence[Entry], positions: Sequence[int], sent: Sent) -> None:
        pending, attempt = list(positions), 0
        while pending:
            attempt += 1
            response = self.client.send_message_batch(
                QueueUrl=self.url,
                Entries=[_batch_entry(position, entries[position]) for position in pending],
            )
            for taken in response.get("Successful", ()):
                sent.ids[int(taken["Id"])] = taken["MessageId"]
            failed = {int(refused["Id"]): refused for refused in response.get("Failed", ())}
            pending = [position for position in pending if position not in sent.ids]
            for position in pending:
                refused = failed.get(position, _UNANSWERED)
                if refused["SenderFault"] or attempt == BATCH_ATTEMPTS:
                    reason = f"{refused['Code']}: {_first_line(refused.get('Message'))}"
                    sent.unsent[position] = reason
            pending = [position for position in pending if position not in sent.unsent]
            if pending:
                time.sleep(random.uniform(0, 0.1 * 2**attempt))

    def receive(self, *, count: int, wait: int, visibility: int) -> list[Received]:
        """Up to ``count`` messages, after at most ``wait`` seconds. Raises SendError."""
        started = time.monotonic()
        try:
            if self._polling_client is None:
                self._polling_client = _client_for(self.address, _POLLING)
            response = self._polling_client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait,
                VisibilityTimeout=visibility,
                MessageSystemAttributeNames=_RECEIVED_ATTRIBUTES,
                MessageAttributeNames=["All"],
            )
        except Exception as exc:
            raise self._lost("ReceiveMessage", exc) from exc
        # The clock starts at SQS when it hands a message out, not when the answer arrives. A
        # long poll that waited cannot tell when that was, but an answer's way is short.
        took = time.monotonic() - started
        received = max(started, time.monotonic() - min(took, _ANSWER_TIME))
        return [
            Received(
                queue=self,
                message_id=raw["MessageId"],
                receipt=raw["ReceiptHandle"],
                body=raw["Body"],
                expires=received + visibility,
                attributes=raw.get("Attributes", {}),
                message_attributes={
                    name: value.get("StringValue", "")
                    for name, value in raw.get("MessageAttributes", {}).items()
                },
            )
            for raw in response.get("Messages", ())
        ]

    def delete_batch(self, messages: Sequence[Received]) -> list[Refused]:
        """Delete up to ten messages; those that were not. Raises SendError."""
        try:
            response = self._keeper().delete_message_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": each.receipt} for i, each in enumerate(messages)
                ],
            )
        except Exception as exc:
            raise self._lost("DeleteMessageBatch", exc) from exc
        return _refused(response, messages)

    def change_visibility_batch(
        self, messages: Sequence[Received], seconds: Sequence[int]
    ) -> list[Refused]:
        """Hide up to ten messages for so long from now; those that were not. Raises SendError."""
        started = time.monotonic()
        receipts = [each.receipt for each in messages]
        try:
            response = self._keeper().change_message_visibility_batch(
                QueueUrl=self.url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": receipt, "VisibilityTimeout": seconds[i]}
                    for i, receipt in enumerate(receipts)
                ],
            )
        except Exception as exc:
            raise self._lost("ChangeMessageVisibilityBatch", exc) from exc
        refused = _refused(response, messages)
        failed = {each.message for each in refused}
        for i, each in enumerate(messages):
            if each not in failed and each.receipt == receipts[i]:  # not received again meanwhile
                each.expires = started + seconds[i]
        return refused

    def _keeper(self) -> SQSClient:
        """What is held here depends on these requests, so none may take long."""
        if self._keeping_client is None:
            self._keeping_client = _client_for(self.address, _KEEPING)
        return self._keeping_client

    def depth(self) -> int | None:
        """About how many messages wait; None if these credentials may not ask."""
        try:
            answer = self.client.get_queue_attributes(
                QueueUrl=self.url, AttributeNames=["ApproximateNumberOfMessages"]
            )
        except Exception:
            return None
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def _lost(self, operation: str, exc: Exception) -> SendError:
        _forget_if_stale(exc)
        return _send_error(operation, self.address, exc)


def send_options(
    address: QueueAddress,
    *,
    delay: int = 0,
    group_id: str | None = None,
    deduplication_id: str | None = None,
    message_id: str | None = None,
) -> dict[str, Any]:
    """SendMessage's parameters besides the body, checked. Raises InvalidCall.

    ``delay`` in whole seconds up to MAX_DELAY. On a FIFO queue, ``message_id`` stands in
    for a missing deduplication id.
    """
    options: dict[str, Any] = {}
    if delay:
        options["DelaySeconds"] = delay
    if group_id is not None:
        options["MessageGroupId"] = _checked_id("group_id", group_id)
    if deduplication_id is not None:
        options["MessageDeduplicationId"] = _checked_id("deduplication_id", deduplication_id)
    if address.is_fifo:
        if delay:
            raise InvalidCall(
                f"{address.name} is a FIFO queue, which takes no delay per message; set one on "
                "the queue"
            )
        if group_id is None:
            raise InvalidCall(f"{address.name} is a FIFO queue; give the call a group_id")
        options.setdefault("MessageDeduplicationId", message_id)
    elif deduplication_id is not None:
        raise InvalidCall(f"{address.name} is not a FIFO queue; it takes no deduplication_id")
    return options


def check_size(body: str, *, function: str) -> None:
    """Raise MessageTooLarge if an ASCII ``body`` is above SQS's limit."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"{function}: the message has {len(body):,} bytes, SQS takes {MAX_MESSAGE_BYTES:,}; "
            "store the data and pass its key"
        )


def _checked_id(name: str, value: str) -> str:
    if not (isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH) or not (
        value.isascii() and value.isprintable() and " " not in value
    ):
        raise InvalidCall(
            f"{name} {value!r} is not 1 to {MAX_ID_LENGTH} ASCII letters, digits and punctuation"
        )
    return value


def _refused(response: Mapping[str, Any], messages: Sequence[Received]) -> list[Refused]:
    return [
        Refused(
            messages[int(each["Id"])],
            f"{each['Code']}: {_first_line(each.get('Message'))}",
            each["SenderFault"],
        )
        for each in response.get("Failed", ())
    ]


def _batch_entry(position: int, entry: Entry) -> Any:
    return {"Id": str(position), "MessageBody": entry.body, **entry.options}


def _chunks(entries: Sequence[Entry]) -> Iterator[list[int]]:
    positions: list[int] = []
    size = 0
    for position, entry in enumerate(entries):
        full = len(positions) == MAX_BATCH_ENTRIES or size + len(entry.body) > MAX_BATCH_BYTES
        if positions and full:
            yield positions
            positions, size = [], 0
        positions.append(position)
        size += len(entry.body)
    if positions:
        yield positions


# --- errors ----------------------------------------------------------------------------------


def _boto_errors() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError, RuntimeError  # the last for credentials: see _STALE


def _code(exc: Exception) -> str:
    """AWS's error code, or the error's name: a lost connection's ``response`` is None."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    return str(response.get("Error", {}).get("Code", type(exc).__name__))


def is_missing(exc: BaseException) -> bool:
    """Whether an operation failed because there is no such queue."""
    cause = exc.__cause__
    return isinstance(exc, UnknownQueue) or (
        isinstance(cause, Exception) and _code(cause) in _MISSING_QUEUE
    )


def _forget_if_stale(exc: Exception) -> None:
    """Credentials and addresses that went bad are looked up anew, with the next request."""
    code = _code(exc)
    with _connections.lock:
        if code in _MISSING_QUEUE:
            _connections.queues = {}
        elif code in _STALE:
            _connections.forget()


def _first_line(text: object) -> str:
    """AWS's signature errors go on with the whole request, session token included."""
    return str(text or "").strip().partition("\n")[0][:300]


def _send_error(operation: str, address: QueueAddress, exc: Exception) -> SendError:
    code = _code(exc)
    hint = ""
    if code in _DENIED and operation == "GetQueueUrl":
        hint = (
            "; Elastic Beanstalk's roles may not look a queue up: give its URL or ARN in "
            f"{SETTINGS['queues'].variable}"
        )
    return SendError(f"{operation} on {address.name}: {code}: {_first_line(exc)}{hint}")


# --- clients and queues ----------------------------------------------------------------------


class _Patience(NamedTuple):
    """How long a client waits for an answer, in seconds, and how often it asks."""

    connect: float
    read: float
    attempts: int


_SENDING: Final = _Patience(connect=5, read=10, attempts=3)
_POLLING: Final = _Patience(connect=5, read=30, attempts=2)  # a long poll takes 20 s
_KEEPING: Final = _Patience(connect=3, read=4, attempts=2)


class _Connections:
    """The process's clients and queues. A forked child starts without any."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.RLock()
        self.config: Config | None = None
        self.clients: dict[tuple[str, str | None, _Patience], SQSClient] = {}
        self.queues: dict[str, Queue] = {}

    def use(self, config: Config) -> None:
        """Forget what was made for another configuration."""
        if self.config is not config:
            self.forget()
            self.config = config

    def forget(self) -> None:
        self.clients, self.queues = {}, {}


_connections = _Connections()
os.register_at_fork(after_in_child=_connections.reset)


def queue(name: str) -> Queue:
    """The queue an alias, name, URL or ARN stands for.

    A URL or ARN is never looked up (sending to one needs ``sqs:SendMessage`` only), a name
    once. Raises UnknownQueue or SendError.
    """
    config = get_config()
    if config is _connections.config and (known := _connections.queues.get(name)):
        return known
    return _open(name, address(name, config), config)


def address(name: str, config: Config) -> QueueAddress:
    """The address ``name`` stands for. Raises UnknownQueue."""
    if config.queues:
        try:
            return config.queues[name]
        except KeyError:
            raise UnknownQueue(
                f"{name!r} is not in {SETTINGS['queues'].variable}; known: {listed(config.queues)}"
            ) from None
    try:
        return QueueAddress.parse(name)
    except ValueError as exc:
        raise UnknownQueue(str(exc)) from None


def queue_named(name: str) -> Queue:
    """The queue whose own name is ``name``: what a consumer knows of where a message came from."""
    config = get_config()
    key = f"name:{name}"
    if config is _connections.config and (known := _connections.queues.get(key)):
        return known
    found = [candidate for candidate in config.queues.values() if candidate.name == name]
    here = config.sqs_region or default_region()  # two regions may each have one of that name
    found.sort(key=lambda candidate: candidate.region != here)
    return _open(key, found[0] if found else QueueAddress(name=name), config)


def _open(key: str, where: QueueAddress, config: Config) -> Queue:
    with _connections.lock:
        _connections.use(config)
        if key not in _connections.queues:
            client = _client(where, config, _SENDING)
            url = where.url or _look_up(where, client, config)
            _connections.queues[key] = Queue(where, url, client)
        return _connections.queues[key]


def _client_for(where: QueueAddress, patience: _Patience) -> SQSClient:
    config = get_config()
    with _connections.lock:
        _connections.use(config)
        return _client(where, config, patience)


def _client(where: QueueAddress, config: Config, patience: _Patience) -> SQSClient:
    import boto3

    endpoint_url = config.sqs_endpoint_url or where.endpoint_url
    # AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and their kin are botocore's to judge.
    wrong: tuple[type[Exception], ...] = (*_boto_errors(), ValueError)
    try:
        session = boto3.session.Session()
        region = where.region or config.sqs_region or default_region() or session.region_name
        region = region or "us-east-1"  # as beanstalk-dispatch 0.1 did
        key = (region, endpoint_url, patience)
        if key not in _connections.clients:
            _connections.clients[key] = _make_client(
                session, config, patience, region=region, endpoint_url=endpoint_url
            )
    except wrong as exc:
        raise _send_error("making a client", where, exc) from exc
    return _connections.clients[key]


def _make_client(
    session: Any, config: Config, patience: _Patience, *, region: str, endpoint_url: str | None
) -> SQSClient:
    from botocore.config import Config as ClientConfig

    options = ClientConfig(
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        max_pool_connections=50,
        parameter_validation=False,  # what can be wrong in a request is checked in this package
    )

    def make(options: ClientConfig) -> SQSClient:
        client: SQSClient = session.client(
            "sqs",
            region_name=region,
            endpoint_url=endpoint_url,
            aws_access_key_id=config.sqs_key,
            aws_secret_access_key=config.sqs_secret,
            aws_session_token=config.sqs_token,
            config=options,
        )
        return client

    # Before 1.44.6 botocore builds its User-Agent anew twice per request, a fifth of a call's
    # instructions. The same text given as an option is used as it is, so a first client is
    # asked for it.
    user_agent = make(options).meta.config.user_agent  # type: ignore[attr-defined]
    return make(options.merge(ClientConfig(user_agent=user_agent)))


def _look_up(where: QueueAddress, client: SQSClient, config: Config) -> str:
    try:
        return client.get_queue_url(QueueName=where.name)["QueueUrl"]
    except _boto_errors() as exc:
        if _code(exc) not in _MISSING_QUEUE:
            _forget_if_stale(exc)
            raise _send_error("GetQueueUrl", where, exc) from exc
        if not config.create_queues:
            raise UnknownQueue(
                f"SQS has no queue {where.name!r} in {client.meta.region_name} for these "
                f"credentials; create it, or set {SETTINGS['create_queues'].variable}=True"
            ) from None
    try:
        return _create(where, client)
    except _boto_errors() as exc:
        raise _send_error("CreateQueue", where, exc) from exc


def _create(where: QueueAddress, client: SQSClient) -> str:
    """Create the queue, and a dead-letter queue that takes what failed ten times."""
    base = where.name.removesuffix(".fifo")
    fifo: dict[Any, str] = {"FifoQueue": "true"} if where.is_fifo else {}
    dead_letters = f"{base}-dead-letter" + (".fifo" if where.is_fifo else "")
    dead_letter_url = client.create_queue(QueueName=dead_letters, Attributes=fifo)["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])[
        "Attributes"
    ]["QueueArn"]
    redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": str(_MAX_RECEIVES)}
    logger.info("created queue=%s dead_letter_queue=%s", where.name, dead_letters)
    return client.create_queue(
        QueueName=where.name,
        Attributes={
            **fifo,
            "VisibilityTimeout": str(_VISIBILITY_TIMEOUT),
            "RedrivePolicy": json.dumps(redrive),
        },
    )["QueueUrl"]
