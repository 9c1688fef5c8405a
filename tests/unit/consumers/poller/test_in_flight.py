"""Deletes, requeues and heartbeats, against a real server whose answers can be replaced."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller import in_flight
from beanstalk_dispatch.consumers.poller.in_flight import InFlight
from beanstalk_dispatch.consumers.poller.options import WorkerTimes
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received, Refused
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.workers import messages


@pytest.fixture
def received(sqs_env: Environment, proxy: Proxy) -> list[Received]:
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
def jobs(received: list[Received]) -> InFlight:
    made = InFlight("jobs", visibility_timeout=30, times=WorkerTimes())
    made.add(received)
    return made


def no_server() -> tuple[InFlight, list[Received]]:
    """Two messages for tests that make no request, and what holds them."""
    received = messages(2)
    jobs = InFlight("jobs", visibility_timeout=30, times=WorkerTimes())
    jobs.add(received)
    return jobs, received


def refusing(code: str, *, sender_fault: bool) -> Any:
    """Refuse the first entry of every batch."""

    def spoil(operation: str, request: dict[str, Any]) -> Answer:
        failed = {"Id": "0", "Code": code, "SenderFault": sender_fault}
        others = [{"Id": entry["Id"]} for entry in request["Entries"][1:]]
        return 200, {"Successful": others, "Failed": [failed]}

    return spoil


def passing(operation: str, request: dict[str, Any]) -> None:
    return None


# --- deletes ---


@pytest.mark.parametrize(
    ("code", "sender_fault"),
    [("InternalError", False), ("RequestThrottled", True), ("AccessDenied", True)],
)
def test_a_message_that_sqs_could_not_delete_is_deleted_by_a_later_request(
    jobs: InFlight, received: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture,
    code: str, sender_fault: bool,
) -> None:  # fmt: skip
    proxy.spoil = refusing(code, sender_fault=sender_fault)
    for message in received:
        jobs.ack(message)
    assert jobs.deletes.send_batch() is True
    assert jobs.pending == 1
    assert list(jobs.messages) == [received[0].message_id]
    assert jobs.deletes.send_batch() is False  # it backs off
    assert "delete failed queue=jobs failures=1" in caplog.text
    proxy.spoil = passing
    jobs.deletes.backoff.hurry()
    jobs.deletes.send_batch()
    assert (jobs.pending, jobs.messages) == (0, {})
    assert open_queue("jobs").depth() == 0


def test_a_message_that_sqs_refuses_to_delete_is_given_up(
    jobs: InFlight, received: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.spoil = refusing("ReceiptHandleIsInvalid", sender_fault=True)
    jobs.ack(received[0])
    jobs.deletes.send_batch()
    assert jobs.pending == 0
    assert received[0].message_id not in jobs.messages
    assert "delete failed queue=jobs refused=1" in caplog.text


def test_a_message_whose_visibility_has_ended_is_not_deleted(
    jobs: InFlight, received: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    received[0].expires = time.monotonic() - 1
    jobs.ack(received[0])
    proxy.counts.clear()
    assert jobs.deletes.send_batch() is False
    assert not proxy.counts
    assert (
        "not deleted queue=jobs count=1 error=the visibility timeout has ended; "
        "the messages are delivered again" in caplog.text
    )


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_message_that_could_not_be_deleted_is_deleted_unrun_when_it_comes_back(
    jobs: InFlight,
    received: list[Received],
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    is_refused: bool,
) -> None:
    """Also without the memory of execution, as after a POST whose answer came late."""
    caplog.set_level(logging.INFO)
    open_queue("jobs").change_visibility_batch(received, [0, 0])
    if is_refused:
        proxy.spoil = refusing("ReceiptHandleIsInvalid", sender_fault=True)
        received[0].expires = time.monotonic() + 30
    jobs.ack(received[0])
    jobs.deletes.send_batch()
    jobs.nack(received[1])
    proxy.spoil = passing
    again: list[Received] = []
    while len(again) < 2:
        again += open_queue("jobs").receive(count=10, wait=1, visibility=30)
    assert [each.message_id for each in jobs.add(again)] == [received[1].message_id]
    assert "delivered again after its end; deleting it queue=jobs count=1" in caplog.text
    jobs.deletes.send_batch()
    assert list(jobs.messages) == [received[1].message_id]


def test_only_the_last_messages_that_could_not_be_deleted_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_flight, "_MAX_UNDELETED", 1)
    jobs, received = no_server()
    jobs._remember_undeleted(received)
    jobs.messages.clear()
    assert jobs.add(messages(2)) != []
    assert jobs.pending == 1


def test_the_message_that_is_forgotten_first_is_the_oldest_that_was_not_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest is the one that SQS delivers again."""
    monkeypatch.setattr(in_flight, "_MAX_UNDELETED", 2)
    jobs = InFlight("jobs", visibility_timeout=30, times=WorkerTimes())
    oldest, *newest = messages(3)
    for message in (oldest, *newest):
        jobs._remember_undeleted([message])
    assert jobs.add(messages(3)) == [jobs.messages[oldest.message_id]]
    assert jobs.pending == 2


