"""Open queues: find the queue that a name stands for, or create it if so configured."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress, dead_letter_name, is_fifo
from beanstalk_dispatch.conf.variables import CREATE_QUEUES, QUEUES, SQS_REGION
from beanstalk_dispatch.exceptions import UnknownQueue
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.process import state

from .clients import Clients
from .error_codes import Scope
from .errors import boto_errors, is_missing_queue, member, scope_of, send_error
from .queue import Queue
from .timeouts import send_timeouts

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

logger = logging.getLogger("beanstalk_dispatch.scheduling")

# A created queue has Elastic Beanstalk's own defaults:
# https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-elasticbeanstalksqsd
_VISIBILITY_TIMEOUT_SECONDS: Final = 300
_MAX_RECEIVES: Final = 10


class _OpenQueues:
    """The open queues of this process, and the clients they use. A forked child starts empty."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.RLock()  # a log handler may schedule a task while a queue is made
        self.clients: Clients | None = None
        self.queues: dict[tuple[str, str | None], Queue] = {}
        """The queues by ``_key`` of their addresses."""

    def usable_clients(self, config: Config) -> Clients:
        with self.lock:
            clients = self.clients
            if clients is None or clients.config is not config:
                self.clients = clients = Clients(config)
                self.queues = {}
            elif clients.is_retired:
                self.clients = clients = Clients(config, are_renewed=True)
                self.queues = {}
            return clients

    def open(self, address: QueueAddress, config: Config) -> Queue:
        with self.lock:
            clients = self.usable_clients(config)
            queue = self.queues.get(_key(address))
            if queue is None or not queue.is_usable(config):
                # This is the earliest moment for the errors of a client.
                client = clients.get(address, send_timeouts(config))
                url = address.url or _find_or_create(address, client, clients)
                self.queues[_key(address)] = queue = Queue(address, url, clients)
            return queue


def _key(address: QueueAddress) -> tuple[str, str | None]:
    """Return the parts of an address that identify its queue."""
    return address.url or address.name, address.region


_open_queues = _OpenQueues()
state.declare(_open_queues.forget)


def open_queue(name: str) -> Queue:
    """Open the queue that ``name`` stands for: an alias, or without aliases a name, URL or ARN.

    Raise UnknownQueue or SendError.
    """
    config = get_config()
    return open_address(resolve_address(name, config), config)


def open_address(address: QueueAddress, config: Config) -> Queue:
    """Open the queue at ``address``.

    A URL or ARN is never looked up, because sending to one needs ``sqs:SendMessage`` only. A name
    is looked up once. Raise UnknownQueue or SendError.
    """
    queue = _open_queues.queues.get((address.url or address.name, address.region))  # its _key
    if queue is not None and queue.is_usable(config):
        return queue
    return _open_queues.open(address, config)


def client_for(address: QueueAddress) -> SQSClient:
    """Return the client that sends to the queue at ``address``. No request is made.

    Raise SendError if the client cannot be made.
    """
    config = get_config()
    return _open_queues.usable_clients(config).get(address, send_timeouts(config))


def open_queue_by_own_name(queue_name: str) -> Queue:
    """Return the queue whose own name is ``queue_name``.

    A delivery names its queue in no other way. Raise UnknownQueue if there is no such queue,
    SendError if SQS does not say.
    """
    config = get_config()
    candidates = [address for address in config.queues.values() if address.name == queue_name]
    # Two regions may each have a queue of that name.
    candidates.sort(key=lambda address: address.region != config.region)
    address = candidates[0] if candidates else QueueAddress(name=queue_name)
    return open_address(address, config)


def open_beside(queue: Queue, queue_name: str) -> Queue:
    """Return the queue ``queue_name`` in the account and region of ``queue``, without a request.

    SQS requires a queue and its dead-letter queue to be in one account and region:
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    """
    url = f"{queue.url.rpartition('/')[0]}/{queue_name}"
    address = replace(queue.address, name=queue_name, url=url)
    return open_address(address, get_config())


def resolve_address(name: str, config: Config) -> QueueAddress:
    """Return the address that ``name`` stands for. Raise UnknownQueue if there is none."""
    if config.queues:
        try:
            return config.queues[name]
        except KeyError:
            raise UnknownQueue(
                f"{name!r} is not in {QUEUES.variable}; known: {joined(config.queues)}"
            ) from None
    try:
        return QueueAddress.parse(name)
    except ValueError as exc:
        raise UnknownQueue(str(exc)) from None


def _find_or_create(address: QueueAddress, client: SQSClient, clients: Clients) -> str:
    """Return the URL of the queue at ``address``, after creating the queue if so configured."""
    try:
        answer = clients.circuit(client).call(client.get_queue_url, QueueName=address.name)
        return str(member(answer, "QueueUrl"))
    except boto_errors() as exc:
        if scope_of(exc) is Scope.EVERYBODY:
            clients.retire()
        if not is_missing_queue(exc):
            raise send_error("GetQueueUrl", address, exc) from exc
        if not clients.config.create_queues:
            raise UnknownQueue(_describe_missing_queue(address, client, clients.config)) from None
    try:
        if clients.config.is_dead_letter_queue(address.name):
            logger.info("created queue=%s dead_letter_queue=%s", address.name, "none")
            return _create_dead_letter_queue(address.name, client)
        return _create_queue(address, client)
    except boto_errors() as exc:
        raise send_error("CreateQueue", address, exc) from exc


def _describe_missing_queue(address: QueueAddress, client: SQSClient, config: Config) -> str:
    """Return the problem with its remedies, and the likeliest first: AWS has 30 regions."""
    is_guess = not (address.region or config.region)
    guessed = ", which is only the default" if is_guess else ""
    create = "create it as manage.py beanstalk_eb prints"
    if config.sqs_endpoint_url:  # on AWS it would make a queue in the wrong region
        create = f"set {CREATE_QUEUES.variable}=True"
    return (
        f"SQS has no queue {address.name!r} in {client.meta.region_name}{guessed}, for these "
        f"credentials; correct the region with {SQS_REGION.variable}, or by the queue's URL in "
        f"{QUEUES.variable}, or {create}"
    )


def _create_dead_letter_queue(name: str, client: SQSClient) -> str:
    """Create a queue without a redrive policy, which would count each receive of a dead letter."""
    answer = client.create_queue(QueueName=name, Attributes=_fifo_attributes(name))
    return str(member(answer, "QueueUrl"))


def _fifo_attributes(name: str) -> dict[Any, str]:
    return {"FifoQueue": "true"} if is_fifo(name) else {}


def _create_queue(address: QueueAddress, client: SQSClient) -> str:
    """Create the queue, and a dead-letter queue for messages that were received ten times."""
    dead_letters = dead_letter_name(address.name)
    dead_letter_url = _create_dead_letter_queue(dead_letters, client)
    found = client.get_queue_attributes(QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])
    arn = member(found, "Attributes")["QueueArn"]
    redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": str(_MAX_RECEIVES)}
    logger.info("created queue=%s dead_letter_queue=%s", address.name, dead_letters)
    answer = client.create_queue(
        QueueName=address.name,
        Attributes={
            **_fifo_attributes(address.name),
            "VisibilityTimeout": str(_VISIBILITY_TIMEOUT_SECONDS),
            "RedrivePolicy": json.dumps(redrive),
        },
    )
    return str(member(answer, "QueueUrl"))
