"""Servers of Debian packages that tests start and stop themselves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """One server on a free port, for as long as the block lasts; ``arguments`` take the port.

    Where the program is missing, the test is skipped; but not in CI, where it fails.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
        if path is None:
            missing = pytest.fail if os.environ.get("CI") else pytest.skip
            missing(f"{program} is not installed; apt-get install {program}")
        self.port = free_port()
        self._command = [path, *(each.format(port=self.port) for each in arguments)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return self

    def pause(self) -> None:
        """Keep the connections and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(20)


def redis() -> Service:
    return Service("redis-server", "--bind", "127.0.0.1", "--port", "{port}", "--save", "")


def memcached() -> Service:
    return Service("memcached", "-l", "127.0.0.1", "-p", "{port}", "-u", "nobody")
