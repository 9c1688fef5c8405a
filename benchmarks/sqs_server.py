"""A stand-in for SQS that keeps its queues in memory and counts what it is asked.

``python -m benchmarks.sqs_server CERTIFICATE`` prints its ports for HTTP and HTTPS and serves until
it is stopped. It speaks SQS's JSON protocol over HTTP/1.1 with connections that stay open. It never
makes a message visible again by itself, and it checks no signature and no parameter.

The benchmark controls it with operations of its own, ``Benchmark.…``, which are not counted.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import http.client
import ipaddress
import itertools
import json
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_numbers = itertools.count()

Reply = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Message:
    """One message in a queue."""

    entry: dict[str, Any]
    id: str = field(default_factory=lambda: f"00000000-0000-4000-8000-{next(_numbers):012d}")
    receives: int = 0


@dataclass(slots=True, eq=False)
class Waiting:
    """A long poll without an answer."""

    count: int
    reply: Reply
    timer: asyncio.TimerHandle


@dataclass(slots=True)
class Queue:
    """One queue. It drops what it is sent, unless it is held or used."""

    visible: deque[Message] = field(default_factory=deque)
    in_flight: dict[str, Message] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    is_held: bool = False
    """True if it keeps messages, and hands none out."""
    is_used: bool = False
    """True if it keeps messages, and hands them out."""
    requests: int = 0
    deleted: int = 0
    last_delete: float = 0.0

    def receive(self, count: int) -> list[dict[str, Any]]:
        received: list[dict[str, Any]] = []
        while self.visible and len(received) < count and not self.is_held:
            message = self.visible.popleft()
            message.receives += 1
            receipt = f"{message.id}.{message.receives}"
            self.in_flight[receipt] = message
            body = message.entry["MessageBody"]
            received.append({
                "MessageId": message.id, "ReceiptHandle": receipt, "Body": body,
                "MD5OfBody": _md5(body),
                "Attributes": {
                    "ApproximateReceiveCount": str(message.receives), "SentTimestamp": "0",
                    "ApproximateFirstReceiveTimestamp": "0",
                },
                "MessageAttributes": message.entry.get("MessageAttributes", {}),
            })  # fmt: skip
        return received

    def forget(self, reply: Reply) -> None:
        """Forget the long poll of a connection that was lost. It would be handed messages."""
        for waiting in [each for each in self.waiting if each.reply == reply]:
            waiting.timer.cancel()
            self.waiting.remove(waiting)

    def answer_waiting(self) -> None:
        while self.waiting and self.visible and not self.is_held:
            waiting = self.waiting.pop(0)
            waiting.timer.cancel()
            waiting.reply({"Messages": self.receive(waiting.count)})

    def delete(self, receipt: str) -> None:
        if self.in_flight.pop(receipt, None):
            self.deleted += 1
            self.last_delete = time.monotonic()

    def change_visibility(self, receipt: str, seconds: int) -> None:
        if seconds == 0 and (message := self.in_flight.pop(receipt, None)):
            self.visible.append(message)
            self.answer_waiting()


def _md5(body: str) -> str:
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


class Sqs:
    """The queues, what was counted, and how long each answer is delayed."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.queues: dict[str, Queue] = {}
        self.requests: Counter[str] = Counter()
        self.connections = 0

    def answer(self, target: str, asked: dict[str, Any], host: str, reply: Reply) -> None:
        service, _, operation = target.partition(".")
        if service == "Benchmark":
            reply(getattr(self, f"control_{operation.lower()}")(**asked))
            return
        self.requests[operation] += 1
        name = asked.get("QueueUrl", asked.get("QueueName", "")).rpartition("/")[2]
        queue = self.queues.setdefault(name, Queue())
        queue.requests += 1
        if operation == "ReceiveMessage":
            self._receive(queue, asked, reply)
        else:
            reply(self._answer(operation, queue, name, asked, host))

    def _receive(self, queue: Queue, asked: dict[str, Any], reply: Reply) -> None:
        count, wait = int(asked.get("MaxNumberOfMessages", 1)), int(asked.get("WaitTimeSeconds", 0))
        messages = queue.receive(count)
        if messages or not wait:
            reply({"Messages": messages} if messages else {})
            return

        def give_up() -> None:
            queue.waiting.remove(waiting)
            reply({})

        timer = asyncio.get_running_loop().call_later(wait, give_up)
        waiting = Waiting(count, reply, timer)
        queue.waiting.append(waiting)

    def _answer(
        self, operation: str, queue: Queue, name: str, asked: dict[str, Any], host: str
    ) -> dict[str, Any]:
        entries = asked.get("Entries", [asked])
        answer: dict[str, Any] = {}
        if operation in {"SendMessage", "SendMessageBatch"}:
            taken = self._take(queue, entries)
            answer = taken[0] if operation == "SendMessage" else {"Successful": taken}
        elif operation.startswith(("DeleteMessage", "ChangeMessageVisibility")):
            for each in entries:
                if operation.startswith("DeleteMessage"):
                    queue.delete(each["ReceiptHandle"])
                else:
                    queue.change_visibility(each["ReceiptHandle"], int(each["VisibilityTimeout"]))
            if operation.endswith("Batch"):
                answer = {"Successful": [{"Id": each["Id"]} for each in entries]}
        elif operation in {"GetQueueUrl", "CreateQueue"}:
            answer = {"QueueUrl": f"http://{host}/000000000000/{name}"}
        elif operation == "ListQueues":
            urls = [f"http://{host}/000000000000/{each}" for each in self.queues]
            answer = {"QueueUrls": urls}
        elif operation == "GetQueueAttributes":
            answer = {"Attributes": {
                "QueueArn": f"arn:aws:sqs:eu-west-1:000000000000:{name}",
                "VisibilityTimeout": "300",
                "ApproximateNumberOfMessages": str(len(queue.visible)),
                "ApproximateNumberOfMessagesNotVisible": str(len(queue.in_flight)),
                "ApproximateNumberOfMessagesDelayed": "0",
            }}  # fmt: skip
        return answer

    @staticmethod
    def _take(queue: Queue, entries: list[dict[str, Any]]) -> list[dict[str, str]]:
        messages = [Message(entry) for entry in entries]
        if queue.is_held or queue.is_used:  # what is only sent would otherwise fill the memory
            queue.visible += messages
            queue.answer_waiting()
        return [
            {
                "Id": message.entry.get("Id", ""),
                "MessageId": message.id,
                "MD5OfMessageBody": _md5(message.entry["MessageBody"]),
            }
            for message in messages
        ]

    # --- what the benchmark asks ---------------------------------------------------------------

    def control_latency(self, seconds: float) -> dict[str, Any]:
        self.latency = seconds
        return {}

    def control_counts(self) -> dict[str, Any]:
        """The requests and new connections since this was asked last."""
        counted = {"requests": dict(self.requests), "connections": self.connections}
        self.requests.clear()
        self.connections = 0
        return counted

    def control_hold(self, names: list[str]) -> dict[str, Any]:
        """Empty these queues, keep what is sent to them from now on, and hand nothing out."""
        for name in names:
            queue = self.queues.setdefault(name, Queue())
            queue.is_held = True
            queue.deleted = 0
            queue.visible.clear()
            queue.in_flight.clear()
        return {}

    def control_bodies(self, names: list[str]) -> dict[str, Any]:
        """Return the bodies of what these queues keep."""
        kept = [message for name in names for message in self.queues[name].visible]
        return {"bodies": [message.entry["MessageBody"] for message in kept]}

    def control_use(self, names: list[str]) -> dict[str, Any]:
        """Keep what is sent to these queues from now on, and hand it out."""
        for name in names:
            self.queues.setdefault(name, Queue()).is_used = True
        return {}

    def control_release(self, names: list[str]) -> dict[str, Any]:
        now = time.monotonic()
        for name in names:
            self.queues[name].is_held = False
            self.queues[name].answer_waiting()
        return {"at": now}

    def control_state(self, names: list[str]) -> dict[str, Any]:
        queues = [self.queues[name] for name in names]
        return {
            "waiting": sum(len(each.waiting) for each in queues),
            "visible": sum(len(each.visible) for each in queues),
            "in_flight": sum(len(each.in_flight) for each in queues),
            "requests": sum(each.requests for each in queues),
            "deleted": sum(each.deleted for each in queues),
            "last_delete": max(each.last_delete for each in queues),
        }


