"""From the queue to the runner and to the delete: a whole worker with a real queue."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from beanstalk_dispatch.client import Call, schedule_many
from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.consumers.poller.runners import delivery_of, run_here
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.parameters import send_parameters
from beanstalk_dispatch.sqs.queue import Received
from tests.conftest import Environment
from tests.jobs import calls
from tests.proxy import Proxy
from tests.workers import (
    ACK,
    TIMES,
    Recording,
    drain,
    left,
    make_worker,
    running,
    send,
    until,
    waiting_for,
)


def test_every_message_is_run_once_and_deleted(worker_env: Environment) -> None:
    schedule_many("jobs", [Call("record", [i]) for i in range(45)])
    assert drain(run_here) == 0
    assert sorted(args[0] for args, _ in calls) == list(range(45))
    assert open_queue("jobs").depth() == 0


def test_many_messages_need_few_requests(sqs_env: Environment, proxy: Proxy) -> None:
    open_queue("jobs")
    send(*map(str, range(200)))
    proxy.counts.clear()
    runner = Recording()
    # With the real interval, in which deletes wait for others.
    drain(runner, times=replace(TIMES, batch_interval=0.3))
    assert len(runner.bodies) == 200
    assert proxy.counts["DeleteMessageBatch"] <= 24
    assert proxy.counts["ReceiveMessage"] <= 34


def test_an_idle_worker_makes_one_long_poll_at_a_time(sqs_env: Environment, proxy: Proxy) -> None:
    open_queue("jobs")
    proxy.counts.clear()
    with running(Recording(), threads=20, wait=4):
        time.sleep(0.6)
    assert proxy.counts.keys() == {"ReceiveMessage"}
    assert proxy.counts["ReceiveMessage"] <= 2


def test_several_queues_are_served(sqs_env: Environment, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=f"a={queue_name}-a b={queue_name}-b c={queue_name}-c")
    for alias in ("a", "b", "c"):
        send(*[f"{alias}{i}" for i in range(5)], alias=alias)
    runner = Recording()
    drain(runner, "a", "b", "c", threads=1)
    assert len(set(runner.bodies)) == len(runner.bodies) == 15


def test_a_message_sent_while_idle_is_run_at_once(sqs_env: Environment, proxy: Proxy) -> None:
    send()  # which makes the queue
    runner = Recording()
    with running(runner, wait=20) as worker:  # a long poll of two seconds here
        until(lambda: proxy.counts["ReceiveMessage"])
        send("now")
        until(lambda: runner.bodies, 1.5)
        send("and now")
        until(lambda: len(runner.bodies) == 2, 1.5)
        worker.stop()
        send("to end the long poll")
    assert left() == ["to end the long poll"]


def test_no_more_is_received_than_can_start_soon(sqs_env: Environment) -> None:
    send(*map(str, range(20)))
    gate = threading.Event()
    runner = Recording(waiting_for(gate))
    with running(runner, threads=3) as worker:
        until(lambda: len(runner.bodies) == 3)
        time.sleep(0.2)
        assert worker.counters.running == 3
        assert len(worker.queues[0].in_flight.messages) <= 4
        gate.set()
        until(lambda: len(runner.bodies) == 20)


def test_heartbeats_keep_messages_hidden_while_they_wait_and_run(sqs_env: Environment) -> None:
    """Eight tasks of 1.2 s on four threads, with a visibility timeout of 2 s."""
    send(*map(str, range(8)))

    def slow(received: Received) -> Ack:
        time.sleep(1.2)
        return ACK

    runner = Recording(slow)
    drain(runner, visibility_timeout=2)
    assert Counter(runner.bodies) == Counter(map(str, range(8)))


def test_a_failed_message_is_delivered_again_after_its_delay(sqs_env: Environment) -> None:
    send("fails")
    answers: Iterator[Ack | Nack] = iter([Nack(1), ACK])
    times: list[float] = []

    def answer(received: Received) -> Ack | Nack:
        times.append(time.monotonic())
        return next(answers)

    with running(Recording(answer)) as worker:
        until(lambda: worker.counters.done == 1)
    assert worker.counters.failed == 1
    assert 0.8 < times[1] - times[0] < 5


def test_without_a_delay_it_is_delivered_again_when_its_visibility_timeout_ends(
    sqs_env: Environment,
) -> None:
    send("left")
    answers: Iterator[Ack | Nack] = iter([Nack(), ACK])
    runner = Recording(lambda received: next(answers))
    with running(runner, visibility_timeout=1) as worker:
        until(lambda: worker.counters.done == 1)
    assert runner.bodies == ["left", "left"]


def test_a_runner_that_raises_leaves_the_message(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    send("boom")

    def boom(received: Received) -> Ack:
        raise RuntimeError("broken runner")

    with running(Recording(boom)) as worker:
        until(lambda: worker.counters.failed == 1)
    assert "error=RuntimeError" in caplog.text
    assert "broken runner" in caplog.text


def test_a_message_received_again_while_it_runs_is_not_run_twice(sqs_env: Environment) -> None:
    send("one")
    gate = threading.Event()
    runner = Recording(waiting_for(gate))
    with running(runner) as worker:
        until(lambda: runner.bodies)
        (message,) = worker.queues[0].in_flight.messages.values()
        open_queue("jobs").change_visibility_batch([replace(message)], [0])
        message.expires = 0
        until(lambda: message.is_hidden)  # the second receive renewed it
        gate.set()
        until(lambda: worker.counters.done == 1)
    assert runner.bodies == ["one"]
    assert left() == []


def test_max_tasks_stops_the_worker(sqs_env: Environment) -> None:
    send(*map(str, range(30)))
    runner = Recording()
    assert make_worker(runner, max_tasks=5).run() == 0
    assert len(runner.bodies) == 5
    found = left() + left() + left()
    assert sorted(found + runner.bodies) == sorted(map(str, range(30)))


# --- how much is received ahead ---


def test_messages_that_cannot_start_soon_are_requeued(sqs_env: Environment) -> None:
    send(*map(str, range(10)))
    gate = threading.Event()
    times = replace(TIMES, requeue_after=0.3)
    with running(Recording(waiting_for(gate)), threads=1, times=times) as worker:
        prefetch = worker.prefetch
        prefetch._average_seconds, prefetch._last_ended_at = 0.01, math.inf
        until(lambda: worker.counters.waiting)
        prefetch._last_ended_at = 0
        until(lambda: not worker.counters.waiting)
        until(lambda: open_queue("jobs").depth() == 9)
        gate.set()


def test_quick_tasks_before_do_not_keep_slow_ones_waiting(sqs_env: Environment) -> None:
    """One thread is woken for quick tasks; that these are slow shows only when they run."""
    send(*map(str, range(4)))
    gate = threading.Event()
    with running(Recording(waiting_for(gate))) as worker:
        worker.prefetch._average_seconds = 0.00001
        until(lambda: worker.counters.running == 4, 5)
        gate.set()


def test_waiting_messages_are_requeued_in_batches(sqs_env: Environment, proxy: Proxy) -> None:
    send(*map(str, range(40)))
    gate = threading.Event()
    with running(Recording(waiting_for(gate)), threads=1) as worker:
        prefetch = worker.prefetch
        prefetch._average_seconds, prefetch._last_ended_at = 0.01, math.inf
        until(lambda: worker.counters.waiting >= 30)
        worker.stop()
        until(lambda: prefetch.is_closed)
        gate.set()
    requeued = 40 - worker.counters.done
    assert open_queue("jobs").depth() == requeued >= 20
    assert proxy.counts["ChangeMessageVisibilityBatch"] <= requeued / 10 + 2


# --- FIFO ---


def send_group(group: str, *bodies: str) -> None:
    queue = open_queue("jobs")
    for body in bodies:
        queue.send(body, send_parameters(queue.address, group_id=group, message_id=body))


@pytest.mark.usefixtures("fifo")
def test_a_fifo_group_keeps_its_order() -> None:
    send_group("a", "a1", "a2", "a3")
    send_group("b", "b1", "b2")
    runner = Recording()
    drain(runner)
    assert [body for body in runner.bodies if body[0] == "a"] == ["a1", "a2", "a3"]
    assert [body for body in runner.bodies if body[0] == "b"] == ["b1", "b2"]


@pytest.mark.usefixtures("fifo")
def test_a_failure_stops_its_fifo_group() -> None:
    send_group("a", "a1", "a2", "a3")
    send_group("b", "b1")
    failures = iter([Nack(30)])
    runner = Recording(lambda received: next(failures, ACK) if received.body == "a2" else ACK)
    with running(runner) as worker:
        until(lambda: worker.counters.done == 2 and worker.counters.failed == 1)
        time.sleep(0.3)
    assert sorted(runner.bodies) == ["a1", "a2", "b1"]


@pytest.mark.usefixtures("fifo")
def test_a_stop_makes_the_rest_of_a_group_visible_again() -> None:
    send_group("a", "a1", "a2")

    def stop(received: Received) -> Ack:
        worker.stop()
        return ACK

    runner = Recording(stop)
    worker = make_worker(runner)
    assert worker.run() == 0
    assert runner.bodies == ["a1"]
    assert left() == ["a2"]


@pytest.mark.usefixtures("fifo")
def test_the_first_of_a_group_is_deleted_before_the_rest_is_done() -> None:
    send_group("a", "a1", "a2")
    gate = threading.Event()
    wait = waiting_for(gate)
    runner = Recording(lambda received: ACK if received.body == "a1" else wait(received))
    with running(runner) as worker:
        until(lambda: runner.bodies == ["a1", "a2"])
        in_flight = worker.queues[0].in_flight
        until(lambda: [each.body for each in in_flight.messages.values()] == ["a2"])
        gate.set()


@pytest.mark.usefixtures("fifo")
def test_messages_of_a_group_that_were_not_run_do_not_count_as_tasks() -> None:
    send_group("a", "a1", "a2", "a3", "a4", "a5")
    answers: Iterator[Ack | Nack] = iter([Nack(0)])
    runner = Recording(lambda received: next(answers, ACK))
    assert make_worker(runner, max_tasks=3).run() == 0
    assert len(runner.bodies) == 3


def test_a_delivery_knows_how_often_sqs_delivers_its_message(
    sqs_env: Environment, proxy: Proxy
) -> None:
    """A worker asks once for each queue, when it has received a message."""
    send("1", "2")
    seen: list[int | None] = []

    def run(received: Received, on_start: object) -> Ack:
        seen.append(delivery_of(received).max_receives)
        return Ack()

    drain(run, threads=1)
    until(lambda: open_queue("jobs").max_receives)
    send("3")
    drain(run, threads=1)
    assert seen[-1] == 10
    assert proxy.counts["GetQueueAttributes"] == 1


def test_without_the_right_to_ask_it_does_not_know(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = open_queue("jobs")
    monkeypatch.setattr(queue.client, "get_queue_attributes", lambda **_: 1 / 0)
    queue.ask_max_receives()
    assert queue.max_receives is None
