from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.client import Call, schedule_many
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.execution import time_limit as timeouts
from beanstalk_dispatch.queue_address import QueueAddress
from beanstalk_dispatch.sqs.clients import SEND_TIMEOUTS, Clients
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.parameters import send_parameters
from beanstalk_dispatch.sqs.queue import Entry, Queue, Received
from beanstalk_dispatch.worker import consumer as polling
from beanstalk_dispatch.worker import in_flight as holdings
from beanstalk_dispatch.worker import monitoring, worker
from beanstalk_dispatch.worker import prefetch as intake
from beanstalk_dispatch.worker.in_flight import Holdings
from beanstalk_dispatch.worker.runners import run_here
from beanstalk_dispatch.worker.worker import EXIT_NO_QUEUE, EXIT_STUCK, Options, Verdict, Worker
from tests import jobs
from tests.conftest import Environment
from tests.jobs import calls
from tests.proxy import Answer, Proxy, error

DELETE = Verdict(delete=True)
QUICK: dict[str, Any] = {"wait": 1, "visibility": 30, "threads": 4, "grace": 5.0}


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()
    jobs.release.clear()


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(handler: Any, *queues: str, **options: Any) -> Iterator[Worker]:
    """A worker in a thread; stopped at the end, and its exit code kept."""
    runner = Worker(queues or ("jobs",), handler, Options(**(QUICK | options)))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(runner.run()))
    thread.start()
    try:
        yield runner
    finally:
        runner.stop()
        thread.join(30)
    assert len(codes) == 1


def drained(handler: Any, *queues: str, **options: Any) -> int:
    return Worker(
        queues or ("jobs",), handler, Options(**(QUICK | options | {"burst": True}))
    ).run()


def send(*bodies: str, alias: str = "jobs", **options: Any) -> None:
    open_queue(alias).send_batch([Entry(body=body, send_parameters=options) for body in bodies])


def left(alias: str = "jobs") -> list[str]:
    found = open_queue(alias).receive(count=10, wait=0, visibility=30)
    return sorted(each.body for each in found)


class Recording:
    """A handler that keeps the bodies, and does what ``verdict`` says of each."""

    def __init__(self, verdict: Callable[[Received], Verdict] = lambda received: DELETE) -> None:
        self.bodies: list[str] = []
        self.verdict = verdict

    def __call__(self, received: Received) -> Verdict:
        self.bodies.append(received.body)
        return self.verdict(received)


def waiting_for(gate: threading.Event) -> Callable[[Received], Verdict]:
    def verdict(received: Received) -> Verdict:
        gate.wait(20)
        return DELETE

    return verdict


def test_everything_is_run_once_and_deleted(worker_env: Environment) -> None:
    schedule_many("jobs", [Call("record", [i]) for i in range(45)])
    assert drained(run_here) == 0
    assert sorted(args[0] for args, _ in calls) == list(range(45))
    assert open_queue("jobs").depth() == 0


