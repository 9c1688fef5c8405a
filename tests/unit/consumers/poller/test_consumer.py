"""The threads that receive from one queue, and their errors. The rest: integration/worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.consumer import QueueConsumer
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.prefetch import Prefetch, QueueState
from beanstalk_dispatch.consumers.poller.threads import alive, join_within
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.queue import Queue, Received
from tests.conftest import Environment
from tests.workers import QUICK, messages, until


def make_consumer(**options: Any) -> QueueConsumer:
    made = WorkerOptions(**(QUICK | options))
    return QueueConsumer(QueueState.create("jobs", made), Prefetch(made), made)


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


def test_a_queue_that_does_not_exist_is_noted(without_queue: Environment) -> None:
    without_queue(DISPATCH_CREATE_QUEUES=None)
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
    """The others start when it brings many messages."""
    answers = iter([[], messages(1), messages(6)[1:], messages(6)])
    started: list[int] = []
    consumer = make_consumer(threads=8)

    def receive(self: Queue, **parameters: Any) -> list[Received]:
        if threading.current_thread() is consumer.receivers[0]:
            started.append(sum(thread.ident is not None for thread in consumer.receivers))
            for answer in answers:  # pragma: no branch - another receiver may close first
                return answer
        consumer._prefetch.close()
        return []

    monkeypatch.setattr(Queue, "receive", receive)
    consumer.start()
    until(lambda: consumer._prefetch.is_closed)
    join_within(20, alive(consumer.receivers))
    assert started[:3] == [1, 1, 1]
    assert all(thread.ident for thread in consumer.receivers)


def test_received_messages_are_prefetched(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "receive", receiving(messages(2)))
    consumer = make_consumer(threads=2, times=replace(QUICK["times"], requeue_after=60))
    consumer.start()
    prefetch = consumer._prefetch
    until(lambda: prefetch.counters.waiting == 2)
    prefetch.close()
    join_within(20, alive([consumer.receivers[0]]))
    assert not consumer.receivers[0].is_alive()
