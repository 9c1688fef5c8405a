"""The threads that delete, requeue and extend, with real queues. The rest: integration/worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.worker.in_flight import InFlight
from beanstalk_dispatch.worker.options import WorkerOptions
from beanstalk_dispatch.worker.request_threads import RequestThreads
from beanstalk_dispatch.worker.threads import alive, join_within
from tests.conftest import Environment
from tests.workers import QUICK, TIMES, messages, send, until


def in_flight(queue: str = "jobs") -> InFlight:
    return InFlight(queue, visibility_timeout=30, times=TIMES)


@pytest.fixture
def make_threads() -> Iterator[Callable[..., RequestThreads]]:
    made: list[RequestThreads] = []

    def make(*queues: InFlight, **options: Any) -> RequestThreads:
        made.append(RequestThreads(queues, WorkerOptions(**(QUICK | options))))
        return made[-1]

    yield make
    for each in made:
        each.close()
        join_within(20, each.threads)
        assert not alive(each.threads)


@pytest.fixture
def received(sqs_env: Environment) -> list[Received]:
    send("one")
    return open_queue("jobs").receive(count=1, wait=0, visibility=30)


def back_off(jobs: InFlight) -> None:
    """Have no request made for half a minute."""
    for backoff in (jobs.delete_backoff, jobs.requeue_backoff):
        for _ in range(20):
            backoff.failed(SendError("unreachable"))


def close(threads: RequestThreads) -> None:
    threads.close()
    threads.start()
    join_within(20, threads.threads)


def test_the_last_deletes_are_sent_even_while_it_backs_off(
    received: list[Received], make_threads: Callable[..., RequestThreads]
) -> None:
    jobs = in_flight()
    jobs.add(received)
    jobs.ack(received[0])
    back_off(jobs)
    close(make_threads(jobs))
    assert jobs.messages == {}
    open_queue("jobs").change_visibility_batch(received, [0])
    assert open_queue("jobs").depth() == 0


def test_the_last_requeues_are_sent_even_while_it_backs_off(
    received: list[Received], make_threads: Callable[..., RequestThreads]
) -> None:
    jobs = in_flight()
    jobs.add(received)
    jobs.requeue(received)
    back_off(jobs)
    close(make_threads(jobs))
    assert open_queue("jobs").depth() == 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is called of InFlight. Two of three calls to requeue say that there is more."""
    made: list[str] = []
    results = iter([True, True])

    def requeue_batch(self: InFlight) -> bool:
        made.append("requeue")
        return next(results, False)

    monkeypatch.setattr(InFlight, "requeue_batch", requeue_batch)
    monkeypatch.setattr(InFlight, "extend_visibility", lambda self: made.append("extend"))
    return made


def test_heartbeats_are_sent_between_batches_of_requeues(
    calls: list[str], make_threads: Callable[..., RequestThreads]
) -> None:
    jobs = in_flight()
    jobs.add(messages(1))
    make_threads(jobs).start()
    until(lambda: len(calls) >= 6)
    assert calls[:6] == ["requeue", "extend"] * 3


@pytest.mark.parametrize(("heartbeat", "is_closed"), [(False, False), (True, True)])
def test_no_heartbeats_are_sent_without_that_option_or_while_closing(
    calls: list[str], make_threads: Callable[..., RequestThreads], heartbeat: bool, is_closed: bool
) -> None:
    jobs = in_flight()
    jobs.add(messages(1))
    threads = make_threads(jobs, heartbeat=heartbeat)
    if is_closed:
        threads.close()
    threads.start()
    until(lambda: len(calls) >= 3)
    assert set(calls) == {"requeue"}


def hang_where_named_so(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[str]]:
    """Let heartbeats of queues named ``hangs`` wait for the event; list whose were begun."""
    gate = threading.Event()
    extended: list[str] = []

    def extend_visibility(self: InFlight) -> None:
        extended.append(self.queue)
        if self.queue == "hangs":
            gate.wait(20)

    monkeypatch.setattr(InFlight, "extend_visibility", extend_visibility)
    return gate, extended


