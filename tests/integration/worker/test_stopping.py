"""What a stop waits for, and what becomes of the messages."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from beanstalk_dispatch.client import Call, schedule_many
from beanstalk_dispatch.consumers.poller.health import why_unhealthy
from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.consumers.poller.runners import run_here
from beanstalk_dispatch.consumers.poller.worker import EXIT_NO_QUEUE, EXIT_STUCK, Worker
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.left_behind import spoiled
from beanstalk_dispatch.running.left_behind import threads as left_threads
from beanstalk_dispatch.running.limits import time_limit
from beanstalk_dispatch.sqs.queue import Received
from tests import jobs
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
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


def test_messages_that_have_not_started_are_requeued(sqs_env: Environment) -> None:
    send(*map(str, range(8)))
    gate = threading.Event()
    runner = Recording(waiting_for(gate))
    with running(runner, threads=2) as worker:
        prefetch = worker.prefetch
        prefetch._average_seconds, prefetch._last_ended_at = 0.1, math.inf  # more is received
        until(lambda: len(runner.bodies) == 2 and worker.counters.waiting)
        worker.stop()
        time.sleep(0.1)
        gate.set()
    assert len(runner.bodies) == 2
    assert sorted(left() + runner.bodies) == list(map(str, range(8)))


def test_a_task_that_runs_longer_than_the_grace_is_requeued(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    body = Message(function="long", id="task-1").encode(queue="jobs")
    send(body)
    gate = threading.Event()
    runner = Recording(waiting_for(gate))
    with running(runner, grace=0.1, wait=0):
        until(lambda: runner.bodies)
    assert left() == [body]
    assert "stop unfinished id=task-1 thread=" in caplog.text
    gate.set()


def test_a_posted_task_that_runs_longer_than_the_grace_is_not_requeued(
    sqs_env: Environment, proxy: Proxy
) -> None:
    send("posted")
    gate = threading.Event()
    with running(Recording(waiting_for(gate)), heartbeat=False, grace=0.1, wait=0) as worker:
        until(lambda: worker.counters.running)
    assert proxy.counts["ChangeMessageVisibilityBatch"] == 0
    gate.set()


def test_messages_that_an_open_long_poll_brings_are_requeued(
    sqs_env: Environment, proxy: Proxy
) -> None:
    send()  # which makes the queue
    runner = Recording()
    with running(runner, wait=20) as worker:
        until(lambda: proxy.counts["ReceiveMessage"])
        worker.stop()
        send("late")
    assert runner.bodies == []
    assert left() == ["late"]


def test_the_start_and_the_stop_are_logged(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beanstalk_dispatch.worker")
    send("one")
    assert make_worker(Recording(), threads=3, grace=2.5, max_tasks=1).run() == 0
    start, stop, stopped = [r.getMessage() for r in caplog.records if r.name.endswith(".worker")]
    assert start == "start queues='jobs' threads=3"
    assert stop.startswith("stop running=0 open_polls=")
    assert stop.endswith(" grace=2.5")
    assert stopped == "stopped done=1 failed=0 running=0 exit_code=0"


# --- tasks that cannot be interrupted ---


def test_a_stuck_task_ends_the_worker(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(time_limit, "GRACE", 0.2)
    worker_env(DISPATCH_TASK_TIMEOUT="0.2s")
    schedule_many("jobs", [Call("block", [20])])
    assert make_worker(run_here).run() == EXIT_STUCK
    assert "stop reason=stuck tasks=1 exit_code=75" in caplog.text
    jobs.release.set()
    until(lambda: not time_limit.stuck())


def test_the_visibility_of_a_stuck_tasks_message_is_not_extended(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that another worker gets it."""
    send("stuck", "fine")
    gate = threading.Event()
    runner = Recording(waiting_for(gate))
    with running(runner, visibility_timeout=3) as worker:
        until(lambda: len(worker.tasks.running) == 2)
        by_body = {message.body: message for _, message in worker.tasks.running.values()}
        threads = {message.body: number for number, (_, message) in worker.tasks.running.items()}

        class Limit:
            thread_id = threads["stuck"]

        before = {body: message.expires for body, message in by_body.items()}
        with monkeypatch.context() as patch:
            patch.setattr(Worker, "stop", lambda *args: None)
            patch.setattr(time_limit, "stuck", lambda: [Limit])
            until(lambda: by_body["fine"].expires > before["fine"])
            assert by_body["stuck"].expires == before["stuck"]
        gate.set()


