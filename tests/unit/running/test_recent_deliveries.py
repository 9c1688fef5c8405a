from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running import recent_deliveries
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.recent_deliveries import RECENT, RecentDeliveries, key_of
from beanstalk_dispatch.running.run import Run
from tests import jobs
from tests.conftest import TABLE, Environment
from tests.jobs import calls
from tests.runs import DELAYED_COPIES, deliver, run_of
from tests.services import until


class Poller(DelayedCopies):
    can_hide = True


@pytest.fixture(autouse=True)
def _table(env: Environment) -> None:
    calls.clear()
    env(DISPATCH_TABLE=TABLE)


def run(function: str, *args: Any, count: int = 1, consumer: Any = DELAYED_COPIES) -> Result:
    body = Message(function=function, args=args, id="task-1").encode(queue="q")
    delivery = Delivery(queue="q", message_id="from-sqs", receive_count=count)
    return deliver(body, delivery, consumer)


def test_what_this_process_has_finished_is_not_run_again(caplog: pytest.LogCaptureFixture) -> None:
    assert run("record").outcome is Outcome.DONE
    again = run("record", count=2)
    assert (again.outcome, again.is_acknowledged) == (Outcome.DUPLICATE, True)
    assert again.reason == "this process has finished the message before"
    assert len(calls) == 1
    assert (
        "task delivered again id=task-1 function=record is_running=False seconds=0: it was "
        "answered in time; SQS may deliver a message twice"
    ) in caplog.text


NGINX = (
    "nobody waited for its answer; keep nginx's proxy_read_timeout, 60 s by default, above the "
    "task's time limit"
)
STILL_WAITS = (
    "nginx waits 280 s; keep InactivityTimeout and VisibilityTimeout above the task's time limit"
)


@pytest.mark.parametrize(
    ("seconds", "waited", "timeout", "limit", "explanation"),
    [
        (62, 0, 60, 120, NGINX),
        (57, 5, 60, 120, NGINX),  # nginx counts what the request has waited
        (281, 0, 280, 300, NGINX),
        (62, 0, 280, 120, STILL_WAITS),
        (62, 0, 60, 50, "it runs on after its time limit of 50 s, which could not interrupt it"),
    ],
)
def test_a_second_delivery_is_explained_by_what_nginx_and_the_task_may_take(
    env: Environment, caplog: pytest.LogCaptureFixture, seconds: float, waited: float,
    timeout: float, limit: int, explanation: str,
) -> None:  # fmt: skip
    jobs.release.clear()
    env(DISPATCH_TASK_TIMEOUT=limit)
    body = Message(function="block", args=[20], id="task-1").encode(queue="q")
    first = Delivery(queue="q", message_id="from-sqs", waited=waited, proxy_timeout=400)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(deliver, body, first)
        until(lambda: any(hasattr(each, "time_limit") for each in RECENT._running.values()))
        (run_of_first,) = RECENT._running.values()
        run_of_first.started -= seconds
        deliver(body, replace(first, receive_count=2, proxy_timeout=timeout))
        jobs.release.set()
        answer.result(20)
    assert f"is_running=True seconds={seconds + waited}: {explanation}\n" in caplog.text


def test_a_run_that_hangs_before_its_task_has_the_default_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_before = run_of(Message(function="record", id="task-1"), queue="q", message_id="from-sqs")
    run_before.started -= 200
    body = Message(function="record", id="task-1").encode(queue="q")
    delivery = Delivery(queue="q", message_id="from-sqs")
    key = key_of(replace(delivery, body=body))
    assert key
    assert RECENT.begin(key, run_before) is None
    deliver(body, delivery)
    RECENT.end(key, is_finished=False)
    assert "seconds=200: it runs on after its time limit of 120 s" in caplog.text


def test_what_runs_here_is_not_run_beside_itself(caplog: pytest.LogCaptureFixture) -> None:
    jobs.release.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, "block", 20)
        until(lambda: RECENT._running)
        again = run("block", 20, count=2)
        jobs.release.set()
        assert first.result(20).outcome is Outcome.DONE
    assert (again.outcome, again.is_acknowledged) == (Outcome.RUNNING, False)
    assert again.retry_after == 30
    assert "is_running=True seconds=0" in caplog.text
    assert run("block", 20, count=3).outcome is Outcome.DUPLICATE


