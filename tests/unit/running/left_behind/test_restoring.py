"""A task that hides the log or leaves an event loop is put right, and the log names the task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.left_behind.restoring import LoggingState
from beanstalk_dispatch.running.running_tasks import RUNNING
from tests import jobs
from tests.conftest import Environment
from tests.runs import deliver

LOGGER = logging.getLogger("beanstalk_dispatch")


def disable_loggers() -> None:
    LOGGER.disabled = True


STATE: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "logging-level": (lambda: logging.disable(50), lambda: logging.root.manager.disable),
    "disabled-loggers": (disable_loggers, lambda: LOGGER.disabled),
}


@pytest.fixture(params=STATE)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    before = LoggingState()
    yield request.param
    before.restore()


def test_what_hides_the_log_of_other_tasks_is_restored(name: str) -> None:
    change, look = STATE[name]
    before, state = look(), LoggingState()
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
    assert LoggingState().restore() == []
    assert look() == of_the_project


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
        disable_loggers()

    monkeypatch.setattr(jobs, "record", change_everything)
    env(WORKER=True, DISPATCH_TABLE="changes=tests.jobs.record")
    body = Message(function="changes", id="culprit").encode(queue="q")
    assert deliver(body, Delivery(queue="q")).outcome is Outcome.DONE
    assert not LOGGER.disabled
    line = (
        "process state restored id=culprit function=changes "
        "changed='disabled-loggers, logging-level' beside="
    )
    assert f"{line}none" in caplog.text
    with RUNNING.task(Message(function="other"), Delivery(queue="q"), get_config()):
        deliver(body, Delivery(queue="q"))
    assert f"{line}other" in caplog.text
