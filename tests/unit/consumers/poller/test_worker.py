from __future__ import annotations

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
