"""The tasks: one that has done nothing wrong, and the culprits beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from typing import Any

from django.db import connection, transaction
from django.utils import timezone, translation

from beanstalk_dispatch.safe_task import SafeTask

from .ordinary import do_ordinary_things

LIMIT = 0.2
"""The time limit of the tasks that exceed theirs, in seconds."""
_MIB = 2**20


def _insert(table: str, run: str, number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (%s, %s)", [run, number])


def blameless(run: str, number: int, seconds: float) -> None:
    """Write a row at the start and one, which is the work, at the end."""
    if (translation.get_language(), timezone.get_current_timezone_name()) != ("en-us", "UTC"):
        raise AssertionError("this is the language or the time zone of another task")
    _insert("starts", run, number)
    do_ordinary_things()
    time.sleep(seconds)
    with transaction.atomic():
        _insert("work", run, number)


class Blameless(SafeTask):
    """The same, with the time that a busy machine needs."""

    timeout_timedelta = 60

    def run(self, run: str, number: int, seconds: float) -> None:
        blameless(run, number, seconds)


# --- databases -------------------------------------------------------------------------------


class LimitInCommit(SafeTask):
    """Commit one small transaction after the other, and end as if all were done when one fails."""

    timeout_timedelta = LIMIT
    verbose = False

    def run(self, run: str) -> None:
        with contextlib.suppress(Exception):
            while True:
                with transaction.atomic():
                    _insert("spoiled", run, 0)


def begin(run: str) -> None:
    """Leave a transaction open that Django does not know of."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    _insert("spoiled", run, 0)


def enter_atomic(run: str) -> None:
    """Leave a transaction open that Django knows of."""
    transaction.atomic().__enter__()
    _insert("spoiled", run, 0)


# --- exceptions and limits -------------------------------------------------------------------


class PanicException(BaseException):
    """As a Rust extension raises it."""


def panic(run: str) -> None:
    raise PanicException("called `Option::unwrap()` on a `None` value")


def generator_exit(run: str) -> None:
    raise GeneratorExit


def keyboard_interrupt(run: str) -> None:
    raise KeyboardInterrupt


def system_exit(run: str) -> None:
    raise SystemExit(3)


class Swallows(SafeTask):
    """Swallow the interrupt of the time limit, and return as if nothing had happened."""

    timeout_timedelta = LIMIT
    verbose = False

    def run(self, run: str) -> None:
        with contextlib.suppress(BaseException):
            while True:
                sum(range(100))


class Endless(SafeTask):
    """Swallow one interrupt after the other."""

    timeout_timedelta = LIMIT
    verbose = False

    def run(self, run: str) -> None:
        until = time.monotonic() + 12
        while time.monotonic() < until:
            with contextlib.suppress(BaseException):
                sum(range(100))


class StuckOnce(SafeTask):
    """Sit in one C call for ever when it runs for the first time, which a row shows."""

    timeout_timedelta = 3
    verbose = False

    def run(self, run: str) -> None:
        assert self.delivery is not None
        assert self.delivery.message is not None
        number = int(self.delivery.message.id.rpartition("-")[2])
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM spoiled WHERE run = %s AND number = %s", [run, number])
            has_run = cursor.fetchone()
        if not has_run:
            _insert("spoiled", run, number)
            time.sleep(10**6)


class _Endless(Exception):
    def __str__(self) -> str:
        until = time.monotonic() + 10**6
        while time.monotonic() < until:
            time.sleep(0.01)
        return ""


class HangsInInit(SafeTask):
    """Hang before there is a task."""

    def __init__(self) -> None:
        str(_Endless())

    def run(self, run: str) -> None:
        pass


class HangsInStr(SafeTask):
    """Fail with an exception that does not say what it is."""

    def run(self, run: str) -> None:
        raise _Endless


class HangsInBackoff(SafeTask):
    """Hang when it is asked how long to wait."""

    max_retries = 1
    verbose = False

    def retry_backoff(self, exc: BaseException | None, attempt: int) -> float:
        return len(str(_Endless()))

    def run(self, run: str) -> None:
        raise ValueError


def leave_threads(run: str) -> None:
    """Leave ten threads behind, each with a connection. Those of a pool would count once."""
    connected = threading.Barrier(11)

    def connect() -> None:
        connection.ensure_connection()
        connected.wait(20)
        threading.Event().wait()

    for _ in range(10):
        threading.Thread(target=connect, daemon=True).start()
    connected.wait(20)


# --- the process -----------------------------------------------------------------------------


def keep_interpreter_lock(run: str) -> None:
    """Match for years, without a moment in which another thread can run."""
    re.match(r"(a+)+$", "a" * 40 + "b")


def exit_process(run: str) -> None:
    os._exit(1)


def fork_ten(run: str) -> None:
    """Fork ten processes, each of which leaves the task in another way."""
    for number in range(10):
        if os.fork() == 0:
            if number % 3 == 0:
                raise SystemExit
            if number % 3 == 1:
                raise ValueError(number)
            return
    for _ in range(10):
        os.wait()


def exhaust_memory(run: str) -> None:
    """Take all the memory that the process may have, and fail."""
    taken: list[Any] = []
    while True:
        taken.append(bytearray(8 * _MIB))


# --- what all threads share ------------------------------------------------------------------


def keep_log_locks(run: str) -> None:
    """Lock what every log line of the process needs, and do not release it."""
    logging._lock.acquire()  # type: ignore[attr-defined]
    for handler in logging.getLogger().handlers:
        handler.acquire()


def activate(run: str) -> None:
    """Activate a language and a time zone."""
    translation.activate("de")
    timezone.activate("Asia/Tokyo")


def patch_time(run: str) -> None:
    """Stop the clocks, as a helper for tests does that nobody ends."""
    now, monotonic = time.time(), time.monotonic()
    time.time = lambda: now
    time.monotonic = lambda: monotonic


def nap(run: str, seconds: float) -> None:
    """Take long, and write a row at the start."""
    _insert("spoiled", run, 0)
    time.sleep(seconds)


def compute(run: str, seconds: float) -> None:
    """Keep a thread busy with Python alone, which leaves other threads little of the CPU."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(100))


def fail(run: str) -> None:
    raise ValueError("this task fails each time")
