"""What a task changes for the whole process is restored, and the log names the task."""

from __future__ import annotations

import asyncio
import builtins
import gc
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.process_state import ProcessState
from beanstalk_dispatch.running.running_tasks import RUNNING
from tests import jobs
from tests.conftest import Environment
from tests.runs import deliver

LOGGER = logging.getLogger("beanstalk_dispatch")


def disable_loggers() -> None:
    LOGGER.disabled = True


def replace_import() -> None:
    builtins.__import__ = partial(builtins.__import__)  # other threads of the tests need one


STATE: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "recursion-limit": (lambda: sys.setrecursionlimit(500), sys.getrecursionlimit),
    "switch-interval": (lambda: sys.setswitchinterval(100), sys.getswitchinterval),
    "garbage-collection": (gc.disable, gc.isenabled),
    "logging-level": (lambda: logging.disable(50), lambda: logging.root.manager.disable),
    "disabled-loggers": (disable_loggers, lambda: LOGGER.disabled),
    "import": (replace_import, lambda: builtins.__import__),
}


@pytest.fixture(params=STATE)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    before = ProcessState()
    yield request.param
    before.restore()


def test_what_makes_other_tasks_fail_is_restored(name: str) -> None:
    change, look = STATE[name]
    before, state = look(), ProcessState()
    assert state.restore() == []
    change()
    assert look() != before
    assert state.restore() == [name]
    assert look() == before
    assert state.restore() == []


def test_what_the_project_had_before_its_first_task_stays(name: str) -> None:
    change, look = STATE[name]
    change()
    of_the_project = look()
    assert ProcessState().restore() == []
    assert look() == of_the_project


@pytest.mark.parametrize("emptied", [sys.meta_path, sys.path_hooks, sys.path])
def test_what_imports_need_is_restored_and_what_was_added_stays(emptied: list[Any]) -> None:
    before, state = list(emptied), ProcessState()
    added = object()
    emptied[:] = [added]
    if emptied is not sys.meta_path:  # which needs one finder
        emptied.clear()
    try:
        assert state.restore() == ["import-path"]
        assert emptied[: len(before)] == before
        assert emptied[len(before) :] == ([added] if emptied is sys.meta_path else [])
        assert state.restore() == []
    finally:
        emptied[:] = before


def test_what_harms_no_other_task_stays() -> None:
    state, limit = ProcessState(), sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 1)
    assert state.restore() == []
    assert sys.getrecursionlimit() == limit + 1
    sys.setrecursionlimit(limit)


def test_the_socket_timeout_of_a_task_beside_it_stays() -> None:
    before, state = socket.getdefaulttimeout(), ProcessState()
    try:
        socket.setdefaulttimeout(7)  # a neighbour that still runs
        assert state.restore() == []
        assert socket.getdefaulttimeout() == 7
    finally:
        socket.setdefaulttimeout(before)


def test_an_event_loop_left_running_is_ended_and_the_log_names_the_task(
    env: Environment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Playwright's ``sync_playwright().start()`` leaves one without a ``stop()``."""
    loop = asyncio.new_event_loop()
    loops = [loop, None]
    monkeypatch.setattr(jobs, "record", lambda: asyncio._set_running_loop(loops.pop(0)))
    env(WORKER=True, DISPATCH_TABLE="leaves=tests.jobs.record")
    body = Message(function="leaves", id="culprit").encode(queue="q")
    outcome = deliver(body, Delivery(queue="q")).outcome
    left = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    loop.close()
    assert (outcome, left) == (Outcome.DONE, None)
    assert "event loop left running id=culprit function=leaves" in caplog.text
    caplog.clear()
    deliver(body, Delivery(queue="q"))
    assert "event loop" not in caplog.text


def test_the_log_names_the_task(
    env: Environment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_everything() -> None:
        logging.disable(logging.CRITICAL)
        gc.disable()

    monkeypatch.setattr(jobs, "record", change_everything)
    env(WORKER=True, DISPATCH_TABLE="changes=tests.jobs.record")
    body = Message(function="changes", id="culprit").encode(queue="q")
    assert deliver(body, Delivery(queue="q")).outcome is Outcome.DONE
    assert gc.isenabled()
    line = (
        "process state restored id=culprit function=changes "
        "changed='garbage-collection, logging-level' beside="
    )
    assert f"{line}none" in caplog.text
    with RUNNING.task(Message(function="other"), Delivery(queue="q"), get_config()):
        deliver(body, Delivery(queue="q"))
    assert f"{line}other" in caplog.text
