"""A real HTTP server that passes requests on to an SQS server, or spoils them as told."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, dict[str, Any] | str]
"""A status with JSON or, as from a program that is not SQS, with a page."""
Spoil = Callable[[str, dict[str, Any]], Answer | None]


def error(status: int, code: str, message: str = "told to fail") -> Answer:
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": message}


class Proxy:
    """``spoil(operation, request)`` may answer in the server's place; None passes on.

    ``counts`` has the requests by operation. With ``long_poll_second`` a second of a long poll
    takes that many seconds, so that a test need not wait for the ends of long polls. The server
    then has one request at a time: moto may hand out a message twice to receives in two threads.
    """

    def __init__(self, upstream: str, *, long_poll_second: float = 1.0) -> None:
        self._long_poll_second = long_poll_second
        self._one_at_a_time = threading.Lock() if long_poll_second != 1 else nullcontext()
        self.counts: Counter[str] = Counter()
        self.spoil: Spoil = lambda operation, request: None
        self.connections: list[socket.socket] = []
        self.is_open = True
        self._upstream = urlsplit(upstream).netloc
        self._server = _idle.pop() if _idle else _Server()
        self._server.proxy = self
        self.url = self._server.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_open = False
        for connection in self.connections:
            with suppress(OSError):  # it may be closed
                connection.shutdown(socket.SHUT_RDWR)
        _idle.append(self._server)

    def answer(self, operation: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """The server's answer. A long poll that is to be short is many polls without a wait."""
        if operation != "ReceiveMessage" or self._long_poll_second == 1:
            return self.forward(body, headers)
        request = json.loads(body)
        seconds = request.pop("WaitTimeSeconds", 0) * self._long_poll_second
        body = json.dumps(request | {"WaitTimeSeconds": 0}).encode()
        headers = headers | {"Content-Length": str(len(body))}
        deadline = time.monotonic() + seconds
        while True:
            status, content = self.forward(body, headers)
            if time.monotonic() >= deadline or status != 200 or b"ReceiptHandle" in content:
                return status, content
            time.sleep(0.01)

    def forward(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        with (
            self._one_at_a_time,
            closing(http.client.HTTPConnection(self._upstream, timeout=30)) as connection,
        ):
            connection.request("POST", "/", body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    _proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for the ACK of its headers

    def setup(self) -> None:
        super().setup()
        self._proxy = self.server.proxy
        self._proxy.connections.append(self.connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        target = self.headers["X-Amz-Target"]
        request = json.loads(body) if target else dict(parse_qsl(body.decode()))
        operation = target.partition(".")[2] if target else request["Action"]  # STS
        self._proxy.counts[operation] += 1
        keeps_open, self.close_connection = not self.close_connection, True
        with suppress(OSError):  # the server does not answer, or the client has gone
            answer = self._proxy.spoil(operation, request)
            if answer is None:
                status, content = self._proxy.answer(operation, body, dict(self.headers))
            else:
                status, given = answer
                text = given if isinstance(given, str) else json.dumps(given)
                content = text.encode("utf-8", "surrogateescape")
            self.send_response(status)
            is_page = content.startswith(b"<html")
            kind = "text/html" if is_page else "application/x-amz-json-1.0"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = not keeps_open

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class _Server(ThreadingHTTPServer):
    """Serves one proxy after the other at the same address, so that clients can be kept."""

    daemon_threads = True
    proxy: Proxy

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        URLS.add(self.url)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self.proxy.is_open


URLS: Final[set[str]] = set()
"""The addresses of all proxies so far."""
_idle: Final[list[_Server]] = []
