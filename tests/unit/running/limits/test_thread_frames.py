"""Where another thread is, on every version of Python, and where it is not interrupted."""

from __future__ import annotations

import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.running.limits import thread_frames
from beanstalk_dispatch.running.limits import time_limit as timeouts
from beanstalk_dispatch.running.limits.thread_frames import (
    frame_of,
    is_interruptible,
    threads_within,
)
from beanstalk_dispatch.running.limits.time_limit import time_limit


def test_the_frame_of_a_thread() -> None:
    frame = frame_of(threading.get_ident())
    assert frame is not None
    assert frame.f_code.co_filename == thread_frames.__file__


def test_the_threads_within_a_function() -> None:
    here = test_the_threads_within_a_function.__name__
    assert threads_within(__name__, here) == {threading.get_ident()}
    assert threads_within("another", here) == set()


def test_a_thread_that_has_ended_has_no_frame() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert frame_of(thread.ident) is None


@pytest.mark.parametrize("is_enabled", [True, False])
def test_no_garbage_collection_starts_where_it_would_stop_every_thread(
    is_enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def current_frames() -> dict[int, FrameType]:
        seen.append(gc.isenabled())
        return {}

    monkeypatch.setattr(thread_frames, "_GARBAGE_COLLECTION_STOPS_THREADS", True)
    monkeypatch.setattr(sys, "_current_frames", current_frames)
    if not is_enabled:
        gc.disable()
    try:
        assert frame_of(1) is None
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
    assert seen == [False]


# --- code that is not interrupted, because what it leaves half done breaks every task ---


def called_in_module(name: str) -> Callable[[Callable[[], None]], None]:
    """A function of a module of that name, which calls another function."""
    scope: dict[str, Any] = {"__name__": name}
    exec("def call(function):\n    function()", scope)
    call: Callable[[Callable[[], None]], None] = scope["call"]
    return call


@pytest.mark.parametrize(
    ("module", "expected", "expected_late"),
    [
        ("shop.tasks", True, True),
        ("importlib._bootstrap", False, True),
        ("logging", True, True),
        ("psycopg_pool.pool", False, False),
    ],
)
def test_a_thread_with_such_code_on_its_stack(
    module: str, expected: bool, expected_late: bool
) -> None:
    found: list[bool] = []

    def look() -> None:
        here = threading.get_ident()
        found.extend(is_interruptible(here, is_late=late) for late in (False, True))

    thread = threading.Thread(target=lambda: called_in_module(module)(look))
    thread.start()
    thread.join()
    assert found == [expected, expected_late]


@pytest.mark.parametrize(
    ("module", "innermost", "expected"),
    [
        ("beanstalk_dispatch.sqs.circuit", "beanstalk_dispatch.sqs.circuit", False),
        ("beanstalk_dispatch.contrib.outbox.sender", "threading", False),
        ("beanstalk_dispatch.sqs.queue", "botocore.client", True),
        ("beanstalk_dispatch.running.attempt", "beanstalk_dispatch.running.attempt", True),
        ("beanstalk_dispatch.contrib.results.waiting", "beanstalk_dispatch.process.clock", True),
        ("shop.tasks", "threading", True),
    ],
)
def test_our_own_code_may_be_about_to_take_a_lock(
    module: str, innermost: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.14 on, an interrupt may leave that lock locked. A task in C takes none."""
    frames: list[FrameType | None] = []

    def keep_frame() -> None:
        here = inspect.currentframe()
        assert here is not None
        frames.append(here.f_back)

    called_in_module(module)(partial(called_in_module(innermost), keep_frame))
    monkeypatch.setattr(thread_frames, "frame_of", lambda thread_id: frames[0])
    assert is_interruptible(0, is_late=False) is expected
    assert is_interruptible(0, is_late=True)


def test_a_thread_that_has_ended() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert thread.ident
    assert is_interruptible(thread.ident, is_late=False)


@pytest.mark.slow
def test_a_wait_for_a_pool_is_reported_as_stuck_and_interrupted_after_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timeouts, "GRACE", 0.1)
    returned: list[bool] = []

    def wait() -> None:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            time.sleep(0.01)
        returned.append(True)

    def task() -> None:
        with pytest.raises(TaskTimeout), time_limit(0.1):
            called_in_module("psycopg_pool.pool")(wait)
            while True:
                pass

    thread = threading.Thread(target=task)
    thread.start()
    thread.join(20)
    assert returned == [True]
    assert "stuck task" in caplog.text
