"""The processes of benchmarks and fault tests: a load generator, gunicorn, and their environment.

``python -m benchmarks.processes load`` reads lines of JSON with ``port``, ``seconds`` and
``request``. It sends the request again and again on CONNECTIONS keep-alive connections for that
time. It counts only answers with status 200, and prints their number and the time in seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psutil

CONNECTIONS = 15  # as many as gunicorn has threads


VARIABLES = {
    "BEANSTALK_WORKER": "True",
    "BEANSTALK_DISPATCH_TABLE": "noop=benchmarks.urls.no_op",
    "BEANSTALK_DISPATCH_CREATE_QUEUES": "True",
    "BEANSTALK_DISPATCH_SQS_KEY": "key",
    "BEANSTALK_DISPATCH_SQS_SECRET": "secret",
    "BEANSTALK_DISPATCH_SQS_REGION": "us-east-1",
    "DJANGO_SETTINGS_MODULE": "example_settings.settings",
    "SECRET_KEY": "benchmark",
    "DATABASE_URL": "sqlite://:memory:",
    "LOG_LEVEL": "WARNING",  # the log has no line for each task
}
"""The environment of the fault tests."""


@contextmanager
def process(*command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command without its output until the block ends."""
    child = subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def running(*command: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a Python module in another process until the block ends."""
    with subprocess.Popen(
        (sys.executable, "-m", *command),
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def environment(endpoint: str, home: str) -> dict[str, str]:
    """Return the whole environment, without any AWS configuration of this machine."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "PYTHONHASHSEED": "0",
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "SECRET_KEY": "for-benchmarks-only",
        "DATABASE_URL": "sqlite://:memory:",
        "LOG_LEVEL": "WARNING",
        "NO_PROXY": "127.0.0.1",
        "BEANSTALK_WORKER": "True",
        "BEANSTALK_DISPATCH_TABLE": "f=benchmarks.urls.no_op",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": endpoint,
        "BEANSTALK_DISPATCH_SQS_REGION": "eu-west-1",
        "BEANSTALK_DISPATCH_SQS_KEY": "benchmark",
        "BEANSTALK_DISPATCH_SQS_SECRET": "benchmark",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def gunicorn(env: dict[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    """Run gunicorn with one worker of 15 threads. Yield its port and its process."""
    port = free_port()
    command = ("gunicorn", "django.core.wsgi:get_wsgi_application()", "--workers=1",
               "--threads=15", f"--bind=127.0.0.1:{port}", "--log-level=warning")  # fmt: skip
    with running(*command, env=env) as process:
        wait_for(port)
        yield port, psutil.Process(process.pid)


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and of those that it has started."""
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


@contextmanager
def load(env: dict[str, str]) -> Iterator[Callable[..., dict[str, float]]]:
    """Run the load generator. Yield what sends a request to gunicorn again and again."""
    with running("benchmarks.processes", "load", env=env) as generator:

        def post_for(
            seconds: float, request: str, port: int, process: psutil.Process
        ) -> dict[str, float]:
            """What one answer has taken."""
            assert generator.stdin
            assert generator.stdout
            before = _cpu(process)
            order = {"port": port, "seconds": seconds, "request": request}
            print(json.dumps(order), file=generator.stdin, flush=True)
            answers, took = json.loads(generator.stdout.readline())
            return {"wall": took / answers, "cpu": (_cpu(process) - before) / answers}

        yield post_for


MESSAGE_ID: Final = "3ab1d0ab-5f50-4c1f-8a4f-6d3e9a4d3f64"
"""In each request that is sent, a number stands in its place: a process runs no message twice."""


def post(path: str, content: str) -> str:
    """Return the bytes of the daemon's POST."""
    return (
        f"POST /{path}/dispatcher HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: aws-sqsd/3.0.4\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        f"X-Aws-Sqsd-Msgid: {MESSAGE_ID}\r\nX-Aws-Sqsd-Queue: q\r\n"
        "X-Aws-Sqsd-First-Received-At: 2026-01-02T03:04:05Z\r\nX-Aws-Sqsd-Receive-Count: 1\r\n"
        f"\r\n{content}"
    )


# --- load ------------------------------------------------------------------------------------


_message_numbers = itertools.count()


class _Connection(asyncio.Protocol):
    """Send the request, and send it again after each answer, until the time ``until``."""

    def __init__(self, request: bytes, until: float) -> None:
        self.before, _, self.after = request.partition(MESSAGE_ID.encode())
        self.until = until
        self.answers, self.received = 0, b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.transport.write(b"%b%036d%b" % (self.before, next(_message_numbers), self.after))

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(b"\r\n\r\n{}"):
            return
        self.answers += self.received.startswith(b"HTTP/1.1 200 ")
        self.received = b""
        if time.monotonic() < self.until:
            self.send()
        else:
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed by the server"))


async def _load(port: int, seconds: float, request: str) -> None:
    started = time.monotonic()
    connections = [
        (
            await asyncio.get_running_loop().create_connection(
                lambda: _Connection(request.encode(), started + seconds), "127.0.0.1", port
            )
        )[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.wait_for(asyncio.gather(*(each.done for each in connections)), seconds + 30)
    answers = sum(each.answers for each in connections)
    print(json.dumps([answers, time.monotonic() - started]), flush=True)


if __name__ == "__main__":
    for line in sys.stdin:
        asyncio.run(_load(**json.loads(line)))
