"""Tasks for the tests. What they saw is in ``calls``."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from django.db import connections

from beanstalk_dispatch.exceptions import TaskCancelled
from beanstalk_dispatch.safe_task import Retry, SafeTask

calls: list[tuple[Any, ...]] = []
release = threading.Event()


def record(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


def fail(reason: str = "no reason") -> None:
    raise ValueError(reason)


def stop() -> None:
    raise TaskCancelled("the customer has left")


def append(path: str, number: int) -> None:
    """Show in a file that this has run, for tests of other processes."""
    with Path(path).open("a") as file:
        file.write(f"{number}\n")


def linger(path: str, seconds: float) -> None:
    """Show in a file the start and the end of a task that takes ``seconds``."""
    append(path, 0)
    time.sleep(seconds)
    append(path, 1)


def hang_once(path: str) -> None:  # pragma: no cover - in a process that is killed
    """Takes a minute when it runs for the first time, which a file shows."""
    has_run = Path(path).exists()
    append(path, 0)
    if not has_run:
        time.sleep(60)


_shared_pool = ThreadPoolExecutor(100)
"""As a library or a module of a project has one. Its threads start with its first uses."""


def use_shared_pool() -> None:
    list(_shared_pool.map(time.sleep, [0.05] * 20))


def nap(seconds: float) -> None:
    calls.append(("nap", seconds))
    time.sleep(seconds)


def run_in_steps(seconds: float) -> None:
    """Can be interrupted at any moment, as ``spin``, and leaves the CPU to other tests."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.001)


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(50))


def text_of_length(characters: int) -> str:
    return "x" * characters


def fail_at_length(characters: int) -> None:
    raise ValueError("x" * characters + " the end")


def loop(seconds: float = 30.0) -> None:
    spin(seconds)


def block(seconds: float = 30.0) -> None:
    """Sit in one C call, which nothing can interrupt in a thread."""
    release.wait(seconds)


class PatientNap(SafeTask):  # pragma: no cover - in another process
    """Takes long, and may."""

    timeout_timedelta = 60

    def run(self, seconds: float) -> None:
        time.sleep(seconds)


def leave_threads(count: int) -> None:  # pragma: no cover - in a process that does not wait
    """Leave threads behind, as an executor does that is not shut down."""
    for _ in range(count):
        threading.Thread(target=time.sleep, args=(300,)).start()


async def coroutine(value: str) -> None:
    calls.append(("coroutine", value))


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> Any:
    yield 1


