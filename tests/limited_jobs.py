"""A task that shows in a file when it runs, for tests of limits. It is used in other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path


def work(path: str, number: int, seconds: float) -> None:
    note(path, f"start {number}")
    time.sleep(seconds)
    note(path, f"end {number}")


def note(path: str, event: str) -> None:
    """Write a line at once: with the time, the process and the event."""
    line = f"{time.time()} {os.getpid()} {event}\n"
    descriptor = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)
