from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from beanstalk_dispatch.client import Call, aschedule, aschedule_function
from beanstalk_dispatch.exceptions import (
    InvalidArgument,
    MessageTooLarge,
    SendError,
    UnknownQueue,
)
from beanstalk_dispatch.observers import Observer, Publication
from beanstalk_dispatch.scheduling import gathering
from beanstalk_dispatch.sqs.queue import Queue
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.recording_sqs import Sqs, body_of, label
from tests.workers import until

Outcome = str | BaseException


def gather(*calls: tuple[str, Call]) -> list[Outcome]:
    """Schedule calls to the queues of these names in one iteration of a loop."""

    async def schedule_all() -> list[Outcome]:
        coroutines = (aschedule(queue, call) for queue, call in calls)
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(schedule_all())


def records(count: int, queue: str = "jobs") -> list[tuple[str, Call]]:
    return [(queue, Call("record", [n])) for n in range(count)]


def test_fifty_calls_of_one_iteration_make_five_requests(sqs: Sqs) -> None:
    ids = gather(*records(50))
    assert sorted(map(len, sqs.requests)) == [10] * 5
    found = {label(entry): body_of(entry)["id"] for entry in sqs.entries}
    assert ids == [found[n] for n in range(50)]


def test_one_call_is_sent_as_a_message(sqs: Sqs, proxy: Proxy) -> None:
    [task_id] = gather(*records(1))
    assert body_of(sqs.entries[0])["id"] == task_id
    assert proxy.counts["SendMessage"] == 1
    assert proxy.counts["SendMessageBatch"] == 0


def test_each_queue_has_requests_of_its_own(sqs: Sqs) -> None:
    gather(*(pair for n in range(10) for pair in (records(1)[0], records(1, "more")[0])))
    assert [len(entries) for entries in sqs.requests] == [10, 10]


def test_messages_of_a_fifo_queue_are_sent_one_by_one(sqs: Sqs, proxy: Proxy) -> None:
    calls = [("fifo", Call("record", [n], group_id="a")) for n in range(3)]
    assert len(set(gather(*calls))) == 3
    assert proxy.counts["SendMessage"] == 3


def test_messages_too_large_for_one_request_are_sent_in_several(sqs: Sqs) -> None:
    gather(*(("jobs", Call("record", [n, "x" * 400_000])) for n in range(5)))
    assert sorted(map(len, sqs.requests)) == [1, 2, 2]


def test_calls_in_the_format_of_0_1_return_the_ids_of_sqs(
    sqs: Sqs, sqs_env: Environment, proxy: Proxy
) -> None:
    def answer(operation: str, request: dict[str, Any]) -> Answer | None:
        if operation != "SendMessageBatch":
            return sqs(operation, request)
        return 200, {
            "Successful": [
                {"Id": each["Id"], "MessageId": f"sqs-{each['Id']}", "MD5OfMessageBody": ""}
                for each in request["Entries"]
            ]
        }

    sqs_env(DISPATCH_MESSAGE_FORMAT="base64")
    proxy.spoil = answer
    assert gather(*records(2)) == ["sqs-0", "sqs-1"]


