"""What the measured process talks to, each a process of its own: an SQS stub and a load generator.

``python -m benchmarks.processes sqs`` prints its port and serves until it is stopped.
``python -m benchmarks.processes load PORT SECONDS`` reads a request from stdin, repeats it on
CONNECTIONS keep-alive connections, and prints how many answers of 200 it had per second.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

CONNECTIONS = 15  # as many as gunicorn has threads


def _md5(body: str) -> str:
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def _answer(operation: str, asked: dict[str, Any], host: str) -> dict[str, Any]:
    def sent(entry: dict[str, Any]) -> dict[str, str]:
        return {"MessageId": str(uuid.uuid4()), "MD5OfMessageBody": _md5(entry["MessageBody"])}

    if operation == "GetQueueUrl":
        return {"QueueUrl": f"http://{host}/000000000000/{asked['QueueName']}"}
    if operation == "SendMessage":
        return sent(asked)
    return {"Successful": [{"Id": each["Id"], **sent(each)} for each in asked["Entries"]]}


class Stub(asyncio.Protocol):
    """Answers GetQueueUrl, SendMessage and SendMessageBatch, and keeps nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        for head, body in self.requests():
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
            headers = {name.lower(): value for name, value in fields.items()}
            operation = headers["x-amz-target"].partition(".")[2]
            answer = json.dumps(_answer(operation, json.loads(body), headers["host"])).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
                b"x-amzn-RequestId: 0\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
            )

    def requests(self) -> Iterator[tuple[str, bytes]]:
        while True:
            head, blank, rest = self.received.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            if not blank or len(rest) < int(length or 0):
                return
            self.received = rest[int(length or 0) :]
            yield head.decode("latin-1"), rest[: int(length or 0)]


class Load(asyncio.Protocol):
    """Sends the request again as soon as the answer is there."""

    answered = 0

    def __init__(self, request: bytes) -> None:
        self.request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n\r\n{}"):
            assert self.received.startswith(b"HTTP/1.1 200 "), self.received
            Load.answered += 1
            self.received = b""
            self.transport.write(self.request)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def load(port: int, seconds: float, request: bytes) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Load(request), "127.0.0.1", port)
    await asyncio.sleep(seconds / 10)
    Load.answered, started = 0, time.monotonic()
    await asyncio.sleep(seconds)
    print(Load.answered / (time.monotonic() - started), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "sqs":
        asyncio.run(serve())
    else:
        asyncio.run(load(int(sys.argv[2]), float(sys.argv[3]), sys.stdin.buffer.read()))