def test_a_message_that_was_received_again_is_deleted_with_its_last_receipt(
    jobs: InFlight, received: list[Received], proxy: Proxy
) -> None:
    """SQS may keep a message that is deleted with an older one."""
    assert jobs.add([replace(received[0], receipt="the-last")]) == []
    receipts: list[str] = []

    def note(operation: str, request: dict[str, Any]) -> None:
        receipts.extend(each["ReceiptHandle"] for each in request["Entries"])

    proxy.spoil = note
    jobs.ack(received[0])
    jobs.deletes.send_batch()
    assert receipts == ["the-last"]


@pytest.mark.parametrize(("delay", "seconds"), [(0.0, 0), (0.2, 1), (7.001, 8), (7.0, 7)])
def test_a_requeued_message_is_never_early(
    jobs: InFlight, received: list[Received], proxy: Proxy, delay: float, seconds: int
) -> None:
    """SQS takes whole seconds."""
    timeouts: list[int] = []

    def note(operation: str, request: dict[str, Any]) -> None:
        timeouts.extend(each["VisibilityTimeout"] for each in request["Entries"])

    proxy.spoil = note
    jobs.requeue([received[0]], delay)
    jobs.requeues.send_batch()
    assert timeouts == [seconds]


def test_a_message_that_cannot_be_deleted_is_kept_for_an_hour() -> None:
    jobs, received = no_server()
    jobs.ack(received[0])
    assert received[0].deadline - time.monotonic() == pytest.approx(3600, abs=1)


def test_a_full_batch_is_announced() -> None:
    jobs, _ = no_server()
    announced: list[int] = []
    jobs.on_full_batch = lambda: announced.append(jobs.pending)
    for message in messages(25):
        jobs.ack(message)
    assert announced == [10, 20]


# --- requeues ---


