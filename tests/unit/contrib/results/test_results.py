"""Results in a cache and in the database, of every task, and what a store that is away costs."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.dispatch import Signal
from django.test import override_settings
from django.utils import timezone

from beanstalk_dispatch.client import (
    Call,
    aschedule_function,
    cancel,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.calling_process import CallingProcess
from beanstalk_dispatch.contrib.results import Status, aget_result, get_result, recording
from beanstalk_dispatch.contrib.results.checks import check
from beanstalk_dispatch.contrib.results.management.commands import beanstalk_results
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.contrib.results.pruning import prune_results
from beanstalk_dispatch.contrib.results.record import TaskRecord
from beanstalk_dispatch.contrib.results.recording import MAX_UNKNOWN_WORKERS, Recording
from beanstalk_dispatch.contrib.results.stores import CacheStore, DatabaseStore, store_of
from beanstalk_dispatch.exceptions import (
    ConfigurationError,
    SendError,
    TaskTimeout,
    UnknownFunction,
    UnknownResult,
)
from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running import waiting
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.signals import delivery_finished, task_started
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.testing import capture_tasks
from tests import jobs
from tests.conftest import Environment
from tests.consumers import run_all
from tests.dead_letters import KEY
from tests.jobs import calls
from tests.runs import deliver, run_of

W019 = "beanstalk_dispatch.W019"


@pytest.fixture(params=["default", "db", "lease"])
def store(
    request: pytest.FixtureRequest, worker_env: Environment, transactional_db: None
) -> Environment:
    """An environment whose results are in a cache, in the database, or in the lease's cache."""
    caches["default"].clear()
    calls.clear()
    kept_in = "default" if request.param == "lease" else request.param
    lease = "default" if request.param == "lease" else None
    worker_env(DISPATCH_RESULTS=kept_in, DISPATCH_LEASE_CACHE=lease)
    return worker_env


IN_CALLER = (
    "record=tests.jobs.record fail=tests.jobs.fail needs=tests.jobs.CannotBeMade "
    "flaky=tests.jobs.FailsOften interrupt=tests.jobs.interrupt "
    "interrupted_hook=tests.jobs.InterruptedHook"
)


def delivery(**members: Any) -> Delivery:
    return Delivery(queue=open_queue("jobs").name, **members)


def message_of(function: str, task_id: str, /, **members: Any) -> str:
    """The body of another copy of a task's message."""
    message = Message(**{"function": function, "id": task_id, **members})
    return message.encode(queue=delivery().queue, keys=get_config().signing_keys)


@contextmanager
def capture_ids(signal: Signal = task_started) -> Iterator[list[str]]:
    """The ids of the tasks of which the signal is sent meanwhile, which start by default."""
    found: list[str] = []

    def receive(delivery: RunView, **_: Any) -> None:
        assert delivery.message
        found.append(delivery.message.id)

    signal.connect(receive)
    yield found
    signal.disconnect(receive)


def lose_leases() -> None:
    """Evict the entries of the cache that are not results."""
    cache = caches["default"]
    for key in [*vars(cache)["_cache"]]:
        if ".result." not in key:
            cache.delete(key.removeprefix(":1:"))


def test_a_task_is_ready_then_done(store: Environment) -> None:
    task_id = schedule_function("jobs", "nap", 0)
    ready = get_result(task_id)
    assert (ready.function, ready.status, ready.attempts) == ("nap", Status.READY, 0)
    assert ready.enqueued_at is not None
    assert (ready.args, ready.return_value, ready.is_finished) == (None, None, False)
    assert run_all() == [Outcome.DONE]
    done = get_result(task_id)
    assert (done.status, done.attempts, done.is_finished) == (Status.SUCCESSFUL, 1, True)
    assert done.enqueued_at is not None
    assert done.started_at is not None
    assert done.finished_at is not None
    assert ready.enqueued_at == done.enqueued_at < done.started_at < done.finished_at
    assert len(done.worker_ids[0]) < 64


def test_what_a_function_returns_is_kept_if_it_is_json(store: Environment) -> None:
    store(DISPATCH_TABLE="len=builtins.len set=tests.jobs.to_set zero=tests.jobs.zero")
    ids = [schedule_function("jobs", name, [1, 2]) for name in ("len", "set", "zero")]
    assert run_all() == [Outcome.DONE] * 3
    assert [get_result(each).return_value for each in ids] == [2, None, "a\0b\ud800"]


