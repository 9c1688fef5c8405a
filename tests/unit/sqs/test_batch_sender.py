from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from beanstalk_dispatch.sqs.batch_sender import (
    BATCH_ATTEMPTS,
    MAX_PARALLEL_BATCHES,
    MAX_SERIAL_BATCHES,
    BatchSender,
)
from tests.batches import Entry

COUNT = 10 * MAX_PARALLEL_BATCHES + 5


def entries(count: int = COUNT) -> list[Entry]:
    return [Entry(body=str(n), send_parameters={}) for n in range(count)]


def sender(request: Any, count: int = COUNT, *, keeps_order: bool = False) -> BatchSender:
    return BatchSender(
        entries(count),
        request=request,
        reason_of=lambda exc: f"reason: {type(exc).__name__}",
        keeps_order=keeps_order,
    )


def successful(batch: list[Any]) -> Mapping[str, Any]:
    return {"Successful": [{"Id": each["Id"], "MessageId": f"m{each['Id']}"} for each in batch]}


def unreachable() -> EndpointConnectionError:
    return EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


class Gate:
    """A server that answers no request before ``count`` of them have come."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self.threads: set[int] = set()

    def __call__(self, batch: list[Any]) -> Mapping[str, Any]:
        self.threads.add(threading.get_ident())
        self._barrier.wait(10)
        return successful(batch)


def test_many_batches_are_sent_at_a_time() -> None:
    gate = Gate(MAX_PARALLEL_BATCHES)
    sent = sender(gate, 10 * MAX_PARALLEL_BATCHES).send()
    assert len(gate.threads) == MAX_PARALLEL_BATCHES
    assert sent.ids == {n: f"m{n}" for n in range(10 * MAX_PARALLEL_BATCHES)}
    assert sent.unsent == {}


@pytest.mark.parametrize(
    ("count", "keeps_order"), [(10 * MAX_SERIAL_BATCHES, False), (COUNT, True)]
)
def test_few_batches_and_ordered_ones_are_sent_one_by_one(count: int, keeps_order: bool) -> None:
    order: list[int] = []

    def request(batch: list[Any]) -> Mapping[str, Any]:
        assert threading.current_thread() is threading.main_thread()
        order.extend(int(each["Id"]) for each in batch)
        return successful(batch)

    sender(request, count, keeps_order=keeps_order).send()
    assert order == list(range(count))


@pytest.mark.parametrize(
    ("code", "sender_fault", "requests", "refused"),
    [
        ("InvalidMessageContents", True, 3, [0, 10, 20]), ("Other", True, 3, [0, 10, 20]),
        ("RequestThrottled", True, BATCH_ATTEMPTS, []), ("Other", False, BATCH_ATTEMPTS, []),
        ("KmsDisabled", True, 1, []), ("AccessDenied", False, 1, []),
    ],
)  # fmt: skip
def test_an_entry_that_fails_for_no_reason_of_its_own_ends_the_sending(
    monkeypatch: pytest.MonkeyPatch, code: str, sender_fault: bool, requests: int,
    refused: list[int],
) -> None:  # fmt: skip
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    sizes: list[int] = []

    def request(batch: list[Any]) -> Mapping[str, Any]:
        sizes.append(len(batch))
        failed = [{"Id": batch[0]["Id"], "Code": code, "SenderFault": sender_fault}]
        return {**successful(batch[1:]), "Failed": failed}

    sent = sender(request, 30).send()
    assert len(sizes) == requests
    assert sorted(sent.refused) == refused
    assert sent.unsent == dict.fromkeys(refused or [0, *range(10, 30)], code)


def test_after_a_failed_request_no_further_one_is_begun() -> None:
    """What was on its way comes to its end, and counts as sent or not as SQS answered."""
    gate = threading.Barrier(MAX_PARALLEL_BATCHES)
    requests: list[int] = []

    def request(batch: list[Any]) -> Mapping[str, Any]:
        requests.append(int(batch[0]["Id"]))
        gate.wait(10)
        if batch[0]["Id"] == "20":
            raise unreachable()
        stopped.wait(10)
        return successful(batch)

    stopped = threading.Event()
    sending = sender(request, 10 * MAX_PARALLEL_BATCHES + 35)
    reason_of = sending._reason_of

    def reason(exc: Exception) -> str:
        sending._stop_reason = found = reason_of(exc)
        stopped.set()
        return found

    sending._reason_of = reason
    sent = sending.send()
    assert sorted(requests) == list(range(0, 10 * MAX_PARALLEL_BATCHES, 10))
    unsent = [*range(20, 30), *range(10 * MAX_PARALLEL_BATCHES, 10 * MAX_PARALLEL_BATCHES + 35)]
    assert sent.unsent == dict.fromkeys(unsent, "reason: EndpointConnectionError")
    assert list(sent.unsent) == unsent
    assert sent.ids.keys() == set(range(10 * MAX_PARALLEL_BATCHES)) - set(range(20, 30))
    assert isinstance(sent.cause, EndpointConnectionError)


def test_each_failed_request_has_its_own_reason_and_the_first_is_the_cause() -> None:
    gate = threading.Barrier(MAX_PARALLEL_BATCHES)

    def request(batch: list[Any]) -> Mapping[str, Any]:
        gate.wait(10)
        raise unreachable()

    sent = sender(request).send()
    assert sent.ids == {}
    assert sent.unsent == dict.fromkeys(range(COUNT), "reason: EndpointConnectionError")
    assert isinstance(sent.cause, EndpointConnectionError)


def test_an_unexpected_error_in_a_thread_is_raised_by_the_call() -> None:
    main = threading.main_thread()
    begun, failed = threading.Event(), threading.Event()

    def request(batch: list[Any]) -> Mapping[str, Any]:
        if threading.current_thread() is main:
            begun.set()
            failed.wait(10)
            return successful(batch)
        begun.wait(10)
        failed.set()
        raise OSError("no sockets left")

    with pytest.raises(OSError, match="no sockets left"):
        sender(request).send()


def test_an_interrupt_ends_the_threads_before_it_is_raised() -> None:
    main = threading.main_thread()
    running: list[threading.Thread] = []

    def request(batch: list[Any]) -> Mapping[str, Any]:
        if threading.current_thread() is main:
            interrupted.set()
            raise KeyboardInterrupt
        running.append(threading.current_thread())
        interrupted.wait(10)
        time.sleep(0.02)  # until the main thread has left
        return successful(batch)

    interrupted = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        sender(request, 1_000).send()
    assert not any(thread.is_alive() for thread in running)
    assert len(running) < 2 * MAX_PARALLEL_BATCHES


def test_without_further_threads_the_caller_sends_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread can be started while the interpreter ends."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sender(successful).send().ids.keys() == set(range(COUNT))


def test_the_threads_have_the_callers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")
    found: set[str] = set()

    def request(batch: list[Any]) -> Mapping[str, Any]:
        found.add(variable.get("none"))
        return successful(batch)

    sender(request).send()
    assert found == {"mine"}


def test_what_was_sent_before_a_second_try_failed_counts_as_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[Any] = [{"Successful": [{"Id": "0", "MessageId": "m0"}]}]

    def request(batch: list[Any]) -> Mapping[str, Any]:
        if answers:
            answer: Mapping[str, Any] = answers.pop()
            return answer
        raise unreachable()

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    sent = sender(request, 2).send()
    assert (sent.ids, sent.unsent) == ({0: "m0"}, {1: "reason: EndpointConnectionError"})