def test_what_fails_while_its_redelivery_is_answered_does_not_count_as_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A duplicate would be deleted, and its task would be lost."""
    body = Message(function="record", id="task-1").encode(queue="q")
    delivery = Delivery(queue="q", message_id="from-sqs", body=body)
    key, begin = key_of(delivery), RECENT.begin
    assert key

    def begin_just_before_the_first_ends(key: int, run: Run) -> object:
        found = begin(key, run)
        RECENT.end(key, is_finished=False)
        return found

    begin(key, run_of())
    monkeypatch.setattr(RECENT, "begin", begin_just_before_the_first_ends)
    result = deliver(body, delivery)
    assert (result.outcome, result.is_acknowledged) == (Outcome.RUNNING, False)


def test_a_failure_is_run_again() -> None:
    assert run("fail").outcome is Outcome.FAILED
    assert run("fail", count=2).outcome is Outcome.FAILED


def test_what_was_handed_on_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Poller, "resend", lambda *args: None)
    assert run("flaky", consumer=Poller()).outcome is Outcome.RETRY
    assert run("flaky", consumer=Poller()).outcome is Outcome.DUPLICATE


def test_a_poller_is_told_nothing_of_nginx(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        run("record", consumer=Poller())
    assert "nginx" not in caplog.text


def test_without_an_id_of_sqs_nothing_is_remembered() -> None:
    for _ in range(2):
        body = Message(function="record", id="same").encode(queue="q")
        assert deliver(body, Delivery(queue="q")).outcome is Outcome.DONE


def test_another_queue_message_or_body_is_another_matter() -> None:
    deliveries = [
        Delivery(queue=queue, message_id=message_id, body=body)
        for queue in ("a", "b") for message_id in ("1", "2") for body in (b"x", b"y")
    ]  # fmt: skip
    keys = {key_of(delivery) for delivery in deliveries}
    assert len(keys) == len(deliveries)


def test_only_so_much_is_remembered() -> None:
    recent = RecentDeliveries(size=2)
    for key in (1, 2, 3):
        assert recent.begin(key, run_of()) is None
        recent.end(key, is_finished=True)
    assert recent.begin(2, run_of())
    assert recent.begin(3, run_of())
    assert recent.begin(1, run_of()) is None
    recent.end(1, is_finished=False)
    assert recent.begin(1, run_of()) is None


def test_a_forked_child_remembers_nothing() -> None:
    run("record")
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child
        os._exit(0 if not any(RECENT._finished) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- a request that has waited in the web server's queue ---


@pytest.mark.parametrize(
    ("waited", "timeout", "limit", "outcome"),
    [
        (None, 60, 50, Outcome.DONE),
        (9, 60, 50, Outcome.DONE),
        (11, 60, 50, Outcome.OVERDUE),
        (300, 60, 120, Outcome.DONE),  # it never fits, so waiting is not what makes it late
    ],
)
def test_a_request_that_waited_until_its_limit_does_not_fit_is_not_run(
    waited: float | None, timeout: float, limit: int, outcome: Outcome, env: Environment
) -> None:
    env(DISPATCH_TASK_TIMEOUT=limit)
    body = Message(function="record").encode(queue="q")
    delivery = Delivery(queue="q", message_id="1", waited=waited, proxy_timeout=timeout)
    result = deliver(body, delivery)
    assert (result.outcome, result.is_acknowledged) == (outcome, outcome is Outcome.DONE)
    assert len(calls) == (outcome is Outcome.DONE)


def test_an_overdue_message_gives_up_its_lease_so_that_its_next_delivery_runs(
    env: Environment,
) -> None:
    env(DISPATCH_TASK_TIMEOUT=50, DISPATCH_LEASE_CACHE="default")
    body = Message(function="record", id="overdue").encode(queue="q")
    for waited, outcome in ((11, Outcome.OVERDUE), (9, Outcome.DONE)):
        delivery = Delivery(queue="q", message_id="1", waited=waited, proxy_timeout=60)
        assert deliver(body, delivery).outcome is outcome


def test_the_time_that_a_request_waited_is_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "beanstalk_dispatch")
    body = Message(function="record", id="1").encode(queue="q")
    deliver(body, Delivery(queue="q", waited=1.5))
    assert " waited_ms=1500" in caplog.text


def test_no_key_is_that_of_an_empty_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a message would count as finished before it has run."""
    monkeypatch.setattr(recent_deliveries, "hash", lambda parts: 0, raising=False)
    key = key_of(Delivery(queue="q", message_id="from-sqs"))
    assert key
    assert RecentDeliveries().begin(key, run_of()) is None


def test_how_long_a_finished_message_took_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    recent, moments = RecentDeliveries(), iter([100.0, 103.5])
    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: next(moments))
    run_before = run_of()
    assert recent.begin(7, run_before) is None
    recent.end(7, is_finished=True)
    assert recent.begin(7, run_before) == (None, 3.5)
