from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest
from django.core.cache import caches
from django.core.signals import request_finished, request_started

from beanstalk_dispatch.consumers.poller import runners
from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.consumers.poller.runners import delivery_of, run_here, task_id_of
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.run import DONE
from tests.conftest import TABLE, Environment
from tests.jobs import calls
from tests.workers import PERIODIC, received


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def body(function: str = "record", *args: Any) -> str:
    return Message(function=function, args=args).encode(queue="q")


@pytest.fixture
def worker(env: Environment) -> Environment:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    return env


in_process = pytest.mark.django_db  # connections are closed as after a request


@in_process
def test_a_task_runs_here(worker: Environment) -> None:
    assert run_here(received(body("record", 1))) == Ack()
    assert calls == [((1,), {})]


@in_process
def test_the_delivery_is_what_the_daemon_would_report(worker: Environment) -> None:
    run_here(received(body("recorder"), count=3))
    delivery = calls[0][3]
    assert (delivery.queue, delivery.message_id, delivery.receive_count) == ("q", "from-sqs", 3)
    assert (delivery.first_received_at, delivery.sent_at) == (1692107873.0, 1692107870.0)


def test_a_delivery_knows_how_many_of_its_receives_started_no_task() -> None:
    message = received(count=3)
    message.unrun_receives = 2
    assert (delivery_of(message).unrun_receives, delivery_of(message).earlier_runs) == (2, 0)


def test_a_delivery_knows_where_its_queue_is(monkeypatch: pytest.MonkeyPatch) -> None:
    message = received()
    assert delivery_of(message).location is None
    monkeypatch.setattr(message.queue, "location", "eu-west-1/123456789012")
    assert delivery_of(message).location == "eu-west-1/123456789012"


def test_a_message_without_attributes_is_read_too() -> None:
    bare = received()
    bare.attributes = {}
    delivery = delivery_of(bare)
    assert (delivery.receive_count, delivery.sent_at) == (1, None)


@in_process
@pytest.mark.parametrize(("count", "bound"), [(1, 10), (3, 40), (1000, 3600)])
def test_a_failure_backs_off(worker: Environment, count: int, bound: float) -> None:
    answers = [run_here(received(body("fail"), count=count)) for _ in range(40)]
    delays = [each.delay for each in answers if isinstance(each, Nack) and each.delay is not None]
    assert len(delays) == 40
    assert 0 <= min(delays) < bound / 2 < max(delays) <= bound


@in_process
def test_a_message_that_can_never_run_is_left_to_the_redrive_policy(worker: Environment) -> None:
    assert run_here(received("nonsense")) == Nack()
    assert run_here(received(body("unlisted"))) == Nack()


@in_process
def test_a_periodic_task_runs_here_if_listed(worker: Environment) -> None:
    message = received("elasticbeanstalk scheduled job", 1, **PERIODIC)
    assert run_here(message) == Nack()
    worker(DISPATCH_PERIODIC_TASKS="record")
    assert run_here(message) == Ack()
    assert calls == [((), {})]


def test_a_task_name_that_would_break_a_log_line_is_left_out() -> None:
    message = received("{}", 1, **PERIODIC | {"beanstalk.sqsd.task_name": "record\nERROR"})
    assert delivery_of(message).task_name is None


@pytest.mark.parametrize(
    ("isolation", "has_connection", "expected"),
    [
        ("thread", False, ["started", "finished"]),
        ("process", False, []),
        ("process", True, ["started", "finished"]),
    ],
)
def test_a_task_is_surrounded_as_a_request_is(
    worker: Environment, monkeypatch: pytest.MonkeyPatch, isolation: str, *,
    has_connection: bool, expected: list[str],
) -> None:  # fmt: skip
    worker(DISPATCH_ISOLATION=isolation)
    monkeypatch.setattr(runners, "are_open", lambda: has_connection)
    monkeypatch.setattr(pipeline, "run_delivery", lambda run: DONE)
    seen: list[str] = []

    def started(**kwargs: Any) -> None:
        seen.append("started")

    def finished(**kwargs: Any) -> None:
        seen.append("finished")

    request_started.connect(started)
    request_finished.connect(finished)
    try:
        run_here(received(body("fail")))
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finished)
    assert seen == expected


@in_process
def test_a_receiver_that_raises_changes_nothing(
    worker: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**kwargs: Any) -> None:
        raise RuntimeError("broken receiver")

    for signal in (request_started, request_finished):
        signal.connect(broken)
    try:
        assert run_here(received(body("record"))) == Ack()
    finally:
        for signal in (request_started, request_finished):
            signal.disconnect(broken)
    assert caplog.text.count("broken receiver") >= 2


@in_process
def test_the_time_limit_of_the_task_is_reported(worker: Environment) -> None:
    limits: list[float] = []
    message = received(Message(function="record", options={"timeout": 1000}).encode(queue="q"))
    run_here(message, limits.append)
    assert limits == [1000]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


@in_process
def test_a_tasks_context_does_not_reach_the_next(
    worker: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def soil(*args: Any) -> None:
        seen.append(variable.get())
        variable.set("soiled")

    monkeypatch.setattr("tests.jobs.record", soil)
    for _ in range(2):
        run_here(received(body("record")))
    assert seen == ["clean", "clean"]


@in_process
def test_a_threads_tasks_share_its_caches(
    worker: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("tests.jobs.record", lambda: seen.append(caches["default"]))

    def run_twice() -> None:
        for _ in range(2):
            run_here(received(body("record")))

    for _ in range(2):  # a test before may have replaced the caches of the main thread
        thread = threading.Thread(target=run_twice)
        thread.start()
        thread.join()
    assert seen[0] is seen[1] is not seen[2]


# --- the id in a log line ---


@pytest.mark.parametrize(
    ("text", "task_id"),
    [(Message(function="record", id="task-1").encode(queue="q"), "task-1"), ("{}", "from-sqs")],
)
def test_the_id_of_a_task_is_in_its_message(env: Environment, text: str, task_id: str) -> None:
    assert task_id_of(received(text)) == task_id
