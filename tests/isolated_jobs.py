"""Tasks for processes of their own. Each harms the process in which it runs."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.safe_task import Retry, SafeTask

kept: list[Any] = []


def note(path: str) -> None:
    """Write the process id and whether this is the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()} {is_main}\n")


async def note_later(path: str) -> None:
    await sync_to_async(note)(path)


@dataclass(frozen=True)
class FrozenError(Exception):
    """An error none of whose attributes can be set."""

    number: int


async def fail_later(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise FrozenError(5)


def fail() -> None:
    raise ValueError("no such customer")


def fail_to_send() -> None:
    raise SendError("SQS is away")


def retry() -> None:
    raise Retry(delay=1)


def leave_at_once(code: int) -> None:
    os._exit(code)


def crash() -> None:
    ctypes.string_at(0)


def hold_lock() -> None:
    """Keep the interpreter's lock for ever, so that no Python code can stop it.

    As a regular expression does that takes years, but without the CPU: it waits for itself.
    """
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.pythonapi.pthread_mutex_lock(mutex)


def swallow() -> None:
    """Run on after the interrupt of the time limit, in Python code."""
    while True:
        with suppress(BaseException):
            time.sleep(60)


def sleep(seconds: float, path: str = "") -> None:
    if path:
        note(path)
    time.sleep(seconds)


def leave_pool() -> None:
    ThreadPoolExecutor(1, "left-pool").submit(time.sleep, 20)


def leave_thread() -> None:
    threading.Thread(target=time.sleep, args=(60,), name="left-here", daemon=True).start()


def leave_files() -> None:
    kept.extend(os.dup(2) for _ in range(20))


def leave_loop() -> None:
    asyncio._set_running_loop(asyncio.new_event_loop())


def leave_timer() -> None:
    signal.setitimer(signal.ITIMER_PROF, 3600)


def leave_handler() -> None:
    signal.signal(signal.SIGUSR1, lambda *args: None)


def use_memory(mebibytes: int, seconds: float = 0) -> None:
    kept.append(b"x" * (mebibytes << 20))
    time.sleep(seconds)


def write_everywhere() -> None:
    """Write to every descriptor that the process has, as a confused library may."""
    for descriptor in range(3, 64):
        with suppress(OSError):
            os.write(descriptor, b"x" * 64)


def close_everything() -> None:
    os.closerange(3, 64)


def signal_group(path: str) -> None:
    """Start a program, and end it by a signal for its process group."""
    Path(path).write_text(str(subprocess.Popen(["sleep", "60"]).pid))
    os.killpg(0, signal.SIGUSR1)


def start_program(path: str) -> None:
    """Start a program, and leave it behind."""
    Path(path).write_text(str(subprocess.Popen(["sleep", "60"]).pid))
    os._exit(1)


def kill_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])


def open_all_files() -> None:
    """Open files until no more may be open, and keep them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
    with suppress(OSError):
        while True:
            kept.append(os.dup(2))


def print_text(text: str) -> None:
    print(text)


def end_forked() -> None:
    """Fork processes, and end each by SIGTERM at once, as multiprocessing does."""
    for _ in range(20):
        if not (process_id := os.fork()):
            time.sleep(60)
        os.kill(process_id, signal.SIGTERM)
        assert os.waitpid(process_id, 0)[1] == signal.SIGTERM


def write_at_end(path: str) -> None:
    """Write to a file at the end of the process, as a library sends its last events."""

    def write() -> None:
        time.sleep(0.2)
        Path(path).touch()

    atexit.register(write)


class Initialized(SafeTask):
    """A class of which the parent must not make an instance."""

    isolation = "fresh"

    def __init__(self) -> None:
        super().__init__()
        note(os.environ["BEANSTALK_TEST_NOTES"])

    def run(self) -> None:
        leave_at_once(9)