class Connection(asyncio.Protocol):
    """One connection. A client waits for an answer before its next request."""

    def __init__(self, sqs: Sqs) -> None:
        self.sqs = sqs
        self.is_counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def connection_lost(self, exc: Exception | None) -> None:
        for queue in self.sqs.queues.values():
            queue.forget(self.reply)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, value in (each.split(": ", 1) for each in lines[1:])
        }
        if len(body) < int(headers.get("content-length", 0)):
            if "expect" in headers and not body:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self.received = b""
        target = headers.get("x-amz-target", "")
        if not target:  # an envelope for Sentry
            self.write(b"{}", b"application/json")
            return
        if not self.is_counted and not target.startswith("Benchmark."):
            self.is_counted = True
            self.sqs.connections += 1
        try:
            self.sqs.answer(target, json.loads(body), headers["host"], self.reply)
        except Exception as exc:
            self.reply({"__type": type(exc).__name__, "message": repr(exc)})
            raise

    def reply(self, answer: dict[str, Any]) -> None:
        self.write(json.dumps(answer).encode(), b"application/x-amz-json-1.0", self.sqs.latency)

    def write(self, body: bytes, content_type: bytes, latency: float = 0.0) -> None:
        response = (
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nx-amzn-RequestId: 0\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (content_type, len(body), body)
        )
        if latency:
            asyncio.get_running_loop().call_later(latency, self.transport.write, response)
        else:
            self.transport.write(response)


class Control:
    """What the benchmark says to the stand-in, over one connection."""

    def __init__(self, port: int, tls_port: int) -> None:
        self.endpoint: Final = f"http://127.0.0.1:{port}"
        self.tls_endpoint: Final = f"https://127.0.0.1:{tls_port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, operation: str, **parameters: Any) -> dict[str, Any]:
        headers = {"X-Amz-Target": f"Benchmark.{operation}"}
        self._connection.request("POST", "/", json.dumps(parameters), headers)
        answer: dict[str, Any] = json.load(self._connection.getresponse())
        return answer


async def _serve(certificate: str) -> None:
    sqs = Sqs()
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    ports = []
    for tls in (None, context):
        server = await loop.create_server(
            lambda: Connection(sqs), "127.0.0.1", 0, backlog=512, ssl=tls
        )
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


def make_certificate(file: Path) -> None:
    """Write a certificate for 127.0.0.1, and its key. It is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    file.write_bytes(
        certificate.public_bytes(encoding)
        + key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
