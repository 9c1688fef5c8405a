"""What a task may rely on, and what another task of its process can spoil."""

from __future__ import annotations

import decimal
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Final

from django.core.cache import cache

from beanstalk_dispatch.process import clock


def _recurse(depth: int) -> bool:
    return depth == 0 or _recurse(depth - 1)


def _warn() -> bool:
    warnings.warn("an ordinary warning", stacklevel=1)
    return True


def _open_file() -> bool:
    with tempfile.TemporaryFile() as file:
        return file.write(b"x") == 1


def _start_thread() -> bool:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return True


def _sleep() -> bool:
    started = clock.monotonic()
    time.sleep(0.01)
    return clock.monotonic() - started > 0.005


def _run_command() -> bool:
    return subprocess.run(["true"], check=False).returncode == 0


def _open_socket() -> bool:
    with socket.socket() as opened:
        return opened.gettimeout() is None


ORDINARY: Final[dict[str, Callable[[], bool]]] = {
    "working directory": lambda: os.path.exists("pyproject.toml"),
    "decimal": lambda: str(decimal.Decimal(1) / 3) == "0." + "3" * 28,
    "json": lambda: json.loads(json.dumps({"a": 1})) == {"a": 1},
    "recursion": lambda: _recurse(300),
    "warning": _warn,
    "file": _open_file,
    "thread": _start_thread,
    "sleep": _sleep,
    "command": _run_command,
    "socket": _open_socket,
    "cache": lambda: cache.get_or_set("ordinary", 1) == 1,
    "environment": lambda: "PATH" in os.environ,
}


def do_ordinary_things() -> None:
    """Raise an AssertionError that names what does not work as it does in a new process."""
    spoiled = []
    for name, works in ORDINARY.items():
        try:
            if not works():
                spoiled.append(name)
        except Exception as exc:
            spoiled.append(f"{name} ({type(exc).__name__})")
    if spoiled:
        raise AssertionError(f"another task has spoiled: {', '.join(spoiled)}")
