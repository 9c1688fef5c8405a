"""The health of a worker: as an answer over HTTP, and as the time of a file."""

from __future__ import annotations

import http.server
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.running.definitions import dispatch_table

from .metrics import prometheus_text
from .worker import Tick, Worker, every

_NOT_IMPORTABLE: Final = "not importable: "
_MAX_CONNECTIONS: Final = 20
"""Connections at a time; another one closes the oldest, which is not a probe that works."""


def why_unhealthy(worker: Worker) -> str | None:
    """Return the reason why the worker is unhealthy; None if it is healthy.

    It is unhealthy while a task is stuck, while a listed task cannot be imported, and while a queue
    has neither answered a receive nor taken a delete for a minute longer than a long poll takes. A
    worker that is stopping receives nothing, so its queues do not count.
    """
    if stuck := worker.tasks.overdue():
        return f"{len(stuck)} stuck"
    if worker.is_stopping():
        return None
    allowed = worker.options.wait + worker.options.times.unanswered_limit
    for queue in worker.queues:
        if (seconds := queue.unanswered_seconds) > allowed:
            return f"no answer from {_own_name(queue.name)} for {seconds:.0f} s"
    if broken := dispatch_table.not_importable(get_config()):
        return f"{_NOT_IMPORTABLE}{joined(broken)}"
    return None


def _is_alive(reason: str | None) -> bool:
    """Return True unless the worker is to be replaced: its other tasks run, whatever it lacks."""
    return reason is None or _NOT_IMPORTABLE in reason


def _own_name(queue: str) -> str:
    """Return the own name of a queue. Its URL or ARN would show the account."""
    return queue.rpartition("/")[2].rpartition(":")[2]


def touch_while_healthy(worker: Worker, file: Path) -> Tick:
    """Return a tick that touches ``file`` once a second while the worker is healthy."""

    def touch() -> None:
        if _is_alive(why_unhealthy(worker)):
            file.touch()

    return every(1.0, touch)


class ProbeServer(http.server.ThreadingHTTPServer):
    """The server for probes: answers 200 or 503 at every path, and ``/metrics`` for Prometheus.

    At ``/live`` it answers 200 also while listed tasks cannot be imported.

    It listens on IPv6 and IPv4, unless the host is an address of one of them. It serves few
    connections at a time; others wait.
    """

    daemon_threads = True
    # With socketserver's 5, the kernel drops the seventh connection of a burst, and its client
    # tries again a second later: when a probe of Kubernetes has given up.
    request_queue_size = 128

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        """Listen, and do not answer yet. ``::`` and an empty host stand for all addresses.

        Raise OSError if the address cannot be used.
        """
        self.worker = worker
        self._connections: dict[Any, None] = {}
        if ":" in host or (not host and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _ProbeHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections[request] = None
        if len(self._connections) > _MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            self._connections.pop(oldest, None)
            with suppress(OSError):  # it may have been closed meanwhile
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, except that a client has gone away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _ProbeHandler(http.server.BaseHTTPRequestHandler):
    server: ProbeServer
    timeout = 5.0
    """Seconds that a connection may be silent."""

    def do_GET(self) -> None:
        status, body = self._status_and_body()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer, without a Server header."""
        self.send_response_only(code, message)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: a probe asks every few seconds."""

    def _status_and_body(self) -> tuple[int, bytes]:
        if self.path.partition("?")[0] == "/metrics":
            try:
                return 200, prometheus_text(self.server.worker)
            except ConfigurationError as exc:
                return 501, f"{exc}\n".encode()
        reason = why_unhealthy(self.server.worker)
        if self.path.partition("?")[0] == "/live" and _is_alive(reason):
            reason = None
        return (503, f"{reason}\n".encode()) if reason else (200, b"ok\n")
