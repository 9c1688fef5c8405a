"""The threads that receive from one queue, and their errors. The rest: integration/worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.prefetch import Prefetch
from beanstalk_dispatch.consumers.poller.queue_state import QueueState
from beanstalk_dispatch.consumers.poller.receiver import QueueReceiver
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.process.service_thread import alive, join_within
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received
from tests.conftest import Environment
from tests.workers import QUICK, messages, until


def make_receiver(**options: Any) -> QueueReceiver:
    made = WorkerOptions(**(QUICK | options))
    return QueueReceiver(QueueState.create("jobs", made), Prefetch(made), made)


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
    receiver = make_receiver()
    permit = receiver._wait_for_permit()
    assert permit
    assert receiver._receive_as_permitted(permit) is None
    assert receiver.queue.receive_backoff.failures == 1
    assert not receiver.queue.is_missing


def test_a_queue_that_does_not_exist_is_noted(without_queue: Environment) -> None:
    without_queue(DISPATCH_CREATE_QUEUES=None)
    receiver = make_receiver()
    permit = receiver._wait_for_permit()
    assert permit
    assert receiver._receive_as_permitted(permit) is None
    assert receiver.queue.is_missing


def test_a_permit_is_used_up_even_by_an_exception_that_ends_the_loop(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "receive", receiving(KeyboardInterrupt()))
    receiver = make_receiver()
    with pytest.raises(KeyboardInterrupt):
        receiver._receive_until_closed()
    assert receiver.queue.open_receives == 0


def test_an_empty_queue_has_one_thread(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others start when it brings many messages."""
    answers = iter([[], messages(1), messages(6)[1:], messages(6)])
    started: list[int] = []
    receiver = make_receiver(threads=8)

    def receive(self: Queue, **parameters: Any) -> list[Received]:
        if threading.current_thread() is receiver.threads[0]:
            started.append(sum(thread.ident is not None for thread in receiver.threads))
            for answer in answers:  # pragma: no branch - another receiver may close first
                return answer
        receiver._prefetch.close()
        return []

    monkeypatch.setattr(Queue, "receive", receive)
    receiver.start()
    until(lambda: receiver._prefetch.is_closed)
    join_within(20, alive(receiver.threads))
    assert started[:3] == [1, 1, 1]
    assert all(thread.ident for thread in receiver.threads)


def test_received_messages_are_prefetched(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "receive", receiving(messages(2)))
    receiver = make_receiver(threads=2, times=replace(QUICK["times"], requeue_after=60))
    receiver.start()
    prefetch = receiver._prefetch
    until(lambda: prefetch.counters.waiting == 2)
    prefetch.close()
    join_within(20, alive([receiver.threads[0]]))
    assert not receiver.threads[0].is_alive()


def test_messages_are_kept_where_no_thread_can_ask_for_the_redrive_policy(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, (message,) = make_receiver(), messages(1)
    open_queue("jobs")
    monkeypatch.setattr(Queue, "receive", receiving([message]))
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError))
    permit = receiver._wait_for_permit()
    assert permit is not None
    assert receiver._receive_as_permitted(permit) == [message]