def test_a_task_that_outlives_every_limit_ends_the_worker(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """Some code is under no time limit: a process() override, a signal receiver."""
    send("endless")
    gate = threading.Event()
    times = replace(TIMES, task_margin=0.2)
    worker = make_worker(Recording(waiting_for(gate)), times=times)
    seen: set[str | None] = set()

    class LooksAtTheStop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.add(why_unhealthy(worker))

    log, handler = logging.getLogger("beanstalk_dispatch"), LooksAtTheStop(logging.CRITICAL)
    log.addHandler(handler)
    try:
        assert worker.run() == EXIT_STUCK
    finally:
        log.removeHandler(handler)
    assert seen == {"1 stuck"}
    assert left() == ["endless"]
    assert "stop reason=stuck tasks=1" in caplog.text
    gate.set()


def test_a_posted_task_may_take_as_long_as_its_web_server_allows(sqs_env: Environment) -> None:
    send("posted")
    gate = threading.Event()
    times = replace(TIMES, task_margin=0.0)
    with running(Recording(waiting_for(gate)), heartbeat=False, times=times) as worker:
        until(lambda: worker.counters.running)
        time.sleep(0.1)
        assert not worker.is_stopping()
        gate.set()
        until(lambda: worker.counters.done)


def test_a_stop_does_not_wait_for_a_log_that_a_stuck_task_holds(sqs_env: Environment) -> None:
    send("waits")
    handler = logging.StreamHandler()
    log = logging.getLogger("beanstalk_dispatch")
    worker = make_worker(Recording(), times=replace(TIMES, log_timeout=0.1))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(worker.run()))
    thread.start()
    until(lambda: worker.counters.done)
    log.addHandler(handler)
    handler.acquire()
    try:
        worker.stop(EXIT_STUCK)
        thread.join(10)
        assert codes == [EXIT_STUCK]
    finally:
        handler.release()
        log.removeHandler(handler)


# --- SQS that does not answer ---


def hang_until(gate: threading.Event) -> Callable[[str, dict[str, Any]], None]:
    def hang(operation: str, request: dict[str, Any]) -> None:
        gate.wait(20)

    return hang


def test_a_stop_does_not_wait_for_a_long_poll_that_hangs(
    sqs_env: Environment, proxy: Proxy
) -> None:
    send()  # which makes the queue
    gate = threading.Event()
    proxy.spoil = hang_until(gate)
    times = replace(TIMES, long_poll_margin=0.1)
    with running(Recording(), wait=0, times=times) as worker:
        until(lambda: proxy.counts["ReceiveMessage"])
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 4
    assert worker.queues[0].open_receives == 1
    gate.set()