class TestErrors:
    def test_a_call_that_is_wrong_is_refused_alone(self, sqs: Sqs) -> None:
        found = gather(
            ("jobs", Call("record", [1])),
            ("jobs", Call("record", [object()])),
            ("jobs", Call("record", ["x" * 2_000_000])),
            ("jobs", Call("record", [2])),
        )
        assert [type(each) for each in found] == [str, InvalidArgument, MessageTooLarge, str]
        assert sorted(sqs.labels) == [1, 2]

    def test_calls_that_are_all_wrong_send_nothing(self, sqs: Sqs) -> None:
        assert [type(each) for each in gather(("nowhere", Call("record")))] == [UnknownQueue]
        assert sqs.requests == []

    def test_a_message_that_sqs_does_not_take_is_refused_alone(
        self, sqs: Sqs, proxy: Proxy
    ) -> None:
        def refuse(operation: str, request: dict[str, Any]) -> Answer:
            if operation == "SendMessage" and label(request) == 3:
                return error(400, "InvalidMessageContents", "not this one")
            return sqs(operation, request)

        sqs.refuses_entry = lambda label: label == 3
        proxy.spoil = refuse
        found = gather(*records(10))
        [failure] = [each for each in found if not isinstance(each, str)]
        assert found[3] is failure
        assert isinstance(failure, SendError)
        assert "SendMessage on" in str(failure)
        assert "not this one" in str(failure)
        assert sorted(sqs.labels) == [n for n in range(10) if n != 3]

    def test_a_request_refused_for_one_message_is_sent_around_it(
        self, sqs: Sqs, proxy: Proxy
    ) -> None:
        def refuse(operation: str, request: dict[str, Any]) -> Answer:
            if operation == "SendMessage" and label(request) == 3:
                return error(400, "InvalidParameterValue", "longer than this queue allows")
            return sqs(operation, request)

        sqs.refuses_request = lambda label: label == 3
        proxy.spoil = refuse
        found = gather(*records(10))
        assert [n for n, each in enumerate(found) if not isinstance(each, str)] == [3]
        assert sorted(sqs.labels) == [n for n in range(10) if n != 3]

    def test_a_failed_request_reaches_exactly_its_callers(self, sqs: Sqs, proxy: Proxy) -> None:
        def fail_one(operation: str, request: dict[str, Any]) -> Answer:
            if operation == "SendMessageBatch" and label(request["Entries"][0]) == 10:
                return error(403, "AccessDenied")
            return sqs(operation, request)

        proxy.spoil = fail_one
        found = gather(*records(30))
        failed = [n for n, each in enumerate(found) if isinstance(each, SendError)]
        assert failed == list(range(10, 20))
        assert len({id(each) for each in found}) == 30
        assert all(each.__cause__ for each in found[10:20] if isinstance(each, SendError))

    def test_a_queue_that_cannot_be_opened_again_fails_for_each(
        self, sqs: Sqs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise SendError("no client")

        monkeypatch.setattr(Queue, "send_together", fail)
        assert len(set(gather(*records(3)))) == 3
        assert len(sqs.requests) == 3


def test_each_call_is_observed_in_its_own_context(sqs_env: Environment, sqs: Sqs) -> None:
    sqs_env(DISPATCH_OBSERVERS="tests.unit.scheduling.test_gathering.Traces")
    SEEN.clear()

    async def schedule(number: int) -> str:
        TRACE.set(str(number))
        return await aschedule_function("jobs", "record", number)

    async def schedule_all() -> list[str]:
        return await asyncio.gather(*map(schedule, range(10)))

    sqs.refuses_entry = lambda label: label == 4
    ids = asyncio.run(schedule_all())
    assert {label(each): body_of(each)["headers"] for each in sqs.entries} == {
        n: {"trace": str(n)} for n in range(10)
    }
    assert sorted(SEEN) == sorted((str(n), ids[n], "sent") for n in range(10))


TRACE: ContextVar[str] = ContextVar("trace")
SEEN: list[tuple[str, str, str]] = []


class Traces(Observer):
    """Sends the trace of the caller, and notes the end in it."""

    @contextmanager
    def publishing(self, publications: Sequence[Publication], queue: str) -> Iterator[None]:
        [publication] = publications
        publication.headers["trace"] = TRACE.get()
        token = TRACE.set("inner")
        yield
        TRACE.reset(token)
        SEEN.append((TRACE.get(), publication.message.id, "sent"))


class TestEnds:
    def test_a_cancelled_call_does_not_disturb_the_others(self, sqs: Sqs) -> None:
        async def schedule_some() -> list[Outcome]:
            tasks = [asyncio.create_task(aschedule_function("jobs", "record", n)) for n in range(4)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.sleep(0)  # now the calls are being sent
            tasks[2].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        found = asyncio.run(schedule_some())
        kinds = [type(each) for each in found]
        assert kinds == [str, asyncio.CancelledError, asyncio.CancelledError, str]
        assert sorted(sqs.labels) == [0, 2, 3]

    def test_a_loop_that_is_closed_meanwhile_loses_no_message(self, sqs: Sqs, proxy: Proxy) -> None:
        is_closed, is_asked = threading.Event(), threading.Event()

        def wait(operation: str, request: dict[str, Any]) -> Answer:
            if operation == "SendMessageBatch":
                is_asked.set()
                is_closed.wait(10)
            return sqs(operation, request)

        proxy.spoil = wait
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(aschedule_function("jobs", "record", n)) for n in range(4)]
        while not is_asked.is_set():
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
        loop.close()
        is_closed.set()
        until(lambda: len(sqs.entries) == 4, 30)
        assert sorted(sqs.labels) == [0, 1, 2, 3]
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_calls_are_sent_while_the_interpreter_ends(
        self, sqs: Sqs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended = ThreadPoolExecutor(1)
        ended.shutdown()
        monkeypatch.setattr(gathering, "sending_executor", lambda: ended)
        assert len(set(gather(*records(3)))) == 3
        assert sqs.labels == [0, 1, 2]

    def test_a_child_forked_in_the_middle_sends_for_itself(self, sqs: Sqs) -> None:
        async def fork() -> int:
            waiting = asyncio.create_task(aschedule_function("jobs", "record", "parent"))
            await asyncio.sleep(0)  # its call waits for the end of this iteration
            child = os.fork()
            if child == 0:
                sent = gather(*(("jobs", Call("record", [n])) for n in range(2)))
                os._exit(0 if {type(each) for each in sent} == {str} else 1)
            await waiting
            return child

        child = asyncio.run(fork())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sorted(map(str, sqs.labels)) == ["0", "1", "parent"]
