from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connection, transaction

from beanstalk_dispatch.client import (
    Call,
    aschedule_function,
    batching,
    schedule,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.sender import SENDER
from beanstalk_dispatch.exceptions import BatchError, InvalidArgument, UnknownQueue
from beanstalk_dispatch.scheduling import batching as batching_module
from beanstalk_dispatch.scheduling.prepare import prepare_calls
from beanstalk_dispatch.signals import task_scheduled
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment
from tests.jobs import calls
from tests.proxy import Proxy, error
from tests.recording_sqs import Sqs, body_of
from tests.workers import until


@pytest.fixture
def announced() -> Iterator[list[str]]:
    found: list[str] = []

    def receiver(task_id: str, **_: Any) -> None:
        assert threading.current_thread() is threading.main_thread()
        found.append(task_id)

    task_scheduled.connect(receiver)
    yield found
    task_scheduled.disconnect(receiver)


def test_a_call_is_sent_now_if_its_block_ends_meanwhile(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with batching("jobs"):
        (block,) = batching_module.open_blocks()
        # Another thread ends it after it was asked whether it collects.
        monkeypatch.setattr(type(block), "add", lambda *args: False)
        schedule_function("jobs", "record", 1)
        assert sqs.labels == [1]


def test_calls_of_a_block_are_sent_in_tens(sqs: Sqs, announced: list[str]) -> None:
    with batching("jobs"):
        ids = [schedule_function("jobs", "record", n) for n in range(9)]
        assert sqs.requests == []
        ids += schedule_many("jobs", [Call("record", [n]) for n in range(9, 25)])
        assert announced == []
    assert sorted(map(len, sqs.requests)) == [5, 10, 10]
    assert sorted(sqs.labels) == list(range(25))
    assert sorted(body_of(entry)["id"] for entry in sqs.entries) == sorted(ids)
    assert announced == ids


def test_ten_calls_are_sent_before_the_end_of_the_block(sqs: Sqs) -> None:
    with batching():
        for n in range(11):
            schedule_function("jobs", "record", n)
        until(lambda: len(sqs.entries) == 10, 30)
    assert len(sqs.entries) == 11


def test_without_names_each_queue_has_its_own_batches(sqs: Sqs) -> None:
    with batching():
        for n, queue in enumerate(("jobs", "more", "jobs")):
            schedule_function(queue, "record", n)
    assert [[body_of(entry)["args"][0] for entry in each] for each in sqs.requests] == [[0, 2], [1]]


def test_another_queue_is_not_collected(sqs: Sqs) -> None:
    with batching("more"):
        schedule_function("jobs", "record", 1)
        assert sqs.labels == [1]


def test_the_innermost_block_of_a_queue_collects(sqs: Sqs) -> None:
    with batching("jobs"):
        with batching("more"):
            schedule_function("jobs", "record", "outer")
            schedule_function("more", "record", "inner")
        assert sqs.labels == ["inner"]
    assert sqs.labels == ["inner", "outer"]


def test_a_fifo_queue_gets_its_messages_in_order_at_the_end(sqs: Sqs) -> None:
    with batching():
        for n in range(25):
            schedule("fifo", Call("record", [n], group_id="g"))
        assert sqs.requests == []
    assert sqs.labels == list(range(25))
    assert [len(each) for each in sqs.requests] == [10, 10, 5]


def test_a_call_is_checked_where_it_is_made(sqs: Sqs) -> None:
    with batching(), pytest.raises(InvalidArgument):
        schedule_function("jobs", "record", object())
    assert sqs.requests == []


def test_what_is_not_sent_is_an_error_at_the_end(sqs: Sqs) -> None:
    sqs.refuses_entry = lambda label: label in {3, 12}
    with pytest.raises(BatchError) as caught, batching():
        ids = [schedule_function("jobs", "record", n) for n in range(13)]
    assert caught.value.unsent == {3: "Refused", 12: "Refused"}
    assert caught.value.refused == {3, 12}
    assert caught.value.sent == {n: ids[n] for n in range(13) if n not in {3, 12}}


def test_what_concerns_everybody_is_tried_for_one_queue(sqs: Sqs, proxy: Proxy) -> None:
    sqs.failure = error(403, "InvalidClientTokenId")
    with pytest.raises(BatchError) as caught, batching():
        for queue in ("jobs", "more"):
            schedule_function(queue, "record", queue)
    assert proxy.counts["SendMessageBatch"] == 1
    assert caught.value.unsent.keys() == {0, 1}
    assert caught.value.refused == set()


def test_if_the_block_raises_what_it_has_scheduled_is_sent(sqs: Sqs) -> None:
    with pytest.raises(KeyError), batching():
        schedule_function("jobs", "record", 1)
        raise KeyError
    assert sqs.labels == [1]


def test_if_the_block_raises_what_is_not_sent_is_logged(
    sqs: Sqs, caplog: pytest.LogCaptureFixture
) -> None:
    sqs.refuses_entry = lambda label: label == 1
    with pytest.raises(KeyError), batching():
        task_id = schedule_function("jobs", "record", 1)
        schedule_function("jobs", "record", 2)
        raise KeyError
    (line,) = [r.getMessage() for r in caplog.records if "not sent" in r.getMessage()]
    assert line == (
        f"not sent at the end of its block id={task_id} function=record queue=jobs error=Refused"
    )


def test_a_queue_that_is_not_configured_is_an_error_at_the_start_of_the_block(sqs: Sqs) -> None:
    block = batching("jobs", "mial")
    with pytest.raises(UnknownQueue, match="'mial' is not in"):
        block.__enter__()


def test_a_call_to_a_queue_that_does_not_exist_is_refused_at_once(
    sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}-none", DISPATCH_CREATE_QUEUES=False)
    with batching(), pytest.raises(UnknownQueue, match="SQS has no queue"):
        schedule("jobs", Call("record"))


def test_after_the_end_of_the_block_a_call_is_sent_at_once(sqs: Sqs) -> None:
    with batching() as nothing:
        pool = ThreadPoolExecutor(1)
        import contextvars

        late = contextvars.copy_context()
    assert nothing is None
    pool.submit(late.run, schedule_function, "jobs", "record", 1).result(30)
    pool.shutdown()
    assert sqs.labels == [1]


def test_a_forked_process_sends_its_own_calls_and_none_of_its_parent(sqs: Sqs) -> None:
    child = None
    try:
        with batching():
            schedule_function("jobs", "record", "parent")
            child = os.fork()
            if child == 0:  # pragma: no cover - the child of a fork
                schedule_function("jobs", "record", "child")
            else:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert sqs.labels == ["child"]
    finally:
        if child == 0:  # pragma: no cover - the child of a fork
            os._exit(0)
    assert sqs.labels == ["child", "parent"]


def test_a_generator_that_another_thread_closes_sends_what_it_has_scheduled(sqs: Sqs) -> None:
    def generate() -> Iterator[None]:
        with batching():
            schedule_function("jobs", "record", 1)
            yield

    generator: Any = generate()
    next(generator)
    thread = threading.Thread(target=generator.close)
    thread.start()
    thread.join(30)
    assert sqs.labels == [1]
    schedule_function("jobs", "record", 2)
    assert sqs.labels == [1, 2]


def test_each_block_needs_a_batching_of_its_own(sqs: Sqs) -> None:
    block = batching()
    with block:
        schedule_function("jobs", "record", 1)
    with pytest.raises(RuntimeError, match="a batching\\(\\) of its own"):
        ExitStack().enter_context(block)
    assert sqs.labels == [1]


def test_at_the_end_of_the_interpreter_all_is_sent_by_the_block_itself(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    monkeypatch.setattr(batching_module, "sending_executor", lambda: ended)
    with batching():
        for n in range(12):
            schedule_function("jobs", "record", n)
        assert sqs.requests == []
    assert sorted(sqs.labels) == list(range(12))


def test_calls_that_run_here_or_are_captured_are_not_collected(
    sqs: Sqs, sqs_env: Environment
) -> None:
    with batching():
        with capture_tasks() as tasks:
            schedule_function("jobs", "record", 1)
        tasks.assert_scheduled("jobs", "record", 1)
        sqs_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
        calls.clear()
        schedule_function("jobs", "record", 2)
        assert calls == [((2,), {})]
    assert sqs.requests == []


@pytest.mark.django_db(transaction=True)
def test_a_call_that_waits_for_a_commit_is_not_collected(sqs: Sqs) -> None:
    with batching():
        with transaction.atomic():
            schedule("jobs", Call("record", [1]), on_commit=True)
        assert sqs.labels == [1]


# --- with the outbox -------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_with_an_outbox_what_is_not_sent_is_kept(
    sqs: Sqs, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SENDER, "wake", lambda *_, **__: None)
    sqs_env(DISPATCH_OUTBOX="on-failure")
    sqs.refuses_entry = lambda label: label == 1
    with batching():
        ids = [schedule_function("jobs", "record", n) for n in range(3)]
    assert [row.task_id for row in OutboxMessage.objects.all()] == [ids[1]]
    with pytest.raises(BatchError), batching():
        schedule_function("jobs", "record", 1)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE beanstalk_outbox_outboxmessage RENAME TO elsewhere")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE elsewhere RENAME TO beanstalk_outbox_outboxmessage")


# --- async -----------------------------------------------------------------------------------


def test_a_block_of_a_coroutine_collects_what_its_tasks_schedule(sqs: Sqs) -> None:
    async def schedule_some() -> list[str]:
        async with batching("jobs"):
            ids = await asyncio.gather(
                *(aschedule_function("jobs", "record", n) for n in range(12))
            )
        assert len(sqs.entries) == 12
        return ids

    ids = asyncio.run(schedule_some())
    assert sorted(body_of(entry)["id"] for entry in sqs.entries) == sorted(ids)
    assert sorted(map(len, sqs.requests)) == [2, 10]


def test_a_block_of_a_coroutine_raises_what_was_not_sent(sqs: Sqs) -> None:
    async def schedule_one() -> None:
        async with batching():
            await aschedule_function("jobs", "record", 1)

    sqs.refuses_entry = lambda label: True
    with pytest.raises(BatchError):
        asyncio.run(schedule_one())


def test_an_asynchronous_generator_that_the_loop_closes_sends_what_it_has_scheduled(
    sqs: Sqs,
) -> None:
    async def generate() -> AsyncIterator[None]:
        async with batching():
            await aschedule_function("jobs", "record", 1)
            yield

    generator = generate()

    async def begin() -> None:
        await anext(generator)

    asyncio.run(begin())
    assert sqs.labels == [1]


def test_a_block_that_another_thread_has_just_ended_takes_nothing(sqs: Sqs) -> None:
    destination, prepared = prepare_calls("jobs", [Call("record")], get_config(), is_local=False)
    block = batching_module.CollectedCalls(())
    assert block.collects(destination)
    assert block.close() == []
    assert not block.collects(destination)
    assert not block.add(destination, prepared)
