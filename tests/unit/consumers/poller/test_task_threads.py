"""How messages are run, without SQS: what becomes of each stays pending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.queue_state import MessageGroup
from beanstalk_dispatch.consumers.poller.worker import Worker
from beanstalk_dispatch.running.left_behind import threads
from beanstalk_dispatch.running.limits import time_limit
from beanstalk_dispatch.sqs.queue import Received
from tests.workers import ACK, Recording, make_worker, messages, until, waiting_for


def group_of(worker: Worker, received: list[Received]) -> MessageGroup:
    """What is received now, as the worker's next group."""
    queue = worker.queues[0]
    worker.prefetch.add(worker.prefetch._give_permit(queue), received)
    group = worker.prefetch.next()
    assert group
    return group


def requeued(worker: Worker) -> list[tuple[str, float]]:
    """Body and delay of each message that is to be requeued."""
    pending = worker.queues[0].in_flight._to_requeue
    return [(each.body, each.requeue_delay) for each in pending]


def acknowledged(worker: Worker) -> list[str]:
    return [each.body for each in worker.queues[0].in_flight._to_delete]


def failing_at(body: str, delay: float | None) -> Callable[[Received], Ack | Nack]:
    return lambda received: Nack(delay) if received.body == body else ACK


def test_a_message_that_is_acknowledged_is_to_be_deleted() -> None:
    worker = make_worker(Recording())
    worker.tasks._run_group(group_of(worker, messages(1)))
    assert (acknowledged(worker), requeued(worker)) == (["0"], [])
    assert (worker.counters.done, worker.counters.failed, worker.counters.running) == (1, 0, 0)


def test_a_process_that_is_to_be_replaced_starts_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_LEFT", -1)
    runner = Recording()
    worker = make_worker(runner)
    worker.tasks._run_group(group_of(worker, messages(1)))
    assert (runner.bodies, requeued(worker)) == ([], [("0", 0.0)])
    assert worker.tasks.spoiled is not None
    assert worker.prefetch.next() is None


def test_a_failed_message_is_requeued_with_its_delay() -> None:
    worker = make_worker(Recording(failing_at("0", 7)))
    worker.tasks._run_group(group_of(worker, messages(1)))
    assert (acknowledged(worker), requeued(worker)) == ([], [("0", 7)])
    assert (worker.counters.done, worker.counters.failed) == (0, 1)


def test_a_failure_requeues_the_rest_of_its_group_with_the_same_delay() -> None:
    runner = Recording(failing_at("1", 7))
    worker = make_worker(runner)
    worker.tasks._run_group(group_of(worker, messages(4, group="a")))
    assert runner.bodies == ["0", "1"]
    assert acknowledged(worker) == ["0"]
    assert requeued(worker) == [("1", 7), ("2", 7), ("3", 7)]


def test_a_failure_without_a_delay_requeues_the_rest_of_its_group_at_once() -> None:
    worker = make_worker(Recording(failing_at("0", None)))
    worker.tasks._run_group(group_of(worker, messages(2, group="a")))
    assert requeued(worker) == [("1", 0.0)]


def test_a_stop_requeues_the_rest_of_a_group() -> None:
    def stop(received: Received) -> Ack:
        worker.stop()
        return ACK

    worker = make_worker(Recording(stop))
    worker.tasks._run_group(group_of(worker, messages(3, group="a")))
    assert acknowledged(worker) == ["0"]
    assert requeued(worker) == [("1", 0.0), ("2", 0.0)]


def test_a_message_whose_visibility_has_ended_is_not_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = Recording()
    worker = make_worker(runner)
    (late,) = messages(1)
    late.expires = time.monotonic() - 1
    worker.tasks._run_group(group_of(worker, [late]))
    worker.queues[0].in_flight.requeues.send_batch()  # without a request, which would fail here
    assert runner.bodies == []
    assert worker.queues[0].in_flight.messages == {}
    assert worker.queues[0].in_flight.requeues.backoff.failures == 0
    assert "skipped id=None-0 error=the visibility timeout has ended" in caplog.text


def test_a_message_has_a_deadline_once_it_runs_and_another_once_its_limit_is_known() -> None:
    seconds: list[float] = []

    def runner(received: Received, on_start: Any) -> Ack:
        seconds.append(received.deadline - time.monotonic())
        on_start(100)
        seconds.append(received.deadline - time.monotonic())
        return ACK

    worker = make_worker(runner, times=WorkerOptions().times)
    worker.tasks._run_group(group_of(worker, messages(1)))
    assert seconds == pytest.approx([120, 450], abs=1)


def test_a_posted_message_has_no_deadline() -> None:
    """Its task may run for as long as the web server allows."""
    deadlines: list[float] = []

    def answer(received: Received) -> Ack:
        deadlines.append(received.deadline)
        return ACK

    worker = make_worker(Recording(answer), heartbeat=False)
    worker.tasks._run_group(group_of(worker, messages(1)))
    assert deadlines == [float("inf")]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_no_exception_of_a_runner_ends_its_thread(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def answer(received: Received) -> Ack:
        if received.body != "3":
            raise error
        return ACK

    worker = make_worker(Recording(answer), threads=1)
    queue = worker.queues[0]
    worker.prefetch.add(worker.prefetch._give_permit(queue), messages(4))
    worker.tasks.start()
    until(lambda: (worker.counters.failed, worker.counters.done) == (3, 1))
    until(lambda: worker.counters.running == 0)
    assert acknowledged(worker) == ["3"]
    assert list(queue.in_flight.messages) == ["None-3"]  # the others are left to their timeout
    for number in range(3):
        assert f"runner failed id=None-{number} error={error.__name__}" in caplog.text
    assert "unexpected error in thread" not in caplog.text
    worker.prefetch.close()
    worker.tasks.threads[0].join(10)
    assert not worker.tasks.threads[0].is_alive()


def test_overdue_are_the_stuck_tasks_and_those_past_their_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    worker = make_worker(Recording(waiting_for(gate)), threads=3)
    worker.prefetch.add(worker.prefetch._give_permit(worker.queues[0]), messages(3))
    worker.tasks.start()
    until(lambda: worker.counters.running == len(worker.tasks.running) == 3)
    running = {message.body: thread for thread, (_, message) in worker.tasks.running.items()}
    assert worker.tasks.overdue() == []

    class Limit:
        thread_id = running["0"]

    monkeypatch.setattr(time_limit, "stuck", lambda: [Limit])
    worker.tasks.running[running["1"]][1].deadline = time.monotonic() - 1
    assert {message.body for message in worker.tasks.overdue()} == {"0", "1"}
    given_up = worker.tasks.give_up_overdue()
    assert [(message.body, message.deadline) for message in given_up] == [("0", 0.0), ("1", 0.0)]
    assert worker.tasks.running[running["2"]][1].deadline > time.monotonic()
    gate.set()
    worker.prefetch.close()
    for thread in worker.tasks.threads:
        thread.join(10)
