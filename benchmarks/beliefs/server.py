"""An SQS server that is asked, within a budget, on queues that are deleted afterwards."""

from __future__ import annotations

import json
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MAX_REQUESTS: Final = 3_000
"""The most requests of one run, which AWS sells for a tenth of a cent."""
MAX_SECONDS: Final = 300.0
"""The longest that one run may take before it deletes its queues."""
PATIENCE: Final = 70.0
"""The seconds for which AWS is waited for. It says of its counts that they take up to a minute."""
LOCAL_PATIENCE: Final = 5.0
"""The seconds for which a stand-in is waited for."""
_UNKNOWN_ACTION: Final = {"InvalidAction", "UnknownOperationException", "500"}
_API: Final = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_"
_GUIDE: Final = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/"


MISSING_QUEUE: Final = ("QueueDoesNotExist", "NonExistentQueue")
"""The codes of a queue that does not exist."""


class Differs(Exception):
    """The server does something else; the text says what, in a few words."""


class OverBudget(Exception):
    """The run has used up its requests or its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """One sentence about SQS, the page of AWS that says so, and the function that asks."""

    text: str
    page: str
    ask: Callable[[Server], None]


BELIEFS: Final[list[Belief]] = []
"""All beliefs, in the order of the table."""


def api(action: str) -> Callable[[Callable[[Server], None]], Callable[[Server], None]]:
    """Declare a belief that comes from the page of an action in the API reference."""
    return _declare(f"{_API}{action}.html")


def guide(page: str) -> Callable[[Callable[[Server], None]], Callable[[Server], None]]:
    """Declare a belief that comes from a page of the developer guide."""
    return _declare(f"{_GUIDE}{page}.html")


def _declare(page: str) -> Callable[[Callable[[Server], None]], Callable[[Server], None]]:
    def declare(ask: Callable[[Server], None]) -> Callable[[Server], None]:
        text = " ".join(str(ask.__doc__).split()).removesuffix(".")
        BELIEFS.append(Belief(text=text, page=page, ask=ask))
        return ask

    return declare


class Budget:
    """The requests and the seconds that are left to a run. Deleting a queue is always allowed."""

    def __init__(self, requests: int = MAX_REQUESTS, seconds: float = MAX_SECONDS) -> None:
        self.used = 0
        self._requests = requests
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()

    def spend(self, model: Any, **about: Any) -> None:
        """Count a request before it is sent. Raise OverBudget if none is left."""
        with self._lock:
            self.used += 1
            is_over = self.used > self._requests or time.monotonic() > self._ends_at
        if is_over and model.name != "DeleteQueue":
            raise OverBudget


class Server:
    """A server under one prefix: its client, and the queues that were made on it."""

    def __init__(self, endpoint: str, *, is_local: bool = False) -> None:
        """``is_local``: use invented credentials, in place of those of this machine."""
        self.endpoint = endpoint
        self.prefix = f"beliefs-{secrets.token_hex(5)}"
        self.budget = Budget()
        self.patience = LOCAL_PATIENCE if is_local else PATIENCE
        self._urls: list[str] = []
        region = re.search(r"\bsqs\.([a-z]+(?:-[a-z]+)+-\d)\.", endpoint)
        invented = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        self.client = _session(region_name=region[1] if region else None).client(
            "sqs",
            endpoint_url=endpoint,
            region_name="us-east-1" if is_local else None,
            config=Config(read_timeout=30, max_pool_connections=50, parameter_validation=False),
            **(invented if is_local else {}),
        )
        self.client.meta.events.register("before-call.sqs", self.budget.spend)

    def queue(self, *, fifo: bool = False, **attributes: str) -> Queue:
        """Make a queue with these attributes."""
        suffix = ".fifo" if fifo else ""
        name = f"{self.prefix}-{len(self._urls)}-{secrets.token_hex(3)}{suffix}"
        if fifo:
            attributes["FifoQueue"] = "true"
        url = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self._urls.append(url)
        return Queue(self, name, url)

    def delete_queues(self) -> list[str]:
        """Delete every queue that was made, and return the URLs of those that are left."""
        left = []
        for url in self._urls:
            try:
                self.client.delete_queue(QueueUrl=url)
            except (BotoCoreError, ClientError) as exc:
                if code_of(exc) not in MISSING_QUEUE:
                    left.append(url)
        return left

    def patiently(self) -> Iterator[None]:
        """Come back until the time is over within which the server should have done something."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            yield
            time.sleep(0.1)

    def until(self, condition: Callable[[], object], otherwise: str) -> None:
        """Wait for a condition. Raise Differs if it does not come."""
        expect(any(condition() for _ in self.patiently()), otherwise)