class Recorder(SafeTask):
    """Records its hooks."""

    def run(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("run", args, kwargs, self.delivery))
        if args == ("fail",):
            raise ValueError("told to fail")

    def on_error(self, e: BaseException, /, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_error", e, args, kwargs))

    def on_success(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_success", args, kwargs))

    def on_completion(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_completion", args, kwargs))


class Flaky(SafeTask):
    """Fails until its third attempt."""

    max_retries = 2
    verbose = False

    def run(self) -> None:
        assert self.delivery is not None
        assert self.delivery.message is not None
        attempt = self.delivery.message.attempt
        calls.append(("flaky", attempt))
        if attempt < 3:
            raise ValueError("not yet")


class AlwaysRetry(SafeTask):
    def run(self, delay: float | None = None) -> None:
        calls.append(("retry", self.delivery and self.delivery.message))
        raise Retry("not yet", delay=delay)


class Choosy(SafeTask):
    """Retries after some errors only."""

    max_retries: int | None = 5
    retry_on = (OSError,)
    dont_retry_on = (FileNotFoundError,)
    verbose = False

    def run(self, error: type[Exception]) -> None:
        raise error


class Empties(SafeTask):
    """Uses its arguments up, and fails."""

    max_retries = 3
    verbose = False

    def run(self, items: list[int], more: dict[str, Any]) -> None:
        more["set"] = {1}
        while items.pop() != 2:
            more.clear()
        raise ValueError


class Yields(SafeTask):
    def run(self) -> Iterator[int]:
        yield from ()


class WrongLimit(SafeTask):
    timeout_timedelta = "five minutes"  # type: ignore[assignment]


def exits() -> None:
    raise SystemExit


class Hooked(SafeTask):
    """Looks, in its hooks, what has become of its lease by then."""

    look: Any = None

    def run(self) -> None:
        calls.append(("run",))

    def on_success(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_success", Hooked.look()))


async def blocks(seconds: float) -> None:
    """Keeps its loop from all else."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)  # noqa: ASYNC251
    calls.append(("blocked", seconds))


class FailsInItsHook(SafeTask):
    def run(self, reason: str) -> None:
        pass

    def on_success(self, reason: str) -> None:
        raise ValueError(reason)


class NeedsArgument(SafeTask):
    def __init__(self, needed: int) -> None:
        super().__init__()
        self.needed = needed


class NoLimit(SafeTask):
    timeout_timedelta = None

    def run(self) -> None:
        calls.append(("no limit",))


class OwnProcess(SafeTask):
    """As 0.1's users may have written it."""

    after: Any = None

    def process(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("before",))
        super().process(*args, **kwargs)
        if args == ("look",):
            OwnProcess.after()
        if args == ("raise",):
            raise KeyError("from process")

    def run(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("run", args))


class NotATask:
    pass


@contextmanager
def enters() -> Iterator[None]:
    yield


@asynccontextmanager
async def enters_later() -> AsyncIterator[None]:
    yield


class Enters(SafeTask):
    @contextmanager
    def run(self) -> Iterator[None]:
        yield


class ObserversOfItsOwn(Recorder):
    """Has a name in common with SafeTask, for something else."""

    @property
    def observers(self) -> list[str]:  # type: ignore[override]
        return ["a customer"]


class ObserversOfNone(Recorder):
    observers = None  # type: ignore[assignment]


class LimitThatRaises(Recorder):
    @property
    def timeout_timedelta(self) -> None:  # type: ignore[override]
        raise KeyError("no limit")


class Holder:
    def of_an_instance(self) -> None:
        calls.append(("of an instance", self))

    @functools.cache  # noqa: B019
    def cached_method(self) -> None:
        calls.append(("of an instance", self))

    @classmethod
    def of_the_class(cls) -> None:
        calls.append(("of_the_class", cls))

    @staticmethod
    def method(value: int) -> None:
        calls.append(("method", value))


instance = SafeTask(record)
a_number = 5


def interrupt() -> None:
    raise KeyboardInterrupt


def in_transaction() -> None:
    calls.append(tuple(connections[alias].in_atomic_block for alias in connections))


def zero(_: Any) -> str:
    """What PostgreSQL does not take in a text, and what has no bytes in UTF-8."""
    return "a\0b\ud800"


def to_set(items: list[Any]) -> set[Any]:
    return set(items)


class FailsTwice(SafeTask):
    """Fails in its first two deliveries."""

    max_retries = 0
    verbose = False

    def run(self) -> None:
        assert self.delivery is not None
        if self.delivery.receive_count < 3:
            raise ValueError("not yet")


class AsksAgain(SafeTask):
    """Asks for a retry because of an error, for longer than it has any."""

    max_retries = 1
    verbose = False
    retry_backoff = 0

    def run(self) -> None:
        try:
            raise KeyError("the cause")
        except KeyError as exc:
            raise Retry("ask again") from exc


class CannotBeMade(SafeTask):
    def __init__(self) -> None:
        raise RuntimeError("no service to talk to")


class FailsOften(SafeTask):
    max_retries = 1
    verbose = False
    retry_backoff = 0

    def run(self) -> None:
        raise ValueError("as always")


class InterruptedHook(SafeTask):
    def run(self) -> None:
        """Succeed."""

    def on_success(self, *args: Any, **kwargs: Any) -> None:
        interrupt()


def good_once() -> None:
    """Succeed the first time only."""
    calls.append(("once",))
    if calls.count(("once",)) > 1:
        raise ValueError("done before")


duplicate: list[Any] = []


def runs_its_duplicate() -> str:
    """Fail after another delivery of the same message has succeeded."""
    if duplicate:
        duplicate.pop()()
        raise ValueError("the first is the slower one")
    return "done"
