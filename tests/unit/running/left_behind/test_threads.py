"""Threads that tasks leave behind are counted, and the task is named."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.left_behind import threads as left_threads
from beanstalk_dispatch.running.left_behind.threads import LEFT
from tests import jobs
from tests.conftest import Environment
from tests.runs import deliver, noted

release = threading.Event()


def leave(count: int = 1, name: str | None = None) -> None:
    """Start threads, each of which starts another one."""

    def start_another() -> None:
        thread(release.wait, name).start()
        release.wait(20)

    def thread(target: object, name: str | None) -> threading.Thread:
        return threading.Thread(target=target, name=name, daemon=True)  # type: ignore[arg-type]

    for _ in range(count):
        thread(start_another, name).start()


def leave_pool() -> None:
    """Start a thread as psycopg's pool does, which keeps its connections for all tasks."""

    def work() -> None:
        release.wait(20)

    work.__module__ = "psycopg_pool.pool"
    threading.Thread(target=work, daemon=True).start()


def leave_none() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    broken = threading.Thread(target=int)
    broken._started.set()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError):
        broken.start()


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    LEFT.forget_all()
    THROTTLE.forget()
    monkeypatch.setattr(left_threads, "ENDING_SECONDS", 0.0)
    release.clear()
    yield
    release.set()
    for thread in LEFT.left():
        thread.join(20)
    assert LEFT.left() == {}
    THROTTLE.forget()


def run(env: Environment, function: str, *args: object) -> None:
    env(WORKER=True, DISPATCH_TABLE=f"leaky={__name__}.{function} calm=tests.jobs.record")
    body = Message(function="leaky", id="culprit", args=list(args)).encode(queue="q")
    deliver(body, Delivery(queue="q"))


def test_the_threads_of_a_task_and_those_that_they_start_are_its_own(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    beside = threading.Thread(target=release.wait, args=(20,))
    beside.start()
    run(env, "leave", 3, "worker")
    until_started(6)
    assert LEFT.summary() == "leaky 6"
    line = "threads left behind id=culprit function=leaky count="
    assert line in caplog.text
    assert "threads=worker, worker" not in caplog.text  # quoted
    assert not LEFT.delay_exit()
    assert not LEFT.are_too_many()
    caplog.clear()
    run(env, "leave_none")
    assert "left behind" not in caplog.text


def until_started(count: int) -> None:
    from tests.services import until

    until(lambda: len(LEFT.left()) == count)


def test_the_threads_of_a_pool_are_not_reported_and_count(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    run(env, "leave_pool")
    assert "left behind" not in caplog.text
    assert LEFT.summary() == "leaky 1"


def test_one_line_a_minute_for_each_function(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        run(env, "leave")
    assert caplog.text.count("threads left behind") == 1


def test_too_many_are_known(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_threads, "MAX_LEFT", 5)
    run(env, "leave", 3)
    until_started(6)
    assert LEFT.are_too_many()


def test_those_that_have_ended_are_forgotten_where_nobody_reports_them(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_threads, "MAX_LEFT", 5)
    env(DISPATCH_TABLE=f"leaky={__name__}.leave_none", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    for _ in range(20):
        schedule_function("q", "leaky")
    assert len(LEFT._starters) <= 6


def test_threads_of_the_package_belong_to_no_task(env: Environment) -> None:
    run(env, "leave", 1, "beanstalk_dispatch-watchdog")
    assert LEFT.left() == {}


def test_a_thread_that_is_no_daemon_delays_the_exit(env: Environment) -> None:
    with noted(Message(function="outer")):
        with noted(Message(function="inner")):
            pass
        thread = threading.Thread(target=release.wait, args=(20,))
        thread.start()
        assert not LEFT.delay_exit()  # its task runs
    assert LEFT.delay_exit()
    assert LEFT.summary() == "outer 1"


def test_a_task_that_leaves_none_is_not_named(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    run(env, "leave_none")
    LEFT.report()
    assert LEFT.left() == {}
    assert "left behind" not in caplog.text
    assert jobs.calls == []