def _session(region_name: str | None) -> Any:
    return boto3.Session(region_name=region_name)  # its types know every service of AWS


class Queue:
    """One queue. A call of the client by its name, with the queue's URL."""

    def __init__(self, server: Server, name: str, url: str) -> None:
        self.server, self.name, self.url = server, name, url

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        return partial(getattr(self.server.client, operation), QueueUrl=self.url)

    def send(self, body: str = "body", **parameters: Any) -> str:
        """Send a message and return its id."""
        return str(self.send_message(MessageBody=body, **parameters)["MessageId"])

    def send_group(self, group: str, *bodies: str) -> None:
        """Send messages of one FIFO group, one after the other."""
        for body in bodies:
            self.send(body, MessageGroupId=group, MessageDeduplicationId=secrets.token_hex(8))

    def receive(
        self, wait: int = 2, visibility: int = 30, at_most: int = 10
    ) -> list[dict[str, Any]]:
        """Receive once, with every attribute."""
        answer = self.receive_message(
            MaxNumberOfMessages=at_most, WaitTimeSeconds=wait, VisibilityTimeout=visibility,
            MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"],
        )  # fmt: skip
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def receive_all(self, count: int, **options: int) -> list[dict[str, Any]]:
        """Receive until there are as many messages. SQS may bring fewer at a time."""
        found: list[dict[str, Any]] = []
        for _ in self.server.patiently():
            found += self.receive(**options)
            if len(found) >= count:
                return found
        raise Differs(f"{len(found)} of {count} messages arrived")

    def one(self, **options: int) -> dict[str, Any]:
        """Receive one message."""
        return self.receive_all(1, **options)[0]

    def has_none(self, wait: int = 1) -> bool:
        """Return True if a receive brings nothing."""
        return not self.receive(wait=wait, visibility=0)

    def delete(self, message: dict[str, Any]) -> None:
        """Delete a received message."""
        self.delete_message(ReceiptHandle=message["ReceiptHandle"])

    def attribute(self, name: str) -> str:
        """Return one attribute of the queue."""
        answer = self.get_queue_attributes(AttributeNames=[name])
        return str(answer.get("Attributes", {}).get(name))

    def redrive_to(self, dead_letters: Queue, after: int) -> None:
        """Have SQS move a message to ``dead_letters`` after as many receives."""
        policy = {
            "deadLetterTargetArn": dead_letters.attribute("QueueArn"),
            "maxReceiveCount": after,
        }
        self.set_queue_attributes(Attributes={"RedrivePolicy": json.dumps(policy)})


def expect(condition: object, otherwise: str) -> None:
    """Raise Differs unless a condition holds."""
    if not condition:
        raise Differs(otherwise)


def code_of(exc: Exception) -> str:
    """Return the code of SQS's error, without the prefixes that differ by protocol."""
    code = str(exc.response["Error"]["Code"]) if isinstance(exc, ClientError) else ""
    return code.rpartition("#")[2].removeprefix("AWS.SimpleQueueService.")


@contextmanager
def refused(*codes: str, instead: str = "it is taken") -> Iterator[None]:
    """Raise Differs unless the block is refused as the sender's fault, with one of these codes."""
    try:
        yield
    except ClientError as exc:
        code = code_of(exc)
        if code in _UNKNOWN_ACTION:
            raise
        if codes and code not in codes:
            raise Differs(f"the code is {code}") from exc
    else:
        raise Differs(instead)


def answer_to(belief: Belief, server: Server) -> str:
    """Return the empty string if the server does what is believed, or else what it does."""
    try:
        belief.ask(server)
    except Differs as exc:
        return str(exc)
    except OverBudget:
        return "not asked: over budget"
    except ClientError as exc:
        code = code_of(exc)
        is_known = code not in _UNKNOWN_ACTION
        return f"{exc.operation_name}: {code}" if is_known else f"it has no {exc.operation_name}"
    except Exception as exc:
        print(f"{belief.text}: {exc!r}", file=sys.stderr)
        return f"no answer: {type(exc).__name__}"
    return ""