def test_a_stop_does_not_wait_for_a_delete_that_hangs(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    send("one")
    gate = threading.Event()

    def hang_from_now(received: Received) -> Ack:
        proxy.spoil = hang_until(gate)
        return ACK

    times = replace(TIMES, long_poll_margin=0.1, flush_timeout=0.1)
    with running(Recording(hang_from_now), wait=0, grace=1, times=times) as worker:
        until(lambda: worker.counters.done)
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < 4
    assert "stop unacknowledged queue=jobs count=1" in caplog.text
    gate.set()


def refused_by_sqs() -> Answer:
    return error(400, "AccessDenied")


def dropped() -> NoReturn:
    raise ConnectionResetError


@pytest.mark.parametrize("answer", [refused_by_sqs, dropped])
@pytest.mark.parametrize(
    ("operation", "result"),
    [("DeleteMessageBatch", ACK), ("ChangeMessageVisibilityBatch", Nack(100))],
)
def test_what_sqs_does_not_take_at_the_end_of_a_stop_is_sent_again(
    sqs_env: Environment, proxy: Proxy, answer: Callable[[], Answer], operation: str,
    result: Ack | Nack,
) -> None:  # fmt: skip
    """A message of which the delete is lost would run again, and a retry would come too early."""
    send("one")
    times = replace(TIMES, flush_timeout=10)
    with running(Recording(lambda received: result), wait=1, times=times) as worker:
        spoiled = itertools.count()

        def spoil(asked: str, request: dict[str, Any]) -> Answer | None:
            is_wanted = asked == operation and next(spoiled) < 6
            return answer() if is_wanted else None

        proxy.spoil = spoil
        until(lambda: worker.counters.done or worker.counters.failed)
        worker.stop()
    assert next(spoiled) >= 6
    assert not worker.queues[0].in_flight.messages
    assert left() == []


# --- other reasons to stop, and what is shown ---


def test_a_burst_ends_when_a_queue_does_not_exist(
    without_queue: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    without_queue(DISPATCH_CREATE_QUEUES=None)
    assert drain(Recording()) == EXIT_NO_QUEUE
    assert "stop reason=no-queue queues='jobs' exit_code=69" in caplog.text


def test_a_burst_ends_when_sqs_does_not_answer(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("{}")
    proxy.spoil = lambda operation, request: error(403, "AccessDenied")
    times = replace(TIMES, burst_patience=0.2)
    assert drain(Recording(), times=times) == EXIT_NO_QUEUE
    assert "stop reason=no-answer queues='jobs' exit_code=69" in caplog.text


def test_a_burst_waits_for_the_tasks_of_a_queue_that_does_not_answer(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("{}")

    def answer(received: Received) -> Ack:
        proxy.spoil = lambda operation, request: error(403, "AccessDenied")
        time.sleep(1.5)
        proxy.spoil = lambda operation, request: None
        return ACK

    times = replace(TIMES, burst_patience=0.2)
    assert drain(Recording(answer), times=times, grace=0.0) in {0, EXIT_NO_QUEUE}
    assert "stop unfinished" not in caplog.text


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_burst_waits_for_the_other_queues_and_for_tasks(
    sqs_env: Environment, proxy: Proxy, queue_name: str, is_paused: bool
) -> None:
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other",
    )
    send(*map(str, range(8)))
    send("{}", alias="other")

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        is_refused = operation == "ReceiveMessage" and "-other" in request["QueueUrl"]
        return error(403, "AccessDenied") if is_refused else None

    def answer(received: Received) -> Ack:
        worker.queues[1].is_paused = is_paused
        time.sleep(0.2)
        return ACK

    proxy.spoil = spoil
    runner = Recording(answer)
    times = replace(TIMES, burst_patience=0.2)
    worker = make_worker(runner, "jobs", "other", burst=True, threads=1, times=times)
    assert worker.run() == (0 if is_paused else EXIT_NO_QUEUE)
    assert len(runner.bodies) == 8
    assert not worker.queues[0].in_flight.messages


@pytest.mark.slow
def test_a_tick_that_a_task_interrupts_is_called_again(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    worker = make_worker(Recording())

    def tick() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt  # as PyThreadState_SetAsyncExc raises it
        worker.stop()

    assert worker.run(tick) == 0
    assert len(calls) > 1
    assert "restarting it thread=beanstalk_dispatch-tick error=KeyboardInterrupt" in caplog.text


def test_a_tick_that_fails_is_logged_once_and_called_again(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    worker = make_worker(Recording())

    def tick() -> None:
        calls.append(1)
        if len(calls) == 5:
            worker.stop(7)
            worker.stop(8)
        if len(calls) != 2:
            raise OSError("disk full")

    assert worker.run(tick) == 7
    line = "cannot write the status line, the metrics or the health file, or look for pauses error="
    assert 2 <= caplog.text.count(f"{line}OSError") <= 3


def test_a_process_that_can_open_no_files_ends_before_the_next_task(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send("one", "two")
    monkeypatch.setattr(spoiled, "can_open_files", lambda: False)
    runner = Recording()
    assert make_worker(runner).run() == EXIT_STUCK
    assert runner.bodies == []
    assert sorted(left()) == ["one", "two"]
    assert "stop reason=no-files exit_code=75" in caplog.text


def test_a_process_in_which_tasks_have_left_too_many_threads_ends(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(left_threads, "MAX_LEFT", 1)
    release, threads = threading.Event(), list[threading.Thread]()

    def leave() -> None:
        for _ in range(2):
            threads.append(threading.Thread(target=release.wait, args=(20,)))
            threads[-1].start()

    monkeypatch.setattr(jobs, "record", leave)
    schedule_many("jobs", [Call("record")])
    assert make_worker(run_here).run() == EXIT_STUCK
    release.set()
    for thread in threads:
        thread.join()
    assert "threads left behind id=" in caplog.text
    assert "stop reason=threads threads=2 left_by='record 2' exit_code=75" in caplog.text
