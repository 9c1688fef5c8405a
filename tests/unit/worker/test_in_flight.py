"""What messages are owed, against a real server whose answers can be spoiled."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.worker import in_flight
from beanstalk_dispatch.worker.in_flight import Holdings, Verdict, expect_end
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error

DELETE = Verdict(delete=True)


@pytest.fixture
def held(sqs_env: Environment, proxy: Proxy) -> list[Received]:
    """Two messages of the queue ``jobs``, received."""
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    queue.send("2", {})
    received: list[Received] = []
    while len(received) < 2:
        received += queue.receive(count=10, wait=1, visibility=30)
    return received


@pytest.fixture
def jobs(held: list[Received]) -> Holdings:
    made = Holdings("jobs", 30)
    made.take(held)
    return made


def refusing(code: str, *, sender_fault: bool) -> Any:
    """Refuse the first entry of every batch."""

    def spoil(operation: str, request: dict[str, Any]) -> Answer:
        failed = {"Id": "0", "Code": code, "SenderFault": sender_fault}
        others = [{"Id": entry["Id"]} for entry in request["Entries"][1:]]
        return 200, {"Successful": others, "Failed": [failed]}

    return spoil


def passing(operation: str, request: dict[str, Any]) -> None:
    return None


def test_what_sqs_could_not_delete_this_time_is_deleted_the_next(
    jobs: Holdings, held: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.spoil = refusing("InternalError", sender_fault=False)
    for message in held:
        jobs.settle(message, DELETE)
    assert jobs.delete() is True
    assert jobs.owed == 1
    assert list(jobs.held) == [held[0].message_id]
    assert jobs.delete() is False  # it waits
    assert "delete queue=jobs failures=1" in caplog.text
    proxy.spoil = passing
    jobs.deleting.retry_at = 0
    jobs.delete()
    assert (jobs.owed, jobs.held) == (0, {})
    assert open_queue("jobs").depth() == 0


def test_what_sqs_will_never_delete_is_let_go(
    jobs: Holdings, held: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.spoil = refusing("ReceiptHandleIsInvalid", sender_fault=True)
    jobs.settle(held[0], DELETE)
    jobs.delete()
    assert jobs.owed == 0
    assert held[0].message_id not in jobs.held
    assert "delete queue=jobs refused=1" in caplog.text


def test_an_error_nobody_thought_of_loses_nothing(
    jobs: Holdings, held: list[Received], monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*args: Any) -> None:
        raise RuntimeError("surprise")

    jobs.settle(held[0], DELETE)
    jobs.give_back([held[1]])
    with monkeypatch.context() as patch:
        patch.setattr(in_flight, "open_queue", surprise)
        assert jobs.delete() is False
        assert jobs.hide() is False
        later = time.monotonic() + 20
        patch.setattr("time.monotonic", lambda: later)
        jobs.extend()
    assert jobs.owed == len(jobs.held) == 2
    assert [jobs.deleting.failures, jobs.hiding.failures, jobs.extending.failures] == [1, 1, 1]


def test_what_could_not_be_hidden_is_hidden_later(
    jobs: Holdings, held: list[Received], proxy: Proxy
) -> None:
    proxy.spoil = refusing("InternalError", sender_fault=False)
    jobs.give_back(held)
    assert jobs.hide() is True
    assert jobs.owed == 1
    assert list(jobs.held) == [held[0].message_id]
    proxy.spoil = passing
    jobs.hiding.retry_at = 0
    jobs.hide()
    assert (jobs.owed, jobs.held) == (0, {})
    assert open_queue("jobs").depth() == 1  # the other never reached the server


def test_what_is_received_while_it_is_hidden_is_a_new_message(
    jobs: Holdings, held: list[Received], proxy: Proxy
) -> None:
    anew: list[Received] = []

    def lose_the_answer(operation: str, request: dict[str, Any]) -> Answer:
        proxy.spoil = passing
        open_queue("jobs").change_visibility_batch(held, [0, 0])
        anew.extend(open_queue("jobs").receive(count=10, wait=1, visibility=30))
        assert len(jobs.take(anew)) == len(anew)
        return error(400, "AccessDenied")

    proxy.spoil = lose_the_answer
    jobs.give_back(held)
    jobs.hide()
    assert {m for m in jobs.held.values() if m in anew} == set(anew)
    assert jobs.owed == 2 - len(anew)


def extended(jobs: Holdings, monkeypatch: pytest.MonkeyPatch, seconds: float = 20) -> None:
    """Let so many seconds pass, and have the holdings look."""
    with monkeypatch.context() as patch:
        later = time.monotonic() + seconds
        patch.setattr("time.monotonic", lambda: later)
        jobs.extend()


def test_a_heartbeat_that_sqs_could_not_take_is_tried_again(
    jobs: Holdings, held: list[Received], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held[0].expires
    proxy.spoil = refusing("InternalError", sender_fault=False)
    extended(jobs, monkeypatch)
    assert held[0].extends
    proxy.spoil = passing
    jobs.extending.retry_at = 0
    extended(jobs, monkeypatch)
    assert held[0].expires > before


@pytest.mark.parametrize(("ends", "logged"), [(False, True), (True, False)])
def test_a_heartbeat_that_is_refused_for_good_is_an_error_unless_the_message_has_ended(
    jobs: Holdings,
    held: list[Received],
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ends: bool,
    logged: bool,
) -> None:
    refuse = refusing("ReceiptHandleIsInvalid", sender_fault=True)

    def spoil(operation: str, request: dict[str, Any]) -> Answer:
        if ends:
            jobs.forget(held)
        answer: Answer = refuse(operation, request)
        return answer

    proxy.spoil = spoil
    extended(jobs, monkeypatch)
    assert not held[0].extends
    assert ("heartbeat queue=jobs refused=1" in caplog.text) is logged
    proxy.counts.clear()
    jobs.forget(held[1:])
    extended(jobs, monkeypatch)
    assert not proxy.counts


def test_nothing_is_extended_beyond_its_cap(
    jobs: Holdings, held: list[Received], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    held[0].due = time.monotonic() + 19
    before = held[0].expires
    extended(jobs, monkeypatch)
    assert held[0].expires == before < held[1].expires


def test_a_message_is_kept_for_three_phases_of_its_limit_and_a_margin(
    held: list[Received],
) -> None:
    expect_end(held[0])
    assert held[0].due - time.monotonic() == pytest.approx(120, abs=1)
    expect_end(held[0], 100)
    assert held[0].due - time.monotonic() == pytest.approx(450, abs=1)


def test_what_cannot_be_deleted_is_not_kept_for_ever(jobs: Holdings, held: list[Received]) -> None:
    jobs.settle(held[0], DELETE)
    assert held[0].due - time.monotonic() == pytest.approx(3600, abs=1)


def test_hiding_waits_for_no_heartbeat_and_none_comes_after_it(
    jobs: Holdings, held: list[Received], proxy: Proxy
) -> None:
    """One thread does both, so the last word is the retry's delay."""
    jobs.settle(held[0], Verdict(delete=False, delay=100))
    jobs.hide()
    assert held[0].message_id not in jobs.held
    assert 98 < held[0].expires - time.monotonic() <= 100


def test_too_much_that_is_owed_stops_receiving(jobs: Holdings, held: list[Received]) -> None:
    assert not jobs.is_behind
    jobs.give_back(held * 51)
    assert jobs.is_behind


def test_a_full_batch_is_awaited_no_longer(
    jobs: Holdings, held: list[Received], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    began = time.monotonic()
    waiter = threading.Thread(target=jobs.await_batch)
    waiter.start()
    time.sleep(0.05)
    for _ in range(5):
        for message in held:
            jobs.settle(message, DELETE)
    waiter.join(10)
    jobs.await_batch(10)
    assert time.monotonic() - began < 5
    jobs.deleting.failed("away")
    jobs.await_batch(0.01)  # a full batch is no reason to hurry then