def test_there_is_one_thread_for_all_queues_unless_one_hangs(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    gate, extended = hang_where_named_so(monkeypatch)
    queues = [in_flight("hangs"), *(in_flight(f"q{number}") for number in range(20))]
    for each in queues[1:]:
        each.add(messages(1))
    threads = make_threads(*queues)
    threads.start()
    until(lambda: set(extended) == {f"q{number}" for number in range(20)})
    until(lambda: threads._idle == 1)
    for _ in range(3):
        threads.start_others_if_busy()
        until(lambda: threads._idle == 1)
    assert len(alive(threads.threads)) == 1
    queues[0].add(messages(1))
    until(lambda: "hangs" in extended)
    extended.clear()
    for _ in range(2):
        threads.start_others_if_busy()
    until(lambda: len(extended) >= 20)
    assert set(extended) == {f"q{number}" for number in range(20)}
    assert len(alive(threads.threads)) == 2
    gate.set()
    until(lambda: len(alive(threads.threads)) == 1)  # one is enough again


def test_of_many_queues_that_hang_none_delays_another_for_long(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    """Each queue that hangs takes one thread. Started one by one they would need 60 looks."""
    gate, extended = hang_where_named_so(monkeypatch)
    queues = [*(in_flight("hangs") for _ in range(30)), in_flight("healthy")]
    for each in queues:
        each.add(messages(1))
    threads = make_threads(*queues)
    threads.start()
    looks = 0
    while "healthy" not in extended:
        until(lambda: "healthy" in extended or len(extended) == len(threads.threads))
        threads.start_others_if_busy()
        looks += 1
    gate.set()
    assert looks <= 11


def test_there_are_no_more_threads_than_requests_at_a_time(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    """Four deletes of each queue, and one change of visibility."""
    gate = threading.Event()
    hanging: list[str] = []

    def hang(self: InFlight, at_least: int = 1) -> bool:
        hanging.append(self.queue)
        gate.wait(20)
        return False

    monkeypatch.setattr(InFlight, "delete_batch", hang)
    monkeypatch.setattr(InFlight, "extend_visibility", hang)
    queues = [in_flight("one"), in_flight("other")]
    for each in queues:
        each.add(messages(1))
    threads = make_threads(*queues)
    threads.start()
    for _ in range(12):
        until(lambda: len(hanging) == len(threads.threads))
        threads.start_others_if_busy()
    gate.set()
    assert len(threads.threads) == 10


def test_a_thread_that_cannot_be_started_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    """The stack of the thread would be larger than the memory that there is."""
    gate, hangs = threading.Event(), threading.Event()

    def extend_visibility(self: InFlight) -> None:
        hangs.set()
        gate.wait(20)

    monkeypatch.setattr(InFlight, "extend_visibility", extend_visibility)
    monkeypatch.setattr(InFlight, "delete_batch", lambda self, at_least: False)
    jobs, received = in_flight(), messages(10)
    jobs.add(received)
    threads = make_threads(jobs)
    threads.start()
    assert hangs.wait(20)
    usual = threading.stack_size(1 << 60)
    try:
        for each in received:
            jobs.ack(each)
        for _ in range(2):
            threads.start_others_if_busy()
        assert len(threads.threads) == 1
    finally:
        threading.stack_size(usual)
        gate.set()


@pytest.mark.parametrize("error", [RuntimeError("surprise"), SystemExit()])
def test_unexpected_errors_of_one_queue_delay_no_other_and_start_no_threads(
    monkeypatch: pytest.MonkeyPatch,
    make_threads: Callable[..., RequestThreads],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    extended: list[str] = []

    def extend_visibility(self: InFlight) -> None:
        extended.append(self.queue)
        if self.queue == "broken":
            raise error

    monkeypatch.setattr(InFlight, "extend_visibility", extend_visibility)
    queues = [in_flight("broken"), in_flight("healthy")]
    for each in queues:
        each.add(messages(1))
    threads = make_threads(*queues)
    threads.start()
    for _ in range(2):
        until(lambda: "broken" in extended)
        threads.start_others_if_busy()
        extended.clear()
    until(lambda: extended.count("healthy") >= 3, 2)
    assert len(threads.threads) <= 2
    assert caplog.text.count("requeue failed queue=broken failures=1") == 1


@pytest.mark.parametrize("error", [RuntimeError("surprise"), IndexError("surprise")])
def test_an_unexpected_error_at_the_end_leaves_nothing_unsent(
    monkeypatch: pytest.MonkeyPatch,
    make_threads: Callable[..., RequestThreads],
    error: Exception,
) -> None:
    deleted: list[int] = []
    errors = iter([error])

    def delete_batch(self: InFlight, *, at_least: int = 1) -> bool:
        for surprise in errors:
            raise surprise
        deleted.append(at_least)
        return False

    monkeypatch.setattr(InFlight, "delete_batch", delete_batch)
    close(make_threads(in_flight()))
    assert deleted == [1]


def test_a_full_batch_is_deleted_at_once(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    sizes: list[int] = []

    def delete_batch(self: InFlight, *, at_least: int = 1) -> bool:
        if len(self._to_delete) >= at_least:
            sizes.append(len(self._to_delete))
            self._to_delete.clear()
        return False

    monkeypatch.setattr(InFlight, "delete_batch", delete_batch)
    jobs, received = in_flight(), messages(10)
    jobs.add(received)
    threads = make_threads(jobs, times=replace(TIMES, batch_interval=20))
    threads.start()
    until(lambda: threads._idle == 1)
    for each in received:
        jobs.ack(each)
    until(lambda: sizes)
    assert sizes == [10]
