"""The threads that delete, requeue and extend, with real queues. The rest: integration/worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.in_flight import InFlight
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.request_threads import RequestThreads
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.process.service_thread import alive, join_within
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received
from tests.conftest import Environment
from tests.proxy import Proxy, error
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
        each.close(until=time.monotonic() + 20)
        join_within(20, each.threads)
        assert not alive(each.threads)


@pytest.fixture
def received(sqs_env: Environment) -> list[Received]:
    send("one")
    return open_queue("jobs").receive(count=1, wait=0, visibility=30)


def back_off(jobs: InFlight) -> None:
    """Have no request made for half a minute."""
    for backoff in (jobs.deletes.backoff, jobs.requeues.backoff):
        for _ in range(20):
            backoff.failed(SendError("unreachable"))


def close(threads: RequestThreads) -> None:
    threads.close(until=time.monotonic() + 20)
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


def test_what_was_not_sent_in_time_at_the_end_is_left(
    proxy: Proxy,
    sqs_env: Environment,
    received: list[Received],
    make_threads: Callable[..., RequestThreads],
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: error(400, "AccessDenied")
    jobs = in_flight()
    jobs.add(received)
    jobs.ack(received[0])
    threads = make_threads(jobs)
    started = time.monotonic()
    threads.close(until=started + 1)
    threads.start()
    join_within(20, threads.threads)
    assert 1 <= time.monotonic() - started < 10
    assert jobs.deletes.backoff.failures >= 2
    assert list(jobs._to_delete) == received


@pytest.mark.parametrize(("heartbeat", "is_closed"), [(False, False), (True, True)])
def test_no_heartbeats_are_sent_without_that_option_or_while_closing(
    monkeypatch: pytest.MonkeyPatch,
    make_threads: Callable[..., RequestThreads],
    heartbeat: bool,
    is_closed: bool,
) -> None:
    made: list[str] = []

    def requeue_batch(self: InFlight, at_least: int) -> bool:
        made.append("requeue")
        return False

    monkeypatch.setattr(InFlight, "_requeue_batch", requeue_batch)
    monkeypatch.setattr(InFlight, "_extend_batch", lambda self, at_least: made.append("extend"))
    jobs = in_flight()
    jobs.add(messages(1))
    jobs.requeue(messages(1))
    threads = make_threads(jobs, heartbeat=heartbeat)
    if is_closed:
        threads.close(until=time.monotonic() + 20)
    threads.start()
    until(lambda: len(made) >= 3)
    assert set(made) == {"requeue"}
    jobs._to_requeue.clear()


def hang_where_named_so(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[str]]:
    """Let heartbeats of queues named ``hangs`` wait for the event; list whose were begun."""
    gate = threading.Event()
    extended: list[str] = []

    def extend_batch(self: InFlight, at_least: int) -> bool:
        extended.append(self.queue)
        if self.queue == "hangs":
            gate.wait(20)
        return False

    monkeypatch.setattr(InFlight, "_extend_batch", extend_batch)
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
    """Four deletes of each queue, one requeue and one heartbeat."""
    gate = threading.Event()
    hanging: list[str] = []

    def hang(self: InFlight, at_least: int) -> bool:
        hanging.append(self.queue)
        gate.wait(20)
        return False

    for operation in ("_delete_batch", "_requeue_batch", "_extend_batch"):
        monkeypatch.setattr(InFlight, operation, hang)
    queues = [in_flight("one"), in_flight("other")]
    for each in queues:
        each.add(messages(1))
        each.requeue(messages(1))
        each._to_delete.extend(messages(10))
    threads = make_threads(*queues)
    threads.start()
    for _ in range(12):
        until(lambda: len(hanging) == len(threads.threads))
        threads.start_others_if_busy()
    for each in queues:
        each._to_requeue.clear()
        each._to_delete.clear()
    gate.set()
    assert len(threads.threads) == 12


def test_a_thread_that_cannot_be_started_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    """The stack of the thread would be larger than the memory that there is."""
    gate, hangs = threading.Event(), threading.Event()

    def extend_batch(self: InFlight, at_least: int) -> bool:
        hangs.set()
        return not gate.wait(20)

    monkeypatch.setattr(InFlight, "_extend_batch", extend_batch)
    monkeypatch.setattr(InFlight, "_delete_batch", lambda self, at_least: False)
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
        jobs._to_delete.clear()
        gate.set()


@pytest.mark.parametrize("error", [RuntimeError("surprise"), SystemExit()])
def test_unexpected_errors_of_one_queue_delay_no_other_and_start_no_threads(
    monkeypatch: pytest.MonkeyPatch,
    make_threads: Callable[..., RequestThreads],
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    extended: list[str] = []

    def extend_batch(self: InFlight, at_least: int) -> bool:
        extended.append(self.queue)
        if self.queue == "broken":
            raise error
        return False

    monkeypatch.setattr(InFlight, "_extend_batch", extend_batch)
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
    assert caplog.text.count("heartbeat failed queue=broken failures=1") == 1


@pytest.mark.parametrize("error", [RuntimeError("surprise"), IndexError("surprise")])
def test_an_unexpected_error_at_the_end_leaves_nothing_unsent(
    monkeypatch: pytest.MonkeyPatch,
    make_threads: Callable[..., RequestThreads],
    error: Exception,
) -> None:
    deleted: list[int] = []
    errors = iter([error])

    def delete_batch(self: InFlight, at_least: int) -> bool:
        for surprise in errors:
            raise surprise
        deleted.append(at_least)
        self._to_delete.clear()
        return False

    monkeypatch.setattr(InFlight, "_delete_batch", delete_batch)
    jobs = in_flight()
    jobs.ack(messages(1)[0])
    close(make_threads(jobs))
    assert deleted == [1]


def test_a_full_batch_is_deleted_at_once(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    sizes: list[int] = []

    def delete_batch(self: InFlight, at_least: int) -> bool:
        sizes.append(len(self._to_delete))
        self._to_delete.clear()
        return False

    monkeypatch.setattr(InFlight, "_delete_batch", delete_batch)
    jobs, received = in_flight(), messages(10)
    jobs.add(received)
    threads = make_threads(jobs, times=replace(TIMES, batch_interval=20))
    threads.start()
    until(lambda: threads._idle == 1)
    for each in received:
        jobs.ack(each)
    until(lambda: sizes)
    assert sizes == [10]


def test_full_batches_are_deleted_by_as_many_threads_as_it_takes_without_a_look_of_the_main_thread(
    monkeypatch: pytest.MonkeyPatch, make_threads: Callable[..., RequestThreads]
) -> None:
    """With more than 100 messages to delete a queue receives nothing, which costs the most."""
    gate = threading.Event()
    sizes: list[int] = []

    def delete_batch(self: InFlight, at_least: int) -> bool:
        with self._take_batch(self._to_delete, at_least) as batch:
            sizes.append(len(batch))
            batch.clear()
        gate.wait(20)
        return False

    monkeypatch.setattr(InFlight, "_delete_batch", delete_batch)
    jobs = in_flight()
    threads = make_threads(jobs, times=replace(TIMES, batch_interval=20))
    threads.start()
    until(lambda: threads._idle == 1)
    for number in range(1, 5):
        for each in messages(10):
            jobs.ack(each)
        until(lambda: len(sizes) == number)  # noqa: B023
    gate.set()
    assert sizes == [10] * 4