def test_bulk_needs_few_requests(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    send(*map(str, range(200)))
    proxy.counts.clear()
    handler = Recording()
    drained(handler)
    assert len(handler.bodies) == 200
    assert proxy.counts["DeleteMessageBatch"] <= 24
    assert proxy.counts["ReceiveMessage"] <= 34


def test_idle_there_is_one_long_poll_at_a_time(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    proxy.counts.clear()
    with running(Recording(), threads=20, wait=2):
        time.sleep(3)
    assert proxy.counts.keys() == {"ReceiveMessage"}
    assert proxy.counts["ReceiveMessage"] <= 2


def test_several_queues_are_served(sqs_env: Environment, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=f"a={queue_name}-a b={queue_name}-b c={queue_name}-c")
    for alias in ("a", "b", "c"):
        send(*[f"{alias}{i}" for i in range(5)], alias=alias)
    handler = Recording()
    drained(handler, "a", "b", "c", threads=1)
    assert len(set(handler.bodies)) == len(handler.bodies) == 15


def test_a_message_sent_while_idle_is_run_at_once(sqs_env: Environment) -> None:
    handler = Recording()
    with running(handler, wait=20) as runner:
        time.sleep(0.5)
        send("now")
        until(lambda: handler.bodies, 5)
        send("and now")
        until(lambda: len(handler.bodies) == 2, 5)
        runner.stop()
        send("to end the long poll")
    assert left() == ["to end the long poll"]


def test_no_more_is_received_than_can_start_soon(sqs_env: Environment) -> None:
    send(*map(str, range(20)))
    gate = threading.Event()
    handler = Recording(waiting_for(gate))
    with running(handler, threads=3) as runner:
        until(lambda: len(handler.bodies) == 3)
        time.sleep(0.5)
        assert runner.counters.running == 3
        assert len(runner.sources[0].holdings.held) <= 4
        gate.set()
        until(lambda: len(handler.bodies) == 20)


def test_heartbeats_keep_what_is_held(sqs_env: Environment) -> None:
    """Twelve tasks of 1.5 s on four threads, with a visibility timeout of 2 s."""
    send(*map(str, range(12)))

    def slow(received: Received) -> Verdict:
        time.sleep(1.5)
        return DELETE

    handler = Recording(slow)
    drained(handler, visibility=2)
    assert Counter(handler.bodies) == Counter(map(str, range(12)))


def test_a_failure_is_hidden_for_its_delay(sqs_env: Environment) -> None:
    send("fails")
    verdicts = iter([Verdict(delete=False, delay=1), DELETE])
    times: list[float] = []

    def verdict(received: Received) -> Verdict:
        times.append(time.monotonic())
        return next(verdicts)

    handler = Recording(verdict)
    with running(handler) as runner:
        until(lambda: runner.counters.done == 1)
    assert runner.counters.failed == 1
    assert 0.8 < times[1] - times[0] < 5


def test_what_has_no_delay_comes_back_when_visible_again(sqs_env: Environment) -> None:
    send("left")
    verdicts = iter([Verdict(delete=False), DELETE])
    handler = Recording(lambda received: next(verdicts))
    with running(handler, visibility=2) as runner:
        until(lambda: runner.counters.done == 1)
    assert handler.bodies == ["left", "left"]


def test_a_handler_that_raises_leaves_the_message(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    send("boom")

    def boom(received: Received) -> Verdict:
        raise RuntimeError("broken handler")

    with running(Recording(boom)) as runner:
        until(lambda: runner.counters.failed == 1)
    assert "broken handler" in caplog.text


def test_a_stop_gives_back_what_has_not_started(sqs_env: Environment) -> None:
    send(*map(str, range(8)))
    gate = threading.Event()

    def wait(received: Received) -> Verdict:
        gate.wait(20)
        return DELETE

    handler = Recording(wait)
    with running(handler, threads=2) as runner:
        runner.intake._average, runner.intake._ended_at = 0.1, math.inf  # more is received
        until(lambda: len(handler.bodies) == 2 and runner.counters.waiting)
        runner.stop()
        time.sleep(0.3)
        gate.set()
    assert len(handler.bodies) == 2
    assert sorted(left() + handler.bodies) == list(map(str, range(8)))


def test_after_the_grace_what_still_runs_is_given_back(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    send("long")
    gate = threading.Event()
    handler = Recording(waiting_for(gate))
    with running(handler, grace=0.3, wait=0):
        until(lambda: handler.bodies)
    assert left() == ["long"]
    assert "stop unfinished id=" in caplog.text
    gate.set()


def test_what_a_long_poll_brings_after_the_stop_is_given_back(sqs_env: Environment) -> None:
    handler = Recording()
    with running(handler, wait=10) as runner:
        until(lambda: runner.sources[0].polls)
        time.sleep(0.3)
        runner.stop()
        send("late")
    assert handler.bodies == []
    assert left() == ["late"]


def test_max_tasks_stops(sqs_env: Environment) -> None:
    send(*map(str, range(30)))
    handler = Recording()
    assert Worker(["jobs"], handler, Options(**QUICK, max_tasks=5)).run() == 0
    assert len(handler.bodies) == 5
    found = left() + left() + left()
    assert sorted(found + handler.bodies) == sorted(map(str, range(30)))


def test_a_stuck_task_ends_the_process(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timeouts, "GRACE", 0.2)
    worker_env(DISPATCH_TASK_TIMEOUT="0.2s")
    schedule_many("jobs", [Call("block", [20])])
    assert Worker(["jobs"], run_here, Options(**QUICK)).run() == EXIT_STUCK
    assert "stop reason=stuck tasks=1 exit_code=75" in caplog.text
    jobs.release.set()
    until(lambda: not timeouts.stuck())


def test_a_stuck_tasks_message_is_not_kept(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its visibility is not extended, so that another worker gets it."""
    send("stuck", "fine")
    gate = threading.Event()
    handler = Recording(waiting_for(gate))
    with running(handler, visibility=30) as runner:
        until(lambda: len(handler.bodies) == 2)
        stuck = next(t for t, (_, m) in runner._running.items() if m.body == "stuck")
        monkeypatch.setattr(Worker, "stop", lambda *args: None)

        class Limit:
            thread_id = stuck

        before = {m.body: m.expires for m in runner.sources[0].holdings.held.values()}
        with monkeypatch.context() as patch:
            patch.setattr(timeouts, "stuck", lambda: [Limit])
            later = time.monotonic() + 25
            until(lambda: runner.overdue()[0].due == 0)
            patch.setattr("time.monotonic", lambda: later)
            runner.sources[0].holdings.extend()
        after = {m.body: m.expires for m in runner.sources[0].holdings.held.values()}
        gate.set()
        monkeypatch.undo()
    assert after["stuck"] == before["stuck"]
    assert after["fine"] > before["fine"]


# --- FIFO ---


@pytest.fixture
def fifo(sqs_env: Environment, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}.fifo")


def send_group(group: str, *bodies: str) -> None:
    queue = open_queue("jobs")
    for body in bodies:
        queue.send(body, send_parameters(queue.address, group_id=group, message_id=body))


@pytest.mark.usefixtures("fifo")
def test_a_fifo_group_keeps_its_order() -> None:
    send_group("a", "a1", "a2", "a3")
    send_group("b", "b1", "b2")
    handler = Recording()
    drained(handler)
    assert [body for body in handler.bodies if body[0] == "a"] == ["a1", "a2", "a3"]
    assert [body for body in handler.bodies if body[0] == "b"] == ["b1", "b2"]


@pytest.mark.usefixtures("fifo")
def test_a_failure_stops_its_fifo_group() -> None:
    send_group("a", "a1", "a2", "a3")
    send_group("b", "b1")
    failures = iter([Verdict(delete=False, delay=30)])

    def verdict(received: Received) -> Verdict:
        return next(failures, DELETE) if received.body == "a2" else DELETE

    handler = Recording(verdict)
    with running(handler) as runner:
        until(lambda: runner.counters.done == 2 and runner.counters.failed == 1)
        time.sleep(0.5)
    assert sorted(handler.bodies) == ["a1", "a2", "b1"]


@pytest.mark.usefixtures("fifo")
def test_a_stop_gives_the_rest_of_a_group_back() -> None:
    send_group("a", "a1", "a2")
    runner: list[Worker] = []

    def stop(received: Received) -> Verdict:
        runner[0].stop()
        return DELETE

    handler = Recording(stop)
    runner.append(Worker(["jobs"], handler, Options(**QUICK)))
    assert runner[0].run() == 0
    assert handler.bodies == ["a1"]
    assert left() == ["a2"]


@pytest.mark.usefixtures("fifo")
def test_what_is_done_of_a_group_is_deleted_before_the_rest_is() -> None:
    send_group("a", "a1", "a2")
    gate = threading.Event()
    handler = Recording(lambda received: DELETE if received.body == "a1" else waits(received))
    waits = waiting_for(gate)
    with running(handler) as runner:
        until(lambda: handler.bodies == ["a1", "a2"])
        until(lambda: [each.body for each in runner.sources[0].holdings.held.values()] == ["a2"])
        gate.set()


# --- trouble ---


def failing(operation: str, *answers: Answer) -> Any:
    """Spoil the first requests of ``operation``."""
    left = iter(answers)
    return lambda asked, request: next(left, None) if asked == operation else None


def test_a_server_in_trouble_is_waited_for(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    send("survivor")
    proxy.spoil = failing("ReceiveMessage", *[error(400, "AccessDenied")] * 2)
    handler = Recording()
    with running(handler):
        until(lambda: handler.bodies)
    assert caplog.text.count("poll queue=jobs failures=") == 1
    assert "poll queue=jobs recovered failures=2" in caplog.text


def test_a_queue_that_is_not_there_yet_is_waited_for(
    sqs_env: Environment, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=None)
    handler = Recording()
    with running(handler):
        until(lambda: "SQS has no queue" in caplog.text)
        client = Clients(get_config()).get(QueueAddress(name=queue_name), SEND_TIMEOUTS)
        client.create_queue(QueueName=queue_name)
        send("early bird")
        until(lambda: handler.bodies)


def test_while_nothing_can_be_deleted_no_more_is_received(
    sqs_env: Environment, proxy: Proxy
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send(*map(str, range(30)))
    proxy.spoil = failing("DeleteMessageBatch", *[error(400, "AccessDenied")] * 10**6)
    handler = Recording()
    with running(handler, threads=1) as runner:
        until(lambda: runner.sources[0].holdings.deleting.failures >= 2)
        time.sleep(0.3)  # open receives have come back
        received = proxy.counts["ReceiveMessage"]
        time.sleep(0.5)
        assert proxy.counts["ReceiveMessage"] - received <= 1
        proxy.spoil = failing("")
        until(lambda: runner.counters.done == 30)
    assert open_queue("jobs").depth() == 0


def test_credentials_that_expired_are_looked_up_anew(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("one")
    queue = open_queue("jobs")
    proxy.spoil = failing("DeleteMessageBatch", error(403, "ExpiredTokenException"))
    with running(Recording()) as runner:
        until(lambda: runner.counters.done and not runner.sources[0].holdings.held)
    assert open_queue("jobs") is not queue


def test_a_stop_does_not_wait_for_a_poll_that_hangs(
    sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LATE", 0.1)
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    gate = threading.Event()

    def hang(operation: str, request: dict[str, Any]) -> None:
        gate.wait(20)

    proxy.spoil = hang
    with running(Recording(), wait=1) as runner:
        until(lambda: proxy.counts["ReceiveMessage"])
        asked = time.monotonic()
    assert time.monotonic() - asked < 5
    assert runner.sources[0].polls == 1
    gate.set()


def test_what_has_to_be_hidden_too_late_is_let_go(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("late")
    late = held_too_long()
    queue = Holdings("jobs", 30)
    queue.take([late])
    queue.give_back([late], 5)
    assert queue.hide() is False
    assert (queue.held, queue.owed) == ({}, 0)
    assert proxy.counts["ChangeMessageVisibilityBatch"] == 0


def test_an_error_nobody_thought_of_does_not_end_a_thread(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send("survivor")
    real, errors = Queue.receive, iter([RuntimeError("surprise")])

    def receive(self: Queue, **options: Any) -> list[Received]:
        for surprise in errors:
            raise surprise
        return real(self, **options)

    monkeypatch.setattr(Queue, "receive", receive)
    handler = Recording()
    with running(handler):
        until(lambda: handler.bodies)
    assert "surprise" in caplog.text


def test_what_could_not_be_deleted_is_deleted_later(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send(*map(str, range(12)))
    proxy.spoil = failing("DeleteMessageBatch", *[error(400, "AccessDenied")] * 2)
    handler = Recording()
    drained(handler)
    assert sorted(handler.bodies, key=int) == list(map(str, range(12)))
    assert caplog.text.count("delete queue=jobs failures=1") == 1
    assert open_queue("jobs").depth() == 0


def refuse(operation: str) -> Any:
    def spoil(asked: str, request: dict[str, Any]) -> Answer | None:
        if asked != operation:
            return None
        ids = [entry["Id"] for entry in request["Entries"]]
        failed = [{"Id": i, "Code": "ReceiptHandleIsInvalid", "SenderFault": True} for i in ids]
        return 200, {"Failed": failed}

    return spoil


@pytest.mark.parametrize(
    ("operation", "verdict", "logged"),
    [
        ("DeleteMessageBatch", DELETE, "delete queue=jobs refused=1"),
        ("ChangeMessageVisibilityBatch", Verdict(delete=False, delay=1), "hide queue=jobs refused"),
    ],
)
def test_refused_entries_are_logged(
    sqs_env: Environment,
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
    operation: str,
    verdict: Verdict,
    logged: str,
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("one")
    proxy.spoil = refuse(operation)
    with running(Recording(lambda received: verdict)):
        until(lambda: logged in caplog.text)


def test_what_could_not_be_hidden_comes_back_by_itself(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("one")
    proxy.spoil = failing("ChangeMessageVisibilityBatch", error(400, "AccessDenied"))
    verdicts = iter([Verdict(delete=False, delay=0), DELETE])
    with running(Recording(lambda received: next(verdicts)), visibility=2, heartbeat=False) as it:
        until(lambda: it.counters.done)
    assert "hide queue=jobs failures=1" in caplog.text


@pytest.mark.parametrize("spoil", [refuse("ChangeMessageVisibilityBatch"),
                                   lambda operation, request: error(400, "AccessDenied")
                                   if operation.startswith("Change") else None])  # fmt: skip
def test_a_heartbeat_that_fails_is_logged(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("one")
    proxy.spoil = spoil
    gate = threading.Event()
    with running(Recording(waiting_for(gate)), visibility=3):
        until(lambda: "heartbeat queue=" in caplog.text)
        gate.set()


def held_too_long() -> Received:
    (received,) = open_queue("jobs").receive(count=1, wait=1, visibility=30)
    received.expires = time.monotonic() - 1
    return received


def test_a_message_that_waited_too_long_is_not_run(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    send("late")
    handler = Recording()
    runner = Worker(["jobs"], handler, Options(**QUICK))
    late = held_too_long()
    source = runner.sources[0]
    runner.intake.put(source, runner.intake._poll(source), [late])
    assert runner._run_next()
    source.holdings.hide()
    assert handler.bodies == []
    assert source.holdings.held == {}
    assert "skipped id=" in caplog.text


def test_a_message_that_ran_too_long_is_not_deleted(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("late")
    queue = Holdings("jobs", 30)
    queue.settle(held_too_long(), DELETE)
    assert queue.delete() is False
    assert proxy.counts["DeleteMessageBatch"] == 0
    assert "not deleted queue=jobs count=1" in caplog.text


def test_a_message_received_again_while_it_is_held_is_not_run_twice(sqs_env: Environment) -> None:
    send("one")
    gate = threading.Event()
    handler = Recording(waiting_for(gate))
    with running(handler) as runner:
        until(lambda: handler.bodies)
        (held,) = runner.sources[0].holdings.held.values()
        open_queue("jobs").change_visibility_batch([replace(held)], [0])
        held.expires = 0
        until(lambda: held.is_ours)  # the second receive renewed it
        gate.set()
        until(lambda: runner.counters.done == 1)
    assert handler.bodies == ["one"]
    assert left() == []


def test_depths_are_of_the_queues_that_tell(sqs_env: Environment) -> None:
    runner = Worker(["jobs", "other"], Recording(), Options(**QUICK))
    send("one", "two")
    assert runner.depths() == [("jobs", 2)]


# --- no thread is lost, and no message is kept for ever ---


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_no_exception_ends_a_thread(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    send("boom", "boom", "boom", "fine")

    def raises(received: Received) -> Verdict:
        if received.body == "boom":
            raise error
        return DELETE

    with running(Recording(raises), threads=1) as runner:
        until(lambda: (runner.counters.failed, runner.counters.done) == (3, 1))
        until(lambda: not runner.sources[0].holdings.held)
        assert runner.counters.running == 0
    assert caplog.text.count("handler failed id=") == 3


def test_a_thread_goes_on_after_an_error_of_our_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(polling, "_PAUSE", 0)
    results = iter([MemoryError(), True, KeyboardInterrupt(), False])

    def step() -> bool:
        result = next(results)
        if isinstance(result, BaseException):
            raise result
        return bool(result)

    polling.unending(step)
    assert caplog.text.count("thread failed; it goes on") == 2
    assert list(results) == []


def test_a_task_that_outlives_every_limit_ends_the_process(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What runs outside of the time limit: a process() override, a signal receiver."""
    monkeypatch.setattr(holdings, "_MARGIN", 0.3)
    send("endless")
    gate = threading.Event()
    runner = Worker(["jobs"], Recording(waiting_for(gate)), Options(**QUICK))
    seen: set[str | None] = set()
    assert runner.run(lambda: seen.add(monitoring.problem(runner))) == EXIT_STUCK
    assert "1 stuck" in seen
    assert left() == ["endless"]
    assert "stop reason=stuck tasks=1" in caplog.text
    gate.set()


def test_a_posted_task_has_the_time_its_web_server_gives_it(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "_MARGIN", 0.0)
    send("posted")
    gate = threading.Event()
    with running(Recording(waiting_for(gate)), heartbeat=False) as runner:
        until(lambda: runner.counters.running)
        time.sleep(0.3)
        assert not runner.is_stopping()
        gate.set()
        until(lambda: runner.counters.done)


def test_what_was_posted_and_still_runs_is_not_given_back(
    sqs_env: Environment, proxy: Proxy
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("posted")
    gate = threading.Event()
    with running(Recording(waiting_for(gate)), heartbeat=False, grace=0.1, wait=0) as runner:
        until(lambda: runner.counters.running)
    assert proxy.counts["ChangeMessageVisibilityBatch"] == 0
    gate.set()


def test_a_stop_does_not_wait_for_a_log_that_a_stuck_task_holds(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_LOG_WITHIN", 0.1)
    send("waits")
    handler = logging.StreamHandler()
    log = logging.getLogger("beanstalk_dispatch")
    runner = Worker(["jobs"], Recording(), Options(**QUICK))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(runner.run()))
    thread.start()
    until(lambda: runner.counters.done)
    log.addHandler(handler)
    handler.acquire()
    try:
        runner.stop(EXIT_STUCK)
        thread.join(10)
        assert codes == [EXIT_STUCK]
    finally:
        handler.release()
        log.removeHandler(handler)


# --- nothing is hoarded ---


def test_what_cannot_start_soon_is_given_back(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(*map(str, range(10)))
    gate = threading.Event()
    handler = Recording(waiting_for(gate))
    with running(handler, threads=1) as runner:
        runner.intake._average, runner.intake._ended_at = 0.01, math.inf
        until(lambda: runner.counters.waiting)
        runner.intake._ended_at = 0
        until(lambda: runner.sources[0].polls == 0)
        monkeypatch.setattr(intake, "_START_WITHIN", 0)
        until(lambda: not runner.counters.waiting)
        until(lambda: open_queue("jobs").depth() == 9)
        gate.set()


def test_quick_tasks_before_do_not_keep_slow_ones_waiting(sqs_env: Environment) -> None:
    """One thread is woken for quick tasks; that these are slow shows only when they run."""
    send(*map(str, range(4)))
    gate = threading.Event()
    with running(Recording(waiting_for(gate))) as runner:
        runner.intake._average = 0.00001
        until(lambda: runner.counters.running == 4, 5)
        gate.set()


def test_what_waits_is_given_back_in_batches(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send(*map(str, range(40)))
    gate = threading.Event()
    with running(Recording(waiting_for(gate)), threads=1) as runner:
        runner.intake._average, runner.intake._ended_at = 0.01, math.inf
        until(lambda: runner.counters.waiting >= 30)
        gate.set()
        runner.stop()
    given_back = 40 - runner.counters.done
    assert open_queue("jobs").depth() == given_back >= 20
    assert proxy.counts["ChangeMessageVisibilityBatch"] <= given_back / 10 + 2


@pytest.mark.usefixtures("fifo")
def test_what_did_not_run_of_a_group_is_no_task() -> None:
    send_group("a", "a1", "a2", "a3", "a4", "a5")
    verdicts = iter([Verdict(delete=False, delay=0)])
    handler = Recording(lambda received: next(verdicts, DELETE))
    assert Worker(["jobs"], handler, Options(**QUICK, max_tasks=3)).run() == 0
    assert len(handler.bodies) == 3


# --- one queue in trouble ---


def test_a_queue_that_hangs_keeps_no_other_from_its_work(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    """All requests of one queue hang. The other runs, deletes and keeps what it holds."""
    sqs_env(
        DISPATCH_QUEUES=f"bad={queue_name}-bad good={queue_name}-good",
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
    )
    send("a", "b", alias="bad")
    send("slow", *map(str, range(20)), alias="good")
    hangs = threading.Event()

    def hang(operation: str, request: dict[str, Any]) -> None:
        if request["QueueUrl"].endswith("bad") and operation != "ReceiveMessage":
            hangs.wait(20)

    proxy.spoil = hang

    def slow(received: Received) -> Verdict:
        time.sleep(3 if received.body == "slow" else 0)
        return DELETE

    handler = Recording(slow)
    with running(handler, "bad", "good", threads=2, visibility=2) as runner:
        until(lambda: runner.counters.done == 23, 10)
        until(lambda: open_queue("good").depth() == 0 and not runner.sources[1].holdings.held)
        hangs.set()
    assert Counter(handler.bodies)["slow"] == 1


def test_a_stop_is_bounded_when_sqs_hangs(
    sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(worker, "_LATE", 0.1)
    monkeypatch.setattr(worker, "_SETTLE", 0.1)
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("one")
    hangs = threading.Event()

    def hang(operation: str, request: dict[str, Any]) -> None:
        hangs.wait(8)

    def then_hang(received: Received) -> Verdict:
        proxy.spoil = hang
        return DELETE

    began = 0.0
    with running(Recording(then_hang), wait=1, grace=1) as runner:
        until(lambda: runner.counters.done)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert "stop unsettled queue=jobs count=1" in caplog.text
    hangs.set()


def test_a_heartbeat_on_its_way_does_not_shorten_a_retrys_delay(
    sqs_env: Environment, proxy: Proxy
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    send("fails")
    asked: list[int] = []
    gate = threading.Event()

    def spoil(operation: str, request: dict[str, Any]) -> None:
        if operation == "ChangeMessageVisibilityBatch":
            gate.set()
            time.sleep(0.3)
            asked.append(request["Entries"][0]["VisibilityTimeout"])

    proxy.spoil = spoil

    def fails(received: Received) -> Verdict:
        gate.wait(20)  # until a heartbeat is on its way
        return Verdict(delete=False, delay=100)

    with running(Recording(fails), visibility=2) as runner:
        until(lambda: 100 in asked)
        time.sleep(0.5)
        assert not runner.sources[0].holdings.held
    assert asked == [2, 100]


# --- what is shown, and what cannot be ---


def test_a_tick_that_fails_ends_nothing(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    runner = Worker(["jobs"], Recording(), Options(**QUICK))

    def tick() -> None:
        calls.append(1)
        if len(calls) == 5:
            runner.stop(7)
            runner.stop(8)
        if len(calls) != 2:
            raise OSError("disk full")

    assert runner.run(tick) == 7
    assert 2 <= caplog.text.count("progress or health could not be shown") <= 3


def test_a_queue_named_twice_is_polled_once() -> None:
    assert len(Worker(["jobs", "jobs"], Recording(), Options()).sources) == 1


def test_a_burst_gives_up_on_a_queue_that_is_not_there(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=None)
    assert drained(Recording()) == EXIT_NO_QUEUE
    assert "stop reason=no-queue queues='jobs' exit_code=69" in caplog.text
