"""Waiting for the end of a task."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.db import transaction

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.results import Status, TaskRecord, await_result, wait, waiting
from beanstalk_dispatch.contrib.results.stores import CacheStore
from beanstalk_dispatch.exceptions import TaskTimeout, UnknownResult
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.limits.time_limit import GRACE, time_limit
from tests.conftest import Environment

pytestmark = pytest.mark.django_db(transaction=True)
STORE = CacheStore("default", timedelta(minutes=1))


@pytest.fixture(autouse=True)
def results(worker_env: Environment) -> Iterator[Environment]:
    caches["default"].clear()
    worker_env(DISPATCH_RESULTS="default")
    yield worker_env
    caches["default"].clear()


def awaited(task_id: str, timeout: float | timedelta) -> TaskRecord:
    return asyncio.run(await_result(task_id, timeout))


WAYS = pytest.mark.parametrize("wait_for", [wait, awaited])
Wait = Callable[[str, Any], TaskRecord]


def keep(status: Status) -> TaskRecord:
    record = TaskRecord(id="task-1", function="f", status=status)
    STORE.save(record)
    return record


@WAYS
@pytest.mark.parametrize("status", [Status.SUCCESSFUL, Status.FAILED])
def test_the_end_is_returned_soon_after_it(wait_for: Wait, status: Status) -> None:
    keep(Status.RUNNING)
    ending = threading.Timer(0.1, keep, [status])
    ending.start()
    assert wait_for("task-1", timedelta(seconds=20)).status is status
    ending.join()


@WAYS
@pytest.mark.parametrize(
    ("status", "remedy"),
    [(Status.READY, "no worker runs it; 'manage.py beanstalk_queues' shows what waits"),
     (Status.RUNNING, "it runs; wait longer, or type 'manage.py beanstalk_cancel task-1'")],
)  # fmt: skip
def test_a_timeout_says_what_to_type(wait_for: Wait, status: Status, remedy: str) -> None:
    keep(status)
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        wait_for("task-1", 0.2)
    assert str(caught.value) == f"the task task-1 (f) is {status} after 0.2 s: {remedy}"
    assert time.monotonic() - started >= 0.2


def test_a_task_that_waits_is_interrupted_at_its_time_limit() -> None:
    """Later it would be called stuck, for which a worker ends."""
    keep(Status.RUNNING)
    started = time.monotonic()
    with pytest.raises(TaskTimeout), time_limit(0.1):
        wait("task-1", 60)
    assert time.monotonic() - started < GRACE


def test_the_pauses_grow_and_are_as_long_as_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    pauses = []
    for each in waiting._pauses(60):
        pauses.append(each)
        now[0] += each
    assert pauses[:2] == [0.05, 0.05 * 1.5]
    assert pauses[-2] == 1
    assert len(pauses) < 70
    assert now[0] == 160


@WAYS
@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_without_time_there_is_one_look(wait_for: Wait, timeout: float) -> None:
    keep(Status.RUNNING)
    with pytest.raises(TimeoutError, match="RUNNING"):
        wait_for("task-1", timeout)
    keep(Status.SUCCESSFUL)
    assert wait_for("task-1", timeout).status is Status.SUCCESSFUL


@WAYS
def test_an_unknown_id_is_an_error_at_once(wait_for: Wait) -> None:
    with pytest.raises(UnknownResult):
        wait_for("unknown", 20)


def test_a_result_that_is_deleted_meanwhile_is_unknown() -> None:
    keep(Status.RUNNING)
    deleting = threading.Timer(0.05, caches["default"].clear)
    deleting.start()
    with pytest.raises(UnknownResult):
        wait("task-1", 20)
    deleting.join()


@pytest.mark.parametrize("store", ["default", "db"])
@pytest.mark.parametrize("outbox", ["always", "off"])
def test_in_the_transaction_that_sends_the_call_it_is_an_error(
    results: Environment, store: str, outbox: str
) -> None:
    results(DISPATCH_RESULTS=store, DISPATCH_ON_COMMIT=True, DISPATCH_OUTBOX=outbox)
    with transaction.atomic():
        task_id = schedule_function("jobs", "record", 1)
        with pytest.raises(RuntimeError, match=f"the task {task_id} may be sent by the commit"):
            wait(task_id, 20)
        transaction.set_rollback(True)


def test_in_a_transaction_a_task_that_has_ended_is_known(results: Environment) -> None:
    results(DISPATCH_RESULTS="db", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    with transaction.atomic():
        assert wait(schedule_function("jobs", "record", 1), 0).status is Status.SUCCESSFUL
