from __future__ import annotations

import threading
from unittest.mock import Mock

import pytest

from beanstalk_dispatch.consumers.poller.worker import EXIT_STUCK
from tests.conftest import Environment
from tests.workers import Recording, make_worker, send


def test_a_queue_named_twice_is_received_from_once() -> None:
    assert len(make_worker(Recording(), "jobs", "jobs").queues) == 1


def test_the_first_stop_decides_the_exit_code() -> None:
    worker = make_worker(Recording())
    assert not worker.is_stopping()
    worker.stop(EXIT_STUCK)
    worker.stop()
    assert worker.is_stopping()
    assert worker._exit_code == EXIT_STUCK


def test_depths_are_of_the_queues_that_can_be_asked(sqs_env: Environment) -> None:
    worker = make_worker(Recording(), "jobs", "other")
    send("one", "two")
    assert worker.depths() == [("jobs", 2)]


def test_a_line_is_logged_where_tasks_have_used_up_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that ended there would make no message visible again."""
    lines: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError))
    make_worker(Recording())._log_without_blocking(lines.append, "stop")
    assert lines == ["stop"]