def test_a_message_that_sqs_could_not_requeue_is_requeued_by_a_later_request(
    jobs: InFlight, received: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.spoil = refusing("InternalError", sender_fault=False)
    jobs.requeue(received)
    assert jobs.requeues.send_batch() is True
    assert jobs.pending == 1
    assert list(jobs.messages) == [received[0].message_id]
    assert "requeue failed queue=jobs failures=1" in caplog.text
    proxy.spoil = passing
    jobs.requeues.backoff.hurry()
    jobs.requeues.send_batch()
    assert (jobs.pending, jobs.messages) == (0, {})
    assert open_queue("jobs").depth() == 1  # the other never reached the server


def test_a_message_that_sqs_refuses_to_requeue_is_given_up(
    jobs: InFlight, received: list[Received], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.spoil = refusing("ReceiptHandleIsInvalid", sender_fault=True)
    jobs.nack(received[0], 1)
    assert jobs.requeues.send_batch() is True
    assert jobs.pending == 0
    assert received[0].message_id not in jobs.messages
    assert "requeue failed queue=jobs refused=1" in caplog.text


def test_a_message_whose_visibility_has_ended_is_not_requeued(
    jobs: InFlight, received: list[Received], proxy: Proxy
) -> None:
    for message in received:
        message.expires = time.monotonic() - 1
    jobs.requeue(received, 5)
    proxy.counts.clear()
    assert jobs.requeues.send_batch() is False
    assert (jobs.messages, jobs.pending) == ({}, 0)
    assert not proxy.counts


def test_a_nack_without_a_delay_needs_no_request() -> None:
    jobs, received = no_server()
    jobs.nack(received[0])
    assert received[0].message_id not in jobs.messages
    assert jobs.pending == 0


def test_a_message_that_is_received_while_it_is_requeued_is_a_new_message(
    jobs: InFlight, received: list[Received], proxy: Proxy
) -> None:
    again: list[Received] = []

    def lose_the_answer(operation: str, request: dict[str, Any]) -> Answer:
        proxy.spoil = passing
        open_queue("jobs").change_visibility_batch(received, [0, 0])
        again.extend(open_queue("jobs").receive(count=10, wait=1, visibility=30))
        assert len(jobs.add(again)) == len(again)
        return error(400, "AccessDenied")

    proxy.spoil = lose_the_answer
    jobs.requeue(received)
    jobs.requeues.send_batch()
    assert {m for m in jobs.messages.values() if m in again} == set(again)
    assert jobs.pending == 2 - len(again)


def test_no_heartbeat_follows_a_requeue(jobs: InFlight, received: list[Received]) -> None:
    jobs.nack(received[0], 100)
    jobs.requeues.send_batch()
    jobs.heartbeats.send_batch()
    assert received[0].message_id not in jobs.messages
    assert 98 < received[0].expires - time.monotonic() <= 100


def test_a_requeue_waits_for_the_heartbeat_of_its_message(
    jobs: InFlight, received: list[Received], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS keeps the visibility timeout that arrives last, which must be the delay of the retry."""
    proxy.counts.clear()

    def requeue(operation: str, request: dict[str, Any]) -> None:
        jobs.requeue(received, 100)
        assert jobs.requeues.send_batch() is False
        assert jobs.heartbeats.send_batch() is False

    proxy.spoil = requeue
    extend_after(jobs, monkeypatch)
    assert proxy.counts["ChangeMessageVisibilityBatch"] == 1
    assert (jobs.pending, len(jobs.messages)) == (2, 2)
    proxy.spoil = passing
    assert jobs.requeues.send_batch() is True
    assert (jobs.pending, jobs.messages) == (0, {})


def test_a_message_knows_how_often_it_was_received_in_vain() -> None:
    jobs, received = no_server()
    jobs.add(messages(1))  # while the first is in flight
    jobs.requeue_unrun(received[:1])
    jobs.messages.clear()
    (again,) = jobs.add(messages(1))
    assert again.unrun_receives == 2
    jobs.ack(again)
    jobs.messages.clear()
    assert jobs.add(messages(1))[0].unrun_receives == 0


def test_a_message_that_has_not_run_is_requeued() -> None:
    jobs, received = no_server()
    jobs.requeue_unrun(received, 5)
    assert jobs.pending == 2
    assert [(each, each.requeue_delay) for each in jobs._to_requeue] == [(m, 5) for m in received]


@pytest.mark.parametrize(("delay", "hidden"), [(None, 30), (7, 7), (0, 0)])
def test_a_failure_in_a_group_is_remembered_for_as_long_as_its_message_is_hidden(
    delay: float | None, hidden: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then one receive brings one message: those behind it may not run."""
    jobs = InFlight("jobs", visibility_timeout=30, times=WorkerTimes())
    (message,) = messages(1, group="g")
    jobs.add([message])
    assert jobs.budget.max_messages() == 10
    started = time.monotonic()
    jobs.nack(message, delay)
    for seconds, allowed in ((hidden - 1, 1), (hidden + 1, 10)):
        later = started + 60 + seconds
        monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda later=later: later)
        assert jobs.budget.max_messages() == allowed


def test_an_acknowledged_message_ends_the_interruption_of_its_group() -> None:
    jobs = InFlight("jobs", visibility_timeout=30, times=WorkerTimes())
    (message,) = messages(1, group="g")
    jobs.add([message])
    jobs.nack(message, 0)
    assert jobs.budget.max_messages() == 1
    jobs.add([message])
    jobs.ack(message)
    assert jobs.budget.max_messages() == 10


def test_a_message_of_a_group_blocks_what_is_behind_it() -> None:
    for group, blocks in ((None, False), ("g", True)):
        jobs = InFlight("jobs", visibility_timeout=30, times=WorkerTimes())
        assert not jobs.blocks_fifo_groups()
        jobs.add(messages(1, group=group))
        assert jobs.blocks_fifo_groups() is blocks


def test_up_to_a_hundred_pending_messages_are_not_too_many() -> None:
    jobs, received = no_server()
    jobs.requeue(received * 50)
    assert (jobs.pending, jobs.is_behind) == (100, False)
    jobs.ack(received[0])
    assert (jobs.pending, jobs.is_behind) == (101, True)


def test_an_answer_without_a_passing_refusal_ends_the_waiting(
    jobs: InFlight, received: list[Received]
) -> None:
    passing_one = Refused(received[0], "InternalError", is_final=False)
    final_one = Refused(received[1], "ReceiptHandleIsInvalid", is_final=True)
    refused = [passing_one, final_one]
    backoff = jobs.deletes.backoff
    assert jobs._send(received, backoff, lambda queue: refused) == ([received[0]], [received[1]])
    assert backoff.failures == 1
    assert jobs._send(received, backoff, lambda queue: [final_one]) == ([], [received[1]])
    assert backoff.failures == 0


def test_many_pending_messages_stop_receiving() -> None:
    jobs, received = no_server()
    assert not jobs.is_behind
    jobs.requeue(received * 51)
    assert jobs.is_behind


# --- heartbeats ---


def extend_after(jobs: InFlight, monkeypatch: pytest.MonkeyPatch, seconds: float = 20) -> None:
    """Let ``seconds`` pass, and send the heartbeats that are due then."""
    with monkeypatch.context() as patch:
        later = time.monotonic() + seconds
        patch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: later)
        jobs.heartbeats.send_batch()


def test_a_heartbeat_that_sqs_could_not_take_is_sent_again(
    jobs: InFlight, received: list[Received], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = received[0].expires
    proxy.spoil = refusing("InternalError", sender_fault=False)
    extend_after(jobs, monkeypatch)
    assert received[0].can_extend
    assert jobs.heartbeats.send_batch() is False  # it backs off
    proxy.spoil = passing
    jobs.heartbeats.backoff.hurry()
    extend_after(jobs, monkeypatch)
    assert received[0].expires > before


def test_a_heartbeat_that_fails_is_logged(
    jobs: InFlight,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.spoil = lambda operation, request: error(400, "AccessDenied")
    extend_after(jobs, monkeypatch)
    assert "heartbeat failed queue=jobs failures=1 retry_in=" in caplog.text
    assert "AccessDenied" in caplog.text


@pytest.mark.parametrize(("has_ended", "is_logged"), [(False, True), (True, False)])
def test_a_refused_heartbeat_is_an_error_unless_the_message_has_ended(
    jobs: InFlight,
    received: list[Received],
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    has_ended: bool,
    is_logged: bool,
) -> None:
    refuse = refusing("ReceiptHandleIsInvalid", sender_fault=True)

    def spoil(operation: str, request: dict[str, Any]) -> Answer:
        if has_ended:
            for message in received:
                jobs.nack(message)
        answer: Answer = refuse(operation, request)
        return answer

    proxy.spoil = spoil
    extend_after(jobs, monkeypatch)
    assert not received[0].can_extend
    assert ("heartbeat failed queue=jobs refused=1" in caplog.text) is is_logged
    proxy.counts.clear()
    jobs.nack(received[1])
    extend_after(jobs, monkeypatch)
    assert not proxy.counts


def test_a_message_is_not_extended_beyond_its_deadline(
    jobs: InFlight, received: list[Received], monkeypatch: pytest.MonkeyPatch
) -> None:
    received[0].deadline = time.monotonic() + 19
    before = received[0].expires
    extend_after(jobs, monkeypatch)
    assert received[0].expires == before < received[1].expires


def test_the_deadline_allows_three_phases_of_the_time_limit_and_a_margin() -> None:
    jobs, received = no_server()
    jobs.set_deadline(received[0])
    assert received[0].deadline - time.monotonic() == pytest.approx(120, abs=1)
    jobs.set_deadline(received[0], 100)
    assert received[0].deadline - time.monotonic() == pytest.approx(450, abs=1)


# --- all three ---


def test_an_unexpected_error_loses_nothing(
    jobs: InFlight, received: list[Received], monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*args: Any) -> None:
        raise RuntimeError("surprise")

    jobs.ack(received[0])
    jobs.requeue([received[1]])
    with monkeypatch.context() as patch:
        patch.setattr(in_flight, "open_queue", surprise)
        assert jobs.deletes.send_batch() is True
        assert jobs.requeues.send_batch() is True
        later = time.monotonic() + 20
        patch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: later)
        assert jobs.heartbeats.send_batch() is True
    assert jobs.pending == len(jobs.messages) == 2
    assert not any(each.is_extending for each in received)
    backoffs = [jobs.deletes.backoff, jobs.requeues.backoff, jobs.heartbeats.backoff]
    assert [backoff.failures for backoff in backoffs] == [1, 1, 1]
