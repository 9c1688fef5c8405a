from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction
from django.test import TestCase

from beanstalk_dispatch import client
from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.exceptions import InvalidArgument, InvalidCall, UnknownFunction
from beanstalk_dispatch.testing import capture_tasks
from tests import jobs
from tests.conftest import TABLE, Environment
from tests.jobs import calls


@pytest.fixture(autouse=True)
def project(env: Environment) -> Environment:
    calls.clear()
    env(
        DISPATCH_TABLE=f"{TABLE} chain=tests.unit.test_testing.chain",
        DISPATCH_QUEUES="mail=m fifo=f.fifo dead=d",
    )
    return env


def chain(left: int) -> None:
    calls.append(("chain", left))
    if left:
        schedule_function("mail", "chain", left - 1)


def test_what_is_scheduled_is_collected_and_not_sent() -> None:
    with capture_tasks() as tasks:
        task_id = schedule_function("mail", "record", 1, a=2)
        schedule_many("mail", [Call("record", [3], delay=60), Call("record", group_id="g")])
        schedule("mail", Call("record", delay=timedelta(hours=1)))
        schedule("fifo", Call("record", group_id="g", deduplication_id="d"))
    first, second, third, fourth, fifth = tasks
    assert (first.queue, first.function, first.args, first.kwargs) == (
        "mail",
        "record",
        (1,),
        {"a": 2},
    )
    assert first.message.id == task_id
    assert [task.delay for task in tasks] == [0, 60, 0, pytest.approx(3600, abs=1), 0]
    assert (second.args, third.group_id, fourth.function) == ([3], "g", "record")
    assert (fifth.group_id, fifth.deduplication_id) == ("g", "d")
    assert calls == []


def test_everything_is_checked_as_for_sqs() -> None:
    with capture_tasks() as tasks:
        with pytest.raises(InvalidArgument):
            schedule_function("mail", "record", object())
        with pytest.raises(UnknownFunction):
            schedule_function("mail", "nowhere")
        with pytest.raises(InvalidCall, match="group_id"):
            schedule_function("fifo", "record")
    assert tasks == []


def test_asserting() -> None:
    with capture_tasks() as tasks:
        tasks.assert_none()
        schedule_function("mail", "record", 1, a=2)
        schedule_function("mail", jobs.fail)
    assert tasks.assert_scheduled("mail", "record", 1, a=2) is tasks[0]
    assert tasks.assert_scheduled("mail", jobs.record, 1, a=2) is tasks[0]
    with pytest.raises(AssertionError) as caught:
        tasks.assert_scheduled("mail", "record", 1)
    assert (
        str(caught.value)
        == "scheduled 0 times, not once; scheduled: mail: record(1, a=2); mail: fail()"
    )
    with pytest.raises(AssertionError, match="tasks were scheduled; scheduled: mail"):
        tasks.assert_none()
    del tasks[:]
    with pytest.raises(AssertionError, match="scheduled: nothing"):
        tasks.assert_scheduled("mail", "record")


def test_running_them() -> None:
    with capture_tasks() as tasks:
        schedule_function("mail", "chain", 2)
        schedule_function("mail", "flaky")
        tasks.run()
        assert tasks == []
    assert calls == [
        ("chain", 2), ("flaky", 1), ("flaky", 2), ("flaky", 3), ("chain", 1), ("chain", 0),
    ]  # fmt: skip


def test_a_failure_is_raised(project: Environment) -> None:
    project(DISPATCH_LEASE_CACHE="nowhere", DISPATCH_DEAD_LETTER_QUEUE="dead")
    with capture_tasks() as tasks:
        schedule_function("mail", "fail", "the reason")
        with pytest.raises(ValueError, match="the reason"):
            tasks.run()


def test_capturing_may_be_nested() -> None:
    with capture_tasks() as outer:
        with capture_tasks() as inner:
            schedule_function("mail", "record", 1)
        schedule_function("mail", "record", 2)
    assert [task.args for task in (*inner, *outer)] == [(1,), (2,)]
    assert client.capture is None


def test_an_error_in_the_block_ends_it() -> None:
    with pytest.raises(KeyError), capture_tasks():
        raise KeyError
    assert client.capture is None


# --- on_commit ---


@pytest.mark.django_db
def test_in_a_testcase_the_end_of_the_block_stands_for_the_commit() -> None:
    done: list[int] = []
    with capture_tasks() as tasks:
        with transaction.atomic():
            schedule("mail", Call("record", [1]), on_commit=True)
            schedule_many("mail", [Call("record", [2])], on_commit=True)
            transaction.on_commit(lambda: done.append(1))
        assert tasks == []
    assert [task.args for task in tasks] == [[1], [2]]
    assert done == []


@pytest.mark.django_db
def test_what_is_rolled_back_is_not_collected() -> None:
    with capture_tasks() as tasks:
        with pytest.raises(KeyError), transaction.atomic():
            schedule("mail", Call("record"), on_commit=True)
            raise KeyError
        schedule("mail", Call("record", ["kept"]), on_commit=True)
    assert [task.args for task in tasks] == [["kept"]]


@pytest.mark.django_db
def test_a_transaction_around_the_block_has_not_committed() -> None:
    with transaction.atomic():
        with capture_tasks() as tasks:
            schedule("mail", Call("record"), on_commit=True)
        assert tasks == []
        transaction.set_rollback(True)


@pytest.mark.django_db(transaction=True)
def test_a_real_commit_collects() -> None:
    with capture_tasks() as tasks:
        with transaction.atomic():
            schedule("mail", Call("record"), on_commit=True)
            assert tasks == []
        assert len(tasks) == 1


@pytest.mark.django_db
def test_what_django_has_already_called_is_not_collected_twice() -> None:
    with capture_tasks() as tasks, TestCase.captureOnCommitCallbacks(execute=True):
        schedule("mail", Call("record", [1]), on_commit=True)
        schedule_many("mail", [], on_commit=True)
    assert [task.args for task in tasks] == [[1]]
    with capture_tasks() as tasks:
        with TestCase.captureOnCommitCallbacks(execute=True):
            schedule("mail", Call("record", [2]), on_commit=True)
        assert len(tasks) == 1
        schedule("mail", Call("record", [3]), on_commit=True)
    assert [task.args for task in tasks] == [[2], [3]]


@pytest.mark.django_db
def test_each_block_collects_what_was_put_off_in_it() -> None:
    with capture_tasks() as outer:
        schedule("mail", Call("record", ["outer"]), on_commit=True)
        with capture_tasks() as inner:
            schedule("mail", Call("record", ["inner"]), on_commit=True)
        assert [task.args for task in inner] == [["inner"]]
    assert [task.args for task in outer] == [["outer"]]
