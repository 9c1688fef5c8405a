"""Locks of log handlers around a task: none stays locked, or every other thread would wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.left_behind.restoring import release_left_locked
from beanstalk_dispatch.safe_task import SafeTask
from tests.conftest import Environment
from tests.runs import deliver

LEFT = "log lock left locked id=1 function=leave handlers=console"


class Handler(logging.NullHandler):
    """A handler with a lock, which a NullHandler does not have."""

    def createLock(self) -> None:  # noqa: N802 - logging's name
        self.lock = threading.RLock()


class Leave:
    """What the listed task does."""

    handler: logging.Handler

    def once(self) -> None:
        self.handler.acquire()

    def twice(self) -> None:
        self.once()
        self.once()

    def of_threading(self) -> None:
        threading._active_limbo_lock.acquire()  # type: ignore[attr-defined]

    def at_the_interrupt(self) -> None:
        """Wait for the lock while the time limit passes. The interrupt strikes as it is got."""
        lock: Any = self.handler.lock
        lock.acquire()
        try:  # pragma: no cover - the interrupt strikes before it
            time.sleep(20)
        finally:  # pragma: no cover - likewise
            lock.release()


leaving = Leave()


class Task(SafeTask):
    verbose = False
    timeout_timedelta = timedelta(seconds=0.2)

    def run(self, how: str) -> None:
        getattr(leaving, how)()


@pytest.fixture
def handler() -> Iterator[logging.Handler]:
    leaving.handler = Handler()
    leaving.handler.name = "console"
    yield leaving.handler
    leaving.handler.close()


def run(how: str) -> Outcome:
    body = Message(function="leave", args=[how], id="1").encode(queue="q")
    return deliver(body, Delivery(queue="q")).outcome


def is_free(handler: logging.Handler) -> bool:
    """Whether another thread can get the handler's lock."""
    lock: Any = handler.lock
    found: list[bool] = []

    def look() -> None:
        found.append(lock.acquire(blocking=False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("how", ["once", "twice"])
def test_a_lock_that_a_task_leaves_locked_is_released(
    how: str, env: Environment, handler: logging.Handler, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE=f"leave={__name__}.Task")
    assert run(how) is Outcome.DONE
    assert is_free(handler)
    assert LEFT in caplog.text


def test_a_task_cannot_keep_other_tasks_from_starting_threads(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE=f"leave={__name__}.Task")
    assert run("of_threading") is Outcome.DONE
    assert threading._active_limbo_lock._is_owned() is False  # type: ignore[attr-defined]
    assert "log lock left locked id=1 function=leave handlers=threading" in caplog.text


@pytest.mark.slow
def test_a_lock_that_the_interrupt_left_locked_is_released(
    env: Environment, handler: logging.Handler, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE=f"leave={__name__}.Task")
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(run("at_the_interrupt")))
    handler.acquire()
    thread.start()
    time.sleep(0.6)
    handler.release()
    thread.join(10)
    assert found == [Outcome.TIMED_OUT]
    assert is_free(handler)
    assert LEFT in caplog.text


def test_a_lock_that_the_calling_process_holds_is_left_alone(
    env: Environment, handler: logging.Handler
) -> None:
    """A log handler may schedule a task that runs at once."""
    env(DISPATCH_TABLE=f"leave={__name__}.Task", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    handler.acquire()
    assert run("once") is Outcome.DONE
    assert not is_free(handler)
    handler.release()
    handler.release()


def test_a_handler_without_a_lock_or_with_another_one_is_passed_over(
    handler: logging.Handler,
) -> None:
    other: Any = threading.Lock()
    handler.lock = other
    with other:
        assert release_left_locked() == ""
    handler.lock = None
    assert release_left_locked() == ""


def test_a_handler_that_is_gone_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_handlerList", [lambda: None])
    assert release_left_locked() == ""


def test_a_handler_without_a_name_is_reported_by_its_class(handler: logging.Handler) -> None:
    handler.name = None
    handler.acquire()
    assert release_left_locked() == "Handler"


def test_the_lock_of_logging_itself_is_released() -> None:
    lock: Any = logging._lock  # type: ignore[attr-defined]
    lock.acquire()
    assert release_left_locked() == "logging"
    assert release_left_locked() == ""
