from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from beanstalk_dispatch import client
from beanstalk_dispatch.client import Call, aschedule, aschedule_function, aschedule_many
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.scheduling import prepare
from beanstalk_dispatch.scheduling.threads import MAX_THREADS, sending_executor
from beanstalk_dispatch.signals import task_scheduled
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment
from tests.proxy import Answer, Proxy
from tests.services import in_child

COUNT = 5


def test_coroutines_send_at_the_same_time(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    together = threading.Barrier(COUNT)

    def wait_for_all(operation: str, request: dict[str, Any]) -> Answer | None:
        together.wait(10)
        return None

    async def schedule_all() -> list[str]:
        calls = (aschedule_function("jobs", "record", n) for n in range(10 * COUNT))
        return await asyncio.gather(*calls)

    proxy.spoil = wait_for_all
    assert len(set(asyncio.run(schedule_all()))) == 10 * COUNT
    assert not together.broken


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of the thread of each call."""
    names: list[str] = []
    real = prepare.prepare_calls

    def prepare_and_note(*args: Any, **kwargs: Any) -> Any:
        names.append(threading.current_thread().name)
        return real(*args, **kwargs)

    monkeypatch.setattr(client, "prepare_calls", prepare_and_note)
    return names


def test_each_coroutine_uses_the_threads_for_sending(sqs_env: Environment, seen: list[str]) -> None:
    async def schedule_twice() -> None:
        await aschedule("jobs", Call("record"))
        await aschedule_many("jobs", [Call("record")])

    asyncio.run(schedule_twice())
    assert len(seen) == 2
    assert all(name.startswith("beanstalk-dispatch-send") for name in seen)


def test_many_calls_that_may_wait_for_a_commit_stay_in_the_thread_of_the_orm(
    sqs_env: Environment, seen: list[str]
) -> None:
    asyncio.run(aschedule_many("jobs", [Call("record")], on_commit=True))
    assert not any(name.startswith("beanstalk-dispatch-send") for name in seen)
    assert len(seen) == 1


def test_an_error_is_raised_where_it_is_awaited(sqs_env: Environment) -> None:
    with pytest.raises(UnknownFunction):
        asyncio.run(aschedule_function("jobs", "nowhere"))


@pytest.mark.parametrize("variables", [{}, {"DISPATCH_EXECUTE_SYNCHRONOUSLY": True}])
def test_what_may_use_the_database_stays_in_the_thread_of_the_orm(
    sqs_env: Environment, seen: list[str], variables: dict[str, Any]
) -> None:
    def receiver(**_: Any) -> None:
        pass

    sqs_env(**variables)
    task_scheduled.connect(receiver)
    try:
        asyncio.run(aschedule_function("jobs", "record"))
    finally:
        task_scheduled.disconnect(receiver)
    with capture_tasks() as tasks:
        asyncio.run(aschedule_function("jobs", "record"))
    assert len(tasks) == 1
    assert len(seen) == 2
    assert not any(name.startswith("beanstalk-dispatch-send") for name in seen)


@pytest.mark.django_db(transaction=True)
def test_a_commit_is_awaited_in_the_thread_of_the_orm(
    sqs_env: Environment, seen: list[str]
) -> None:
    with transaction.atomic():
        async_to_sync(aschedule)("jobs", Call("record"), on_commit=True)
        assert open_queue("jobs").receive(count=1, wait=0, visibility=30) == []
    assert len(open_queue("jobs").receive(count=1, wait=0, visibility=30)) == 1
    assert seen == [threading.current_thread().name]


def test_context_variables_are_carried_both_ways(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    found: list[str] = []
    real = prepare.prepare_calls

    def prepare_and_set(*args: Any, **kwargs: Any) -> Any:
        found.append(variable.get())
        variable.set("changed")
        return real(*args, **kwargs)

    async def schedule() -> None:
        variable.set("mine")
        await aschedule("jobs", Call("record"))
        found.append(variable.get())

    monkeypatch.setattr(client, "prepare_calls", prepare_and_set)
    asyncio.run(schedule())
    assert found == ["mine", "changed"]


def test_a_forked_child_makes_threads_of_its_own() -> None:
    executor = sending_executor()
    assert sending_executor() is executor
    assert executor._max_workers == MAX_THREADS
    in_child(lambda: sending_executor() is not executor)
