"""SQS in trouble: errors, hanging requests, missing queues. Nothing is lost or run twice."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.sqs.clients import Clients
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.sqs.timeouts import send_timeouts
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.workers import ACK, TIMES, Recording, drain, running, send, until


def failing(operation: str, *answers: Answer) -> Callable[[str, dict[str, Any]], Answer | None]:
    """Answer the first requests of ``operation`` with ``answers``."""
    remaining = iter(answers)
    return lambda asked, request: next(remaining, None) if asked == operation else None


def test_receives_that_fail_are_tried_again(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    send("survivor")
    proxy.spoil = failing("ReceiveMessage", *[error(400, "AccessDenied")] * 2)
    runner = Recording()
    with running(runner):
        until(lambda: runner.bodies)
    assert caplog.text.count("receive failed queue=jobs failures=") == 1
    assert "receive recovered queue=jobs failures=2" in caplog.text


def test_an_outage_of_half_a_second_stops_a_busy_queue_for_about_one(
    sqs_env: Environment, proxy: Proxy
) -> None:
    """Four receives of the queue fail in the same moment."""
    send(*map(str, range(250)))
    ends: list[float] = []

    def answer(received: Received) -> Ack:
        time.sleep(0.01)
        ends.append(time.monotonic())
        return ACK

    times = replace(TIMES, first_retry=1.0)
    with running(Recording(answer), threads=4, times=times) as worker:
        until(lambda: len(ends) >= 100)
        proxy.spoil = lambda operation, request: error(400, "AccessDenied")
        time.sleep(0.5)
        proxy.spoil = failing("")
        until(lambda: worker.counters.done == 250)
    assert max(after - before for before, after in pairwise(ends)) < 2.5


def test_a_queue_that_does_not_exist_yet_is_waited_for(
    without_queue: Environment, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    without_queue(DISPATCH_CREATE_QUEUES=None)
    runner = Recording()
    with running(runner):
        until(lambda: "SQS has no queue" in caplog.text)
        config = get_config()
        client = Clients(config).get(QueueAddress(name=queue_name), send_timeouts(config))
        client.create_queue(QueueName=queue_name)
        send("early bird")
        until(lambda: runner.bodies)


def test_while_deletes_fail_no_more_is_received(sqs_env: Environment, proxy: Proxy) -> None:
    send(*map(str, range(30)))
    proxy.spoil = failing("DeleteMessageBatch", *[error(400, "AccessDenied")] * 10**6)
    with running(Recording(), threads=1) as worker:
        until(lambda: worker.queues[0].in_flight.deletes.backoff.failures >= 4)
        time.sleep(0.2)  # open receives have returned
        received = proxy.counts["ReceiveMessage"]
        time.sleep(0.3)
        assert proxy.counts["ReceiveMessage"] - received <= 1
        proxy.spoil = failing("")
        until(lambda: worker.counters.done == 30)
    assert open_queue("jobs").depth() == 0


def test_deletes_that_fail_are_tried_again(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    send(*map(str, range(12)))
    proxy.spoil = failing("DeleteMessageBatch", *[error(400, "AccessDenied")] * 2)
    runner = Recording()
    drain(runner)
    assert sorted(runner.bodies, key=int) == list(map(str, range(12)))
    assert caplog.text.count("delete failed queue=jobs failures=1") == 1
    assert open_queue("jobs").depth() == 0


def test_expired_credentials_are_looked_up_again(sqs_env: Environment, proxy: Proxy) -> None:
    send("one")
    queue = open_queue("jobs")
    proxy.spoil = failing("DeleteMessageBatch", error(403, "ExpiredTokenException"))
    with running(Recording()) as worker:
        until(lambda: worker.counters.done and not worker.queues[0].in_flight.messages)
    assert open_queue("jobs") is not queue


def test_an_unexpected_error_does_not_end_a_thread(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send("survivor")
    real, errors = Queue.receive, iter([RuntimeError("surprise")])

    def receive(self: Queue, **parameters: Any) -> list[Received]:
        for surprise in errors:
            raise surprise
        return real(self, **parameters)

    monkeypatch.setattr(Queue, "receive", receive)
    runner = Recording()
    with running(runner):
        until(lambda: runner.bodies)
    assert "surprise" in caplog.text


def test_a_message_that_could_not_be_requeued_is_delivered_again_by_itself(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    send("one")
    proxy.spoil = failing("ChangeMessageVisibilityBatch", error(400, "AccessDenied"))
    answers: Iterator[Ack | Nack] = iter([Nack(0), ACK])
    runner = Recording(lambda received: next(answers))
    with running(runner, visibility_timeout=1, heartbeat=False) as worker:
        until(lambda: worker.counters.done)
    assert "requeue failed queue=jobs failures=1" in caplog.text


def test_a_queue_that_hangs_does_not_delay_another(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    """Of one queue, no delete and no heartbeat is answered. The other has all of its requests."""
    sqs_env(DISPATCH_QUEUES=f"bad={queue_name}-bad good={queue_name}-good")
    send("a", "b", alias="bad")
    send("slow", *map(str, range(20)), alias="good")
    gate = threading.Event()

    def hang(operation: str, request: dict[str, Any]) -> None:
        if request["QueueUrl"].endswith("bad") and operation != "ReceiveMessage":
            gate.wait(20)

    proxy.spoil = hang

    def answer(received: Received) -> Ack:
        time.sleep(2.5 if received.body == "slow" else 0)
        return ACK

    runner = Recording(answer)
    with running(runner, "bad", "good", threads=2, visibility_timeout=2) as worker:
        until(lambda: worker.counters.done == 23, 10)
        in_flight = worker.queues[1].in_flight
        until(lambda: open_queue("good").depth() == 0 and not in_flight.messages)
        gate.set()
    assert Counter(runner.bodies)["slow"] == 1


def test_a_heartbeat_under_way_does_not_shorten_the_delay_of_a_retry(
    sqs_env: Environment, proxy: Proxy
) -> None:
    send("fails")
    requested: list[int] = []
    gate = threading.Event()

    def spoil(operation: str, request: dict[str, Any]) -> None:
        if operation == "ChangeMessageVisibilityBatch":
            gate.set()
            time.sleep(0.1)
            requested.append(request["Entries"][0]["VisibilityTimeout"])

    proxy.spoil = spoil

    def fails(received: Received) -> Nack:
        gate.wait(20)  # until a heartbeat is under way
        return Nack(100)

    with running(Recording(fails), visibility_timeout=2) as worker:
        until(lambda: 100 in requested)
        time.sleep(0.2)
        assert not worker.queues[0].in_flight.messages
    assert requested[0] == 2
    assert requested.index(100) == len(requested) - 1


def test_a_requeue_that_hangs_does_not_delay_the_heartbeats_of_its_queue(
    sqs_env: Environment, proxy: Proxy
) -> None:
    """Otherwise another worker would get the message of a task that runs."""
    send("fails", "slow")
    gate, is_hanging = threading.Event(), threading.Event()
    heartbeats: list[float] = []

    def hang(operation: str, request: dict[str, Any]) -> None:
        if operation == "ChangeMessageVisibilityBatch":
            if request["Entries"][0]["VisibilityTimeout"] == 100:
                is_hanging.set()
                gate.wait(20)
            else:
                heartbeats.append(time.monotonic())

    proxy.spoil = hang

    def answer(received: Received) -> Ack | Nack:
        if received.body == "fails":
            return Nack(100)
        gate.wait(20)
        return ACK

    with running(Recording(answer), visibility_timeout=2) as worker:
        until(is_hanging.is_set)
        heartbeats.clear()
        until(lambda: len(heartbeats) >= 3, 6)
        gate.set()
        until(lambda: worker.counters.done)
