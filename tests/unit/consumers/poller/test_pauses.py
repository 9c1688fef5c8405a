"""A worker receives nothing from a paused queue, also after it was killed and started again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from django.core.cache import caches

from beanstalk_dispatch.consumers.poller.pauses import Pauses
from beanstalk_dispatch.management.commands import beanstalk_daemon
from beanstalk_dispatch.management.commands.beanstalk_worker import Command
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.workers import TIMES, Recording, make_worker, running, send, until


@pytest.fixture
def paused_env(worker_env: Environment, queue_name: str) -> Iterator[str]:
    worker_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    yield queue_name
    caches["default"].clear()


OBEYS: Final[dict[str, Any]] = {
    "obeys_pauses": True, "times": replace(TIMES, pause_check_interval=0.05),
}  # fmt: skip


@pytest.mark.slow
def test_nothing_is_received_until_the_queue_is_resumed(
    paused_env: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    record.pause(paused_env)
    runner = Recording()
    send("one")
    with running(runner, **OBEYS):
        until(lambda: "queue paused queue=jobs" in caplog.messages)
        time.sleep(0.3)
        assert runner.bodies == []
        assert open_queue("jobs").depth() == 1, "it is visible: no receive was used"
        record.resume(paused_env)
        until(lambda: runner.bodies)
    assert "queue resumed queue=jobs" in caplog.messages


@pytest.mark.slow
def test_a_worker_that_runs_stops_receiving(paused_env: str) -> None:
    runner = Recording()
    with running(runner, **OBEYS) as worker:
        send("one")
        until(lambda: runner.bodies)
        record.pause(paused_env)
        until(lambda: worker.queues[0].is_paused and not worker.queues[0].open_receives)
        send("two")
        time.sleep(0.3)
        assert len(runner.bodies) == 1


def test_a_burst_ends_at_a_paused_queue(paused_env: str) -> None:
    record.pause(paused_env)
    send("one")
    assert make_worker(Recording(), burst=True, **OBEYS).run() == 0
    assert open_queue("jobs").depth() == 1


def test_a_queue_is_paused_by_each_of_its_names(worker_env: Environment, paused_env: str) -> None:
    worker_env(DISPATCH_QUEUES=f"jobs={paused_env} again={paused_env}")
    worker = make_worker(Recording(), "jobs", "again", **OBEYS)
    record.pause(paused_env)
    Pauses(worker.queues, worker.prefetch).refresh()
    assert [queue.is_paused for queue in worker.queues] == [True, True]


def test_without_an_answer_all_stays_as_it_was(
    paused_env: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*args: Any) -> None:
        raise ConnectionError

    worker = make_worker(Recording(), **OBEYS)
    pauses = Pauses(worker.queues, worker.prefetch)
    record.pause(paused_env)
    pauses.refresh()
    assert worker.queues[0].is_paused
    with monkeypatch.context() as patch:
        patch.setattr(caches["default"], "get_many", away)
        for _ in range(3):
            pauses.refresh()
    assert worker.queues[0].is_paused
    lines = [each for each in caplog.messages if "not known which" in each]
    assert lines == [
        "not known which queues are paused error=ConnectionError of cache 'default'"
    ], "one line until the cache answers again"


def test_only_a_worker_with_a_lease_that_runs_tasks_itself_obeys(
    paused_env: str, worker_env: Environment
) -> None:
    def obeys(command: Command, *arguments: str) -> bool:
        parser = command.create_parser("manage.py", "command")
        options = vars(parser.parse_args(["jobs", *arguments]))
        return command.make_worker(options).options.obeys_pauses

    daemon = beanstalk_daemon.Command()
    assert obeys(Command())
    assert not obeys(daemon, "http://127.0.0.1:9/"), "the daemon knows no pauses"
    worker_env(DISPATCH_LEASE_CACHE=None)
    assert not obeys(Command())
