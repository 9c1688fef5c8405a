"""What the threads of one queue do at its end, and after errors. The rest: integration/worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.worker.consumer import QueueConsumer
from beanstalk_dispatch.worker.options import WorkerOptions
from beanstalk_dispatch.worker.prefetch import Prefetch, QueueState
from beanstalk_dispatch.worker.threads import alive, join_within
from tests.conftest import Environment
from tests.workers import QUICK, messages, send, until


def make_consumer(**options: Any) -> QueueConsumer:
    made = WorkerOptions(**(QUICK | options))
    return QueueConsumer(QueueState.create("jobs", made), Prefetch(made), made)


@pytest.fixture
def received(sqs_env: Environment) -> list[Received]:
    send("one")
    return open_queue("jobs").receive(count=1, wait=0, visibility=30)


def back_off(consumer: QueueConsumer) -> None:
    """Have no request made for half a minute."""
    in_flight = consumer.queue.in_flight
    for backoff in (in_flight.delete_backoff, in_flight.requeue_backoff):
        for _ in range(20):
            backoff.failed(SendError("unreachable"))


def close(consumer: QueueConsumer) -> None:
    """Start the threads that delete and requeue, and wait until they end."""
    consumer.close()
    for thread in consumer.updaters:
        thread.start()
    join_within(20, consumer.updaters)
    assert not any(thread.is_alive() for thread in consumer.updaters)


def test_the_last_deletes_are_sent_even_while_it_backs_off(received: list[Received]) -> None:
    consumer = make_consumer()
    consumer.queue.in_flight.add(received)
    consumer.queue.in_flight.ack(received[0])
    back_off(consumer)
    close(consumer)
    assert consumer.queue.in_flight.messages == {}
    open_queue("jobs").change_visibility_batch(received, [0])
    assert open_queue("jobs").depth() == 0


def test_the_last_requeues_are_sent_even_while_it_backs_off(received: list[Received]) -> None:
    consumer = make_consumer()
    consumer.queue.in_flight.add(received)
    consumer.queue.in_flight.requeue(received)
    back_off(consumer)
    close(consumer)
    assert open_queue("jobs").depth() == 1


@pytest.mark.parametrize(("heartbeat", "is_extended"), [(True, True), (False, False)])
def test_heartbeats_are_sent_only_with_that_option_and_not_while_closing(
    monkeypatch: pytest.MonkeyPatch, heartbeat: bool, is_extended: bool
) -> None:
    consumer = make_consumer(heartbeat=heartbeat)
    calls: list[str] = []
    in_flight = consumer.queue.in_flight
    monkeypatch.setattr(in_flight, "extend_visibility", lambda: calls.append("extend"))
    consumer._send_heartbeats()
    consumer.close()
    consumer._send_heartbeats()
    assert calls == ["extend"] * is_extended


def test_heartbeats_are_sent_between_batches_of_requeues(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = make_consumer()
    results = iter([True, True, False])
    calls: list[str] = []

    def requeue_batch() -> bool:
        calls.append("requeue")
        return next(results)

    in_flight = consumer.queue.in_flight
    monkeypatch.setattr(in_flight, "requeue_batch", requeue_batch)
    monkeypatch.setattr(in_flight, "extend_visibility", lambda: calls.append("extend"))
    consumer._requeue_pending()
    assert calls == ["requeue", "extend", "requeue", "extend", "requeue"]


def receiving(result: list[Received] | BaseException) -> Callable[..., list[Received]]:
    def receive(self: Queue, **parameters: Any) -> list[Received]:
        if isinstance(result, BaseException):
            raise result
        return result

    return receive


@pytest.mark.parametrize("error", [SendError("unreachable"), RuntimeError("surprise")])
def test_a_receive_that_fails_is_backed_off_from(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Queue, "receive", receiving(error))
    consumer = make_consumer()
    permit = consumer._wait_for_permit()
    assert permit
    assert consumer._receive_as_permitted(permit) is None
    assert consumer.queue.receive_backoff.failures == 1
    assert not consumer.queue.is_missing


def test_a_queue_that_does_not_exist_is_noted(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=None)
    consumer = make_consumer()
    permit = consumer._wait_for_permit()
    assert permit
    assert consumer._receive_as_permitted(permit) is None
    assert consumer.queue.is_missing


def test_a_permit_is_used_up_even_by_an_exception_that_ends_the_loop(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "receive", receiving(KeyboardInterrupt()))
    consumer = make_consumer()
    with pytest.raises(KeyboardInterrupt):
        consumer._receive_until_closed()
    assert consumer.queue.open_receives == 0


def test_an_empty_queue_has_one_thread(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others start when it brings messages: all of them, if it brings many."""
    answers = iter([[], messages(1), messages(6)[1:], messages(6)])
    started: list[int] = []
    consumer = make_consumer(threads=8)
    threads = consumer.receivers + consumer.updaters

    def receive(self: Queue, **parameters: Any) -> list[Received]:
        if threading.current_thread() is consumer.receivers[0]:
            started.append(sum(thread.ident is not None for thread in threads))
            for answer in answers:  # pragma: no branch - another receiver may close first
                return answer
        consumer._prefetch.close()
        return []

    monkeypatch.setattr(Queue, "receive", receive)
    consumer.start()
    until(lambda: consumer._prefetch.is_closed)
    consumer.close()
    join_within(20, alive(threads))
    assert started[:3] == [1, 1, 1 + len(consumer.updaters)]
    assert all(thread.ident for thread in threads)


def test_received_messages_are_prefetched(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "receive", receiving(messages(2)))
    consumer = make_consumer(threads=2, times=replace(QUICK["times"], requeue_after=60))
    consumer.receivers[0].start()
    prefetch = consumer._prefetch
    until(lambda: prefetch.counters.waiting == 2)
    prefetch.close()
    consumer.close()
    join_within(20, alive([consumer.receivers[0], *consumer.updaters]))
    assert not consumer.receivers[0].is_alive()