def test_a_return_value_that_is_too_large_is_not_kept(
    store: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    store(DISPATCH_TABLE="text=tests.jobs.text_of_length")
    just, over = (schedule_function("jobs", "text", length) for length in (499_998, 499_999))
    assert run_all() == [Outcome.DONE] * 2
    assert len(str(get_result(just).return_value)) == 499_998
    result = get_result(over)
    assert (result.status, result.return_value) == (Status.SUCCESSFUL, None)
    line = f"return value not kept id={over} function=text characters=500001"
    assert [each for each in caplog.messages if "not kept" in each] == [line]


def test_a_failure_is_kept_with_its_traceback(store: Environment) -> None:
    store(DISPATCH_ON_FAILURE="acknowledge")
    task_id = schedule_function("jobs", "fail", "the \0 reason")
    assert run_all() == [Outcome.FAILED]
    result = get_result(task_id)
    assert result.status is Status.FAILED
    assert result.errors[0].exception_class_path == "builtins.ValueError"
    assert "ValueError: the \0 reason" in result.errors[0].traceback


def test_a_retry_is_ready_before_it_is_sent(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = schedule_function("jobs", "flaky")
    resend = DelayedCopies.resend
    seen: list[Status] = []

    def look_and_resend(*args: Any) -> None:
        seen.append(get_result(task_id).status)
        resend(*args)

    monkeypatch.setattr(DelayedCopies, "resend", look_and_resend)
    assert run_all(deliveries=1) == [Outcome.RETRY]
    assert seen == [Status.READY]


def test_a_message_that_is_redriven_keeps_its_errors_and_runs(store: Environment) -> None:
    """It is new to its queue, so its first receive is not the first of its task."""
    store(DISPATCH_ON_FAILURE="redeliver")
    task_id = schedule_function("jobs", "fail")
    seen: list[TaskRecord] = []

    def look(**_: Any) -> None:
        seen.append(get_result(task_id))

    task_started.connect(look)
    for _ in range(2):
        assert deliver(message_of("fail", task_id), delivery()).outcome is Outcome.FAILED
    task_started.disconnect(look)
    assert [(each.status, each.attempts, len(each.errors)) for each in seen] == [
        (Status.RUNNING, 1, 0), (Status.RUNNING, 2, 1),
    ]  # fmt: skip
    result = get_result(task_id)
    assert (result.status, result.attempts, len(result.errors)) == (Status.READY, 2, 2)


def test_a_task_that_fails_after_its_success_has_failed(store: Environment) -> None:
    store(DISPATCH_ON_FAILURE="acknowledge", DISPATCH_TABLE="own=tests.jobs.OwnProcess")
    task_id = schedule_function("jobs", "own", "raise")
    assert run_all() == [Outcome.FAILED]
    assert get_result(task_id).status is Status.FAILED


def test_a_failure_that_sqs_delivers_again_is_ready(store: Environment) -> None:
    task_id = schedule_function("jobs", "fail")
    assert run_all(deliveries=2) == [Outcome.FAILED] * 2
    result = get_result(task_id)
    assert (result.status, result.attempts, len(result.errors)) == (Status.READY, 2, 2)
    assert result.finished_at is None


def test_spent_retries_of_a_function_run_again_if_sqs_delivers_them(store: Environment) -> None:
    store(DISPATCH_TABLE="flaky=tests.jobs.FailsTwice")
    task_id = schedule_function("jobs", "flaky")
    assert run_all(deliveries=1) == [Outcome.FAILED]
    assert get_result(task_id).status is Status.FAILED
    assert run_all() == [Outcome.FAILED, Outcome.DONE]
    assert (get_result(task_id).status, get_result(task_id).attempts) == (Status.SUCCESSFUL, 3)


def test_a_cancelled_task_has_failed_with_that_error(store: Environment) -> None:
    store(DISPATCH_LEASE_CACHE="default")
    task_id = schedule_function("jobs", "record")
    cancel(task_id)
    assert run_all() == [Outcome.CANCELLED]
    result = get_result(task_id)
    assert (result.status, result.attempts, result.started_at) == (Status.FAILED, 0, None)
    assert result.errors[0].exception_class_path == "beanstalk_dispatch.exceptions.TaskCancelled"
    assert result.errors[0].traceback.endswith("TaskCancelled: it was cancelled before it ran\n")
    assert result.finished_at is not None


def test_a_cancelled_retry_keeps_its_attempts(store: Environment) -> None:
    store(DISPATCH_LEASE_CACHE="default")
    task_id = schedule_function("jobs", "retry", 0)
    assert run_all(deliveries=1) == [Outcome.RETRY]
    cancel(task_id)
    assert run_all() == [Outcome.CANCELLED]
    result = get_result(task_id)
    assert (result.status, result.attempts, len(result.errors)) == (Status.FAILED, 1, 1)


def test_a_task_that_stops_when_it_is_cancelled_has_failed(store: Environment) -> None:
    store(DISPATCH_TABLE="stop=tests.jobs.stop")
    task_id = schedule_function("jobs", "stop")
    assert run_all() == [Outcome.CANCELLED]
    result = get_result(task_id)
    assert (result.status, result.attempts, len(result.errors)) == (Status.FAILED, 1, 1)


def test_a_function_that_the_worker_does_not_know_has_failed(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = schedule_function("jobs", "record")
    store(DISPATCH_TABLE="other=tests.jobs.record")
    assert run_all(deliveries=1) == [Outcome.UNAVAILABLE]
    assert get_result(task_id).status is Status.READY
    monkeypatch.setattr(waiting, "UNKNOWN_SECONDS", 0)
    assert run_all(deliveries=1) == [Outcome.UNKNOWN_FUNCTION]
    result = get_result(task_id)
    assert (result.status, result.attempts) == (Status.FAILED, 0)
    assert result.errors[0].exception_class_path.endswith("UnknownFunction")


def test_spent_retries_of_a_task_that_asks_for_them_have_its_error(store: Environment) -> None:
    store(DISPATCH_TABLE="again=tests.jobs.AsksAgain")
    task_id = schedule_function("jobs", "again")
    assert run_all(deliveries=2) == [Outcome.RETRY, Outcome.FAILED]
    result = get_result(task_id)
    assert (result.status, result.attempts) == (Status.FAILED, 2)
    (error,) = result.errors
    assert error.exception_class_path == "beanstalk_dispatch.safe_task.Retry"
    assert "KeyError: 'the cause'" in error.traceback


@pytest.mark.parametrize("sent_at", [None, 1.0])
def test_a_message_that_is_too_old_has_failed(store: Environment, sent_at: float | None) -> None:
    store(DISPATCH_SIGNING_KEYS=KEY, DISPATCH_MAX_AGE="1h")
    task_id = schedule_function("jobs", "record")
    assert get_result(task_id).status is Status.READY
    body = message_of("record", task_id, sent_at=sent_at)
    assert deliver(body, delivery()).outcome is Outcome.BAD_SIGNATURE
    result = get_result(task_id)
    assert (result.status, result.attempts) == (Status.FAILED, 0)
    assert result.errors[0].exception_class_path.endswith(".BadSignature")
    assert run_all() == [Outcome.DONE]
    assert deliver(body, delivery()).outcome is Outcome.BAD_SIGNATURE
    assert get_result(task_id).status is Status.SUCCESSFUL


def test_a_replay_of_a_refused_message_changes_no_result(store: Environment) -> None:
    store(DISPATCH_SIGNING_KEYS=KEY, DISPATCH_MAX_AGE="1h")
    task_id = schedule_function("jobs", "record")
    body = message_of("record", task_id, sent_at=1.0)
    deliver(body, delivery())
    before = get_result(task_id)
    deliver(body, delivery())
    assert get_result(task_id) == before
    deliver(message_of("record", "expired", sent_at=1.0), delivery())
    with pytest.raises(UnknownResult):
        get_result("expired")


def test_a_forged_message_changes_no_result(store: Environment) -> None:
    store(DISPATCH_SIGNING_KEYS=KEY)
    task_id = schedule_function("jobs", "record")
    forged = Message(function="record", id=task_id).encode(queue=delivery().queue)
    assert deliver(forged, delivery()).outcome is Outcome.BAD_SIGNATURE
    assert get_result(task_id).status is Status.READY


@pytest.mark.parametrize("members", [{"options": {"max_retries": "many"}}, {"not_before": 9e9}])
def test_a_task_that_cannot_start_has_failed(store: Environment, members: dict[str, Any]) -> None:
    store(DISPATCH_TABLE="record=tests.jobs.record")
    task_id = schedule_function("jobs", "record")
    body = message_of("record", task_id, **members)
    assert deliver(body, delivery()).outcome is Outcome.MALFORMED
    result = get_result(task_id)
    assert (result.status, result.attempts, len(result.errors)) == (Status.FAILED, 0, 1)


@pytest.mark.parametrize("on_failure", ["redeliver", "acknowledge"])
def test_a_task_that_cannot_start_and_comes_again_is_ready(
    store: Environment, on_failure: str
) -> None:
    store(DISPATCH_TABLE="needs=tests.jobs.CannotBeMade", DISPATCH_ON_FAILURE=on_failure)
    task_id = schedule_function("jobs", "needs")
    assert run_all(deliveries=1) == [Outcome.FAILED]
    result = get_result(task_id)
    assert (result.status, len(result.errors)) == (Status.READY, 1)


def test_a_failure_in_the_calling_process_is_final(store: Environment) -> None:
    store(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_TABLE=IN_CALLER)
    for name in ("fail", "needs", "flaky"):
        result = get_result(schedule_function("jobs", name))
        assert (result.status, result.finished_at is None) == (Status.FAILED, False), name
    assert (result.attempts, len(result.errors)) == (2, 2)
    assert get_result(schedule_function("jobs", "record")).status is Status.SUCCESSFUL


def test_what_could_not_start_in_the_calling_process_has_failed(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: Any) -> None:
        raise TaskTimeout("time limit of 15 s exceeded")

    store(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_TABLE=f"{IN_CALLER} gone=no_module.task")
    monkeypatch.setattr(jobs.CannotBeMade, "__init__", hang)
    assert get_result(schedule_function("jobs", "needs")).status is Status.FAILED
    with capture_ids(delivery_finished) as ids, pytest.raises(UnknownFunction):
        schedule_function("jobs", "gone")
    assert get_result(ids[0]).status is Status.FAILED


def test_a_retry_that_the_calling_process_cannot_make_is_the_end(
    store: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_TABLE=IN_CALLER)

    def fail(*_: Any) -> None:
        raise SendError("too large by now")

    monkeypatch.setattr(CallingProcess, "resend", fail)
    assert get_result(schedule_function("jobs", "flaky")).status is Status.FAILED


@pytest.mark.parametrize("name", ["interrupt", "interrupted_hook", "interrupted_retry"])
def test_ctrl_c_in_the_calling_process_ends_the_task(
    store: Environment, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_TABLE=IN_CALLER)
    if name == "interrupted_retry":
        name = "flaky"
        monkeypatch.setattr(CallingProcess, "resend", lambda *_: jobs.interrupt())
    with capture_ids() as ids, pytest.raises(KeyboardInterrupt):
        schedule_function("jobs", name)
    result = get_result(ids[0])
    is_done = name == "interrupted_hook"
    assert result.status is (Status.SUCCESSFUL if is_done else Status.FAILED)
    assert result.finished_at is not None
    expected = [] if is_done else ["builtins.KeyboardInterrupt"]
    assert [each.exception_class_path for each in result.errors][-1:] == expected


@pytest.mark.parametrize(
    ("function", "error"), [("interrupt", "KeyboardInterrupt"), ("flaky", "ValueError")]
)
def test_what_breaks_off_a_worker_leaves_the_task_ready(
    store: Environment, function: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message comes again."""
    store(DISPATCH_TABLE=IN_CALLER)
    monkeypatch.setattr(DelayedCopies, "resend", lambda *_: jobs.interrupt())
    task_id = schedule_function("jobs", function)
    with pytest.raises(KeyboardInterrupt):
        run_all(deliveries=1)
    result = get_result(task_id)
    assert (result.status, result.attempts) == (Status.READY, 1)
    assert [each.exception_class_path for each in result.errors] == [f"builtins.{error}"]


@pytest.mark.parametrize("receive_count", [1, 2])
@pytest.mark.parametrize("on_failure", ["acknowledge", "redeliver"])
def test_a_late_duplicate_leaves_a_success_as_it_is(
    store: Environment, receive_count: int, on_failure: str
) -> None:
    """SQS may deliver a message twice, and a sender may have sent it twice."""
    store(DISPATCH_ON_FAILURE=on_failure, DISPATCH_TABLE="once=tests.jobs.good_once")
    task_id = schedule_function("jobs", "once")
    body = message_of("once", task_id)
    assert run_all() == [Outcome.DONE]
    before = get_result(task_id)
    lose_leases()
    late = delivery(receive_count=receive_count)
    assert deliver(body, late).outcome is Outcome.FAILED
    assert get_result(task_id) == before


def test_a_duplicate_that_ran_at_the_same_time_leaves_a_success_as_it_is(
    store: Environment,
) -> None:
    store(DISPATCH_ON_FAILURE="acknowledge", DISPATCH_TABLE="runs=tests.jobs.runs_its_duplicate")
    task_id = schedule_function("jobs", "runs")
    body = message_of("runs", task_id)

    def run_duplicate() -> None:
        lose_leases()
        deliver(body, delivery(receive_count=2))

    jobs.duplicate.append(run_duplicate)
    assert run_all() == [Outcome.FAILED]
    result = get_result(task_id)
    assert (result.status, result.return_value, result.errors) == (Status.SUCCESSFUL, "done", [])


@pytest.mark.parametrize("task_id", ["", "\0", "\ud800", "x" * 256])
def test_an_id_that_no_task_can_have_is_unknown(store: Environment, task_id: str) -> None:
    with pytest.raises(UnknownResult):
        get_result(task_id)


def test_a_forged_number_of_attempts_takes_no_memory(store: Environment) -> None:
    body = Message(function="record", id="forged", attempt=2**31 - 1).encode(queue="jobs")
    result = deliver(body, Delivery(queue="jobs", message_id="forged"))
    assert result.outcome is Outcome.DONE
    assert get_result("forged").attempts == MAX_UNKNOWN_WORKERS + 1


def test_a_hundred_worker_ids_are_kept_and_all_are_counted(store: Environment) -> None:
    kept = store_of(get_config())
    assert kept is not None
    ids = [f"worker-{number}" for number in range(250)]
    kept.save(TaskRecord(id="many", function="record", worker_ids=ids))
    for _ in range(2):
        record = get_result("many")
        assert record.attempts == 250
        assert record.worker_ids == ["unknown"] * 150 + ids[150:]
        kept.save(record)


def test_a_message_of_megabytes_in_an_exception_is_shortened(
    store: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    store(DISPATCH_ON_FAILURE="acknowledge", DISPATCH_TABLE="huge=tests.jobs.fail_at_length")
    task_id = schedule_function("jobs", "huge", 5_000_000)
    assert run_all() == [Outcome.FAILED]
    assert all(len(line) < 5_000 for line in caplog.messages)
    assert len(caplog.text) < 40_000
    (error,) = get_result(task_id).errors
    assert len(error.traceback) < 20_100
    assert "fail_at_length" in error.traceback
    assert "ValueError: xxx" in error.traceback
    assert error.traceback.endswith("xxx the end\n")


def test_a_task_that_waits_in_hops_keeps_the_time_of_its_enqueuing(store: Environment) -> None:
    task_id = schedule_function("jobs", "record")
    ready = get_result(task_id)
    hop = Message(function="record", id=task_id, sent_at=time.time() + 900, not_before=1.0)
    with_hop = Recording(run_of(hop, queue="jobs"))
    with_hop.start()
    assert get_result(task_id).enqueued_at == ready.enqueued_at


def test_what_has_ended_before_is_not_written_with_the_end_of_the_lease(store: Environment) -> None:
    message = Message(function="record")
    recording = Recording(run_of(message, queue="jobs"))
    recording.is_settled = True
    assert recording.success_entry() is None


def test_many_are_ready(store: Environment) -> None:
    ids = schedule_many("jobs", [Call("record", (number,)) for number in range(12)])
    assert {get_result(each).status for each in ids} == {Status.READY}
    assert schedule_many("jobs", []) == []


def test_a_coroutine_schedules_and_asks(store: Environment) -> None:
    async def schedule() -> TaskRecord:
        return await aget_result(await aschedule_function("jobs", "record"))

    assert asyncio.run(schedule()).status is Status.READY


def test_arguments_are_kept_if_asked(store: Environment) -> None:
    store(DISPATCH_RESULT_ARGUMENTS=True)
    task_id = schedule_function("jobs", "record", 1, x=2)
    assert (get_result(task_id).args, get_result(task_id).kwargs) == ([1], {"x": 2})
    run_all()
    assert get_result(task_id).args == [1]


@pytest.mark.slow
def test_an_expired_result_is_gone(store: Environment) -> None:
    store(DISPATCH_RESULT_TTL="1")
    task_id = schedule_function("jobs", "record")
    assert get_result(task_id)
    with pytest.raises(UnknownResult, match=task_id):
        while True:
            get_result(task_id)
            time.sleep(0.05)


def test_a_message_in_the_format_of_0_1_has_sqs_id(store: Environment) -> None:
    store(DISPATCH_MESSAGE_FORMAT="base64")
    task_id = schedule_function("jobs", "record")
    with pytest.raises(UnknownResult):
        get_result(task_id)
    assert run_all() == [Outcome.DONE]
    assert get_result(task_id).status is Status.SUCCESSFUL


def test_a_fast_worker_is_not_overwritten(store: Environment) -> None:
    """A worker writes its result while the transaction of the sender is still open."""
    store(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    with transaction.atomic():
        task_id = schedule_function("jobs", "record")
    assert get_result(task_id).status is Status.SUCCESSFUL


@pytest.mark.django_db(transaction=True)
def test_an_error_on_a_connection_that_works_is_raised(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a table that is locked: the database has waited for it already.

    The connection stays open, also where CONN_MAX_AGE is 0: the task may not have committed yet.
    """
    worker_env(DISPATCH_RESULTS="db")
    store = store_of(get_config())
    assert store is not None
    assert store.load("none") is None
    attempts: list[str] = []

    def fail(*args: Any) -> None:
        attempts.append("one")
        raise OperationalError("database table is locked")

    monkeypatch.setattr(DatabaseStore, "_insert_or_update", fail)
    used = connections["default"]  # of the proxy, pytest would delete close_at at the end
    monkeypatch.setattr(used, "close_at", 0.0)
    monkeypatch.setattr(used, "close", lambda: attempts.append("closed"))
    with pytest.raises(OperationalError):
        store.save(TaskRecord(id="id", function="record"))
    with pytest.raises(OperationalError), transaction.atomic():
        store.save(TaskRecord(id="id", function="record"))
    assert attempts == ["one", "one"]


class Away:
    """A store that does not answer."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any) -> None:
            self.asked += 1
            time.sleep(self.seconds)
            raise ConnectionError("no store")

        return fail


def test_a_store_that_is_away_loses_no_task(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker_env(DISPATCH_RESULTS="default")
    calls.clear()
    away = Away()
    monkeypatch.setattr(recording, "store_of", lambda config: away)
    task_id = schedule_function("jobs", "flaky")
    outcomes = run_all(deliveries=1)
    assert outcomes == [Outcome.RETRY]
    assert away.asked == 5
    assert [each for each in caplog.messages if each.startswith("result not ")] == [
        f"result not {what} id={task_id} error=ConnectionError: no store"
        for what in ("written", "read")
    ]
    assert calls == [("flaky", 1)]


@pytest.mark.slow
def test_a_store_that_hangs_is_left_alone_for_a_time(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_env(DISPATCH_RESULTS="default")
    away = Away(1.1)
    monkeypatch.setattr(recording, "store_of", lambda config: away)
    schedule_function("jobs", "record")
    assert run_all() == [Outcome.DONE]
    assert away.asked == 1


def test_an_unreadable_store_does_not_keep_a_task_from_running(
    worker_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_env(DISPATCH_RESULTS="default", DISPATCH_ON_FAILURE="redeliver")
    monkeypatch.setattr(recording, "store_of", lambda config: Away())
    schedule_function("jobs", "fail")
    assert run_all(deliveries=2) == [Outcome.FAILED] * 2


def test_a_retry_without_an_attempt_is_passed_over() -> None:
    """The observer was not told of the attempt, because it could not start."""
    with recording.ResultsObserver().retrying(run_of()) as nothing:
        assert nothing is None


def test_without_results_nothing_is_stored(worker_env: Environment) -> None:
    task_id = schedule_function("jobs", "record")
    assert run_all() == [Outcome.DONE]
    assert store_of(get_config()) is None
    with pytest.raises(ConfigurationError, match="BEANSTALK_DISPATCH_RESULTS is not set"):
        get_result(task_id)


def test_a_cache_that_is_not_there_is_an_error(worker_env: Environment) -> None:
    worker_env(DISPATCH_RESULTS="nowhere")
    with pytest.raises(ConfigurationError, match="BEANSTALK_DISPATCH_RESULTS: cache 'nowhere': "):
        get_result("id")
    assert schedule_function("jobs", "record")


def test_the_database_needs_its_app(worker_env: Environment) -> None:
    worker_env(DISPATCH_RESULTS="db")
    with (
        override_settings(INSTALLED_APPS=["beanstalk_dispatch"]),
        pytest.raises(ConfigurationError, match="db needs 'beanstalk_dispatch.contrib.results' in"),
    ):
        get_result("id")


def test_fields_of_a_newer_version_are_ignored() -> None:
    record = TaskRecord(id="a", function="f")
    assert TaskRecord.from_fields({**record.to_fields(), "new": 1}) == record


def test_keys_are_short_and_plain() -> None:
    cache = CacheStore("default", timedelta(days=1))
    record = TaskRecord(id="ü \ud800" * 60, function="f")
    cache.save(record)
    assert cache.load(record.id) == record


# --- the database only -----------------------------------------------------------------------


@pytest.fixture
def database(worker_env: Environment, transactional_db: None) -> Environment:
    worker_env(DISPATCH_RESULTS="db")
    return worker_env


def test_ready_is_written_when_the_transaction_commits(database: Environment) -> None:
    with transaction.atomic(), capture_tasks():
        task_id = schedule_function("jobs", "record")
        with pytest.raises(UnknownResult):
            get_result(task_id)
    assert get_result(task_id).status is Status.READY


def test_a_worker_that_was_faster_keeps_its_row(database: Environment) -> None:
    with capture_tasks() as tasks, transaction.atomic():
        task_id = schedule_function("jobs", "record")
        database(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
        tasks.run()
    assert get_result(task_id).status is Status.SUCCESSFUL


def test_an_error_of_the_store_does_not_spoil_the_callers_transaction(
    database: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    database(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)

    def fail(*_: Any, **__: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    monkeypatch.setattr("django.db.models.query.QuerySet.bulk_create", fail)
    with transaction.atomic():
        schedule_function("jobs", "record", "in a transaction")
        assert StoredResult.objects.count() == 0  # the connection still answers
    assert calls[-1] == (("in a transaction",), {})


def test_a_failure_after_the_commit_is_logged_only(
    database: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("full")

    with transaction.atomic(), capture_tasks() as tasks:
        schedule_function("jobs", "record")
        monkeypatch.setattr("django.db.models.query.QuerySet.bulk_create", fail)
    assert len(tasks) == 1


def test_expired_rows_are_pruned(database: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beanstalk_dispatch.contrib.results.pruning.BATCH_ROWS", 2)
    now = timezone.now()
    for number in range(5):
        StoredResult.objects.create(id=f"old-{number}", expires_at=now - timedelta(seconds=1))
    call_command("beanstalk_results", "prune", stdout=io.StringIO())
    assert StoredResult.objects.count() == 0
    for number in range(5):
        StoredResult.objects.create(id=f"old-{number}", expires_at=now - timedelta(seconds=1))
    StoredResult.objects.create(id="new", function="f", expires_at=now + timedelta(days=1))
    out = io.StringIO()
    call_command("beanstalk_results", "prune", verbosity=2, stdout=out)
    assert out.getvalue().splitlines() == [
        "deleted 2 so far", "deleted 4 so far", "deleted 5 so far", "deleted 5"
    ]  # fmt: skip
    assert str(StoredResult.objects.get()) == "f new"
    out = io.StringIO()
    call_command("beanstalk_results", "prune", database="default", stdout=out)
    assert out.getvalue() == "deleted 0\n"


@pytest.mark.parametrize("is_aware", [True, False])
def test_what_has_become_slow_since_a_deploy_is_shown(
    database: Environment, is_aware: bool
) -> None:
    def add(function: str, minutes: int, *seconds: float, status: str = "SUCCESSFUL") -> None:
        at = timezone.now() - timedelta(minutes=minutes)
        for number, each in enumerate(seconds):
            start = at + timedelta(seconds=0.5)
            StoredResult.objects.create(
                id=f"{function}-{minutes}-{number}", function=function, status=status,
                enqueued_at=at, started_at=start, last_attempted_at=start,
                finished_at=start + timedelta(seconds=each), expires_at=at,
            )  # fmt: skip

    with override_settings(USE_TZ=is_aware):
        add("steady", 5, 1.0)
        add("steady", 15, 1.0)
        add("slower", 5, 1.0, 5.0)
        add("slower", 15, 1.0)
        add("new", 5, 2.0, status="FAILED")
        add("gone", 15, 2.0)
        add("long ago", 25, 2.0)
        StoredResult.objects.create(
            id="runs", function="runs", enqueued_at=timezone.now(), expires_at=timezone.now()
        )
        out = io.StringIO()
        call_command("beanstalk_results", "durations", "--since", "10m", stdout=out)
        assert [line.split() for line in out.getvalue().splitlines()] == [
            ["FUNCTION", "CHANGE", "MEAN", "BEFORE", "LONGEST", "WAIT", "RUNS", "FAILED"],
            ["slower", "x", "3.0", "3.000s", "1.000s", "5.000s", "0.500s", "2", "0"],
            ["steady", "x", "1.0", "1.000s", "1.000s", "1.000s", "0.500s", "1", "0"],
            ["new", "-", "2.000s", "-", "2.000s", "0.500s", "1", "1"],
            ["gone", "-", "-", "2.000s", "-", "-", "0", "0"],
        ]
        out = io.StringIO()
        call_command("beanstalk_results", "durations", "--since=10m", "--json", stdout=out)
    assert json.loads(out.getvalue())[0] == {
        "function": "slower", "mean": 3.0, "before": 1.0, "longest": 5.0, "wait": 0.5, "runs": 2,
        "failed": 0, "change": 3.0,
    }  # fmt: skip


def test_the_periodic_task_prunes_for_a_limited_time(
    database: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune = "beanstalk_dispatch.contrib.results.pruning"
    monkeypatch.setattr(f"{prune}.BATCH_ROWS", 2)
    database(DISPATCH_TABLE=f"prune={prune}.prune_results")
    with override_settings(USE_TZ=False):
        for number in range(5):
            StoredResult.objects.create(id=f"old-{number}", expires_at=timezone.now())
        assert prune_results() == 5
    for number in range(5):
        StoredResult.objects.create(id=f"old-{number}", expires_at=timezone.now())
    monkeypatch.setattr(f"{prune}.TASK_SECONDS", 0)
    task_id = schedule_function("jobs", "prune")
    assert run_all() == [Outcome.DONE]
    assert get_result(task_id).return_value == 2


def test_results_that_nothing_deletes_are_reported(database: Environment) -> None:
    StoredResult.objects.create(id="old", expires_at=timezone.now() - timedelta(days=1))
    assert [each.id for each in run_checks(databases=["default"]) if each.id == W019] == []
    StoredResult.objects.update(expires_at=timezone.now() - timedelta(days=3))
    (found,) = (each for each in run_checks(databases=["default"]) if each.id == W019)
    assert "the oldest in the database 'default' has expired 3 days ago" in found.msg
    StoredResult.objects.all().delete()
    assert check() == check(databases=["default"]) == []


def test_before_the_migration_there_is_nothing_to_prune(
    database: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_table(using: str) -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr("beanstalk_dispatch.contrib.results.checks.oldest_expired", no_table)
    assert check(databases=["default"]) == []


def test_pruning_without_the_table_is_a_command_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_table(using: str | None) -> Iterator[int]:
        raise DatabaseError("no such table")

    monkeypatch.setattr(beanstalk_results, "prune", no_table)
    with pytest.raises(CommandError, match="cannot be deleted: no such table; has 'manage.py mi"):
        call_command("beanstalk_results", "prune")


def test_pruning_an_unknown_database_is_a_command_error() -> None:
    with pytest.raises(CommandError, match="argument --database: invalid choice: 'nope'"):
        call_command("beanstalk_results", "prune", "--database", "nope")


def test_the_migration_is_the_model(transactional_db: None) -> None:
    call_command("makemigrations", "beanstalk_results", check=True, dry_run=True, verbosity=0)
