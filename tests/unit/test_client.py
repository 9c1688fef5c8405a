from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction

from beanstalk_dispatch.client import (
    Call,
    aschedule,
    aschedule_function,
    aschedule_many,
    batching,
    schedule,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import (
    BatchError,
    InvalidArgument,
    InvalidCall,
    MessageTooLarge,
    SendError,
    UnknownFunction,
    UnknownQueue,
)
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.definitions.options import apply_received_options
from beanstalk_dispatch.safe_task import RETRY_LIMIT, SafeTask
from beanstalk_dispatch.scheduling.prepare import prepare_calls
from beanstalk_dispatch.signals import task_scheduled
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue
from beanstalk_dispatch.testing import capture_tasks
from tests import jobs
from tests.conftest import Environment
from tests.jobs import calls
from tests.proxy import Answer, Proxy, error


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def bodies(alias: str = "jobs") -> list[str]:
    queue = open_queue(alias)
    return [each.body for each in queue.receive(count=10, wait=0, visibility=30)]


def messages(alias: str = "jobs", **options: Any) -> list[Message]:
    name = open_queue(alias).name
    return [Message.decode(body, queue=name, **options) for body in bodies(alias)]


def test_a_function_is_scheduled_by_name(sqs_env: Environment) -> None:
    before = time.time()
    task_id = schedule_function("jobs", "record", 1, "two", queue="mine", function="too")
    (message,) = messages()
    assert message.id == task_id
    assert message.function == "record"
    assert message.args == [1, "two"]
    assert message.kwargs == {"queue": "mine", "function": "too"}
    assert message.sent_at is not None
    assert before - 1 < message.sent_at < time.time() + 1


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (jobs.record, "record"),
        (jobs.Recorder, "recorder"),
        (jobs.Recorder(), "recorder"),
        (SafeTask(jobs.record), "record"),
        (jobs.Holder.method, "method"),
    ],
)
def test_a_function_is_scheduled_by_itself(sqs_env: Environment, function: Any, name: str) -> None:
    table = "record=tests.jobs.record recorder=tests.jobs.Recorder method=tests.jobs.Holder.method"
    sqs_env(DISPATCH_TABLE=table)
    schedule_function("jobs", function)
    assert [message.function for message in messages()] == [name]


def test_an_instances_own_options_travel(sqs_env: Environment) -> None:
    task = SafeTask(jobs.record, timeout_timedelta=timedelta(seconds=30), max_retries=2)
    schedule_function("jobs", task, 5)
    (message,) = messages()
    assert message.options == {"timeout": 30.0, "max_retries": 2}


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("unlisted", "'unlisted' is not in BEANSTALK_DISPATCH_TABLE; known: record"),
        (jobs.fail, "no name in BEANSTALK_DISPATCH_TABLE stands for tests.jobs.fail"),
        (lambda: None, r"stands for tests\.unit\.test_client\.<lambda>; .*; a worker finds"),
        (partial(jobs.fail), "stands for a partial; .*, so write one in a module"),
        (5, r"expected a function, or its name in .*, not 5; write schedule_function\(queue"),
        (
            "jobs",
            r"'jobs' is a queue, and not in .*; write schedule_function\(queue, function",
        ),
    ],
)
def test_a_function_the_table_does_not_list_is_refused(
    sqs_env: Environment, function: Any, named: str
) -> None:
    sqs_env(DISPATCH_TABLE="record=tests.jobs.record")
    with pytest.raises(UnknownFunction, match=named):
        schedule_function("jobs", function)
    assert bodies() == []


def test_a_role_that_may_not_send_is_a_send_error(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: (
        error(403, "AccessDenied", "no identity-based policy allows the sqs:SendMessage action")
        if operation == "SendMessage"
        else None
    )
    with pytest.raises(SendError, match="AccessDenied: .* allows the sqs:SendMessage action"):
        schedule_function("jobs", "record", 7)


def test_a_task_is_a_plain_function_and_not_one_of_celerys(sqs_env: Environment) -> None:
    task: Any = jobs.record
    with pytest.raises(AttributeError, match="'function' object has no attribute 'delay'"):
        task.delay(7)
    schedule_function("jobs", "record", 7)
    assert [message.args for message in messages()] == [[7]]


def test_arguments_are_checked_before_the_first_request(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:9")
    with pytest.raises(InvalidArgument, match="datetime is not JSON"):
        schedule_function("jobs", "record", datetime.now(UTC))


def test_without_a_table_any_name_is_sent(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_TABLE=None)
    schedule_function("jobs", "whatever")
    assert [message.function for message in messages()] == ["whatever"]
    with pytest.raises(
        UnknownFunction,
        match="known: none; add tests.jobs.record to BEANSTALK",
    ):
        schedule_function("jobs", jobs.record)


def test_bad_arguments_send_nothing(sqs_env: Environment) -> None:
    with pytest.raises(InvalidArgument, match=r"record: kwargs\['when'\]: timedelta"):
        schedule_function("jobs", "record", when=timedelta(1))
    with pytest.raises(TypeError):
        schedule_function("jobs", "record", {1, 2})
    with pytest.raises(MessageTooLarge):
        schedule_function("jobs", "record", "x" * 1_100_000)
    assert bodies() == []


@pytest.mark.parametrize(
    "call",
    [
        Call("record", "text"),
        Call("record", b"text"),
        Call("record", {"a": 1}),  # type: ignore[arg-type]
        Call("record", [], [1]),  # type: ignore[arg-type]
        Call("record", delay=-1),
        Call("record", delay=float("nan")),
        Call("record", delay=True),
        Call("record", delay="5"),  # type: ignore[arg-type]
        Call("record", delay=2**40),
        Call("record", delay=timedelta(days=401)),
        Call("record", group_id="a b"),
        Call("record", deduplication_id="d"),
    ],
)
def test_a_bad_call_sends_nothing(sqs_env: Environment, call: Call) -> None:
    with pytest.raises(InvalidCall):
        schedule_many("jobs", [Call("record"), call])
    assert bodies() == []


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 256])
def test_a_name_that_no_worker_would_take_sends_nothing(sqs_env: Environment, name: str) -> None:
    sqs_env(DISPATCH_TABLE=None)
    with pytest.raises(InvalidCall, match="is not a string of 1 to 255 printable characters"):
        schedule("jobs", Call(name))
    assert bodies() == []


def test_a_send_looks_for_its_queue_once(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Queue] = []
    is_usable = Queue.is_usable

    def counted(queue: Queue, config: Config) -> bool:
        asked.append(queue)
        return is_usable(queue, config)

    schedule_function("jobs", "record", 5)
    monkeypatch.setattr(Queue, "is_usable", counted)
    schedule_function("jobs", "record", 5)
    schedule_many("jobs", [Call("record"), Call("record")])
    assert len(asked) == 2


def test_an_unknown_queue_is_an_error(sqs_env: Environment) -> None:
    with pytest.raises(UnknownQueue):
        schedule_function("mail", "record")


@pytest.mark.parametrize("queue", [["mail", "jobs"], None])
@pytest.mark.parametrize("aliases", ["jobs=jobs", None])
def test_a_queue_that_is_no_string_is_an_error_that_shows_it(
    queue: Any, aliases: str | None, env: Environment
) -> None:
    env(DISPATCH_QUEUES=aliases, DISPATCH_TABLE="record=tests.jobs.record")
    says = re.escape(f"{queue!r} is not the name of a queue; write one string")
    for schedules in (
        lambda: schedule_function(queue, "record"),
        lambda: schedule_many(queue, [Call("record")]),
        lambda: async_to_sync(aschedule_function)(queue, "record"),
        batching(queue).__enter__,
    ):
        with pytest.raises(UnknownQueue, match=says):
            schedules()


@pytest.mark.slow
def test_a_delay_hides_the_message(sqs_env: Environment) -> None:
    schedule("jobs", Call("record", delay=timedelta(seconds=1)))
    assert bodies() == []
    deadline = time.monotonic() + 10
    while not (found := messages()):
        assert time.monotonic() < deadline
    assert found[0].not_before is None


@pytest.mark.parametrize(
    ("delay", "seconds"), [(0.2, 1), (timedelta(milliseconds=7001), 8), (7, 7)]
)
def test_a_call_is_never_early(
    sqs_env: Environment, proxy: Proxy, delay: float | timedelta, seconds: int
) -> None:
    """SQS takes whole seconds."""
    requests: list[dict[str, Any]] = []
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: requests.append(request)
    schedule("jobs", Call("record", delay=delay))
    assert requests[-1]["DelaySeconds"] == seconds


def test_a_delay_beyond_sqs_travels_in_the_message(sqs_env: Environment, proxy: Proxy) -> None:
    requests: list[dict[str, Any]] = []
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: requests.append(request)
    schedule("jobs", Call("record", delay=3600))
    assert requests[-1]["DelaySeconds"] == 900
    body = json.loads(requests[-1]["MessageBody"])
    assert body["not_before"] == pytest.approx(time.time() + 3600, abs=10)


def test_signed_messages_verify(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS="the-new-signing-key the-old-signing-key")
    schedule_function("jobs", "record")
    assert len(messages(keys=["the-new-signing-key"])) == 1


def test_legacy_messages_are_0_1s_and_have_sqss_id(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_MESSAGE_FORMAT="base64")
    task_id = schedule_function("jobs", "record", "1", kwarg1=1)
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=30)
    body = json.loads(base64.b64decode(received.body))
    assert body == {"function": "record", "args": ["1"], "kwargs": {"kwarg1": 1}}
    assert received.message_id == task_id
    (many_id,) = schedule_many("jobs", [Call("record")])
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=30)
    assert received.message_id == many_id
    with pytest.raises(InvalidCall, match="too early"):
        schedule("jobs", Call("record", delay=1000))


def test_many_are_sent_in_order_and_in_few_requests(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    ids = schedule_many("jobs", [Call("record", [i]) for i in range(25)])
    assert proxy.counts["SendMessageBatch"] == 3
    found = [message for _ in range(3) for message in messages()]
    assert {message.id: message.args for message in found} == {
        task_id: [i] for i, task_id in enumerate(ids)
    }
    assert schedule_many("jobs", []) == []


def test_what_was_not_sent_is_told(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    announced: list[str] = []

    def scheduled(task_id: str, **kwargs: Any) -> None:
        announced.append(task_id)

    def spoil(operation: str, request: dict[str, Any]) -> Any:
        entries = request.get("Entries")
        return error(400, "AccessDenied") if entries and entries[0]["Id"] == "10" else None

    proxy.spoil = spoil
    task_scheduled.connect(scheduled)
    try:
        with pytest.raises(BatchError, match="2 of 12 messages were not sent") as caught:
            schedule_many("jobs", [Call("record", [i]) for i in range(12)])
    finally:
        task_scheduled.disconnect(scheduled)
    assert sorted(caught.value.unsent) == [10, 11]
    assert list(caught.value.sent) == list(range(10))
    assert announced == list(caught.value.sent.values())


def test_a_batch_error_can_be_pickled() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BatchError(sent={0: "a"}, unsent={1: "no"})))
    assert (error.sent, error.unsent) == ({0: "a"}, {1: "no"})


def test_scheduling_sends_a_signal(sqs_env: Environment) -> None:
    seen: list[dict[str, Any]] = []

    def scheduled(**kwargs: Any) -> None:
        seen.append(kwargs)

    task_scheduled.connect(scheduled)
    try:
        task_id = schedule_function("jobs", "record")
    finally:
        task_scheduled.disconnect(scheduled)
    assert {name: seen[0][name] for name in ("task_id", "function", "queue")} == {
        "task_id": task_id,
        "function": "record",
        "queue": "jobs",
    }


def test_the_awaitable_twins_do_the_same(sqs_env: Environment) -> None:
    async def all_three() -> list[str]:
        first = await aschedule_function("jobs", "record", 1)
        second = await aschedule("jobs", Call("record", [2]))
        return [first, second, *await aschedule_many("jobs", [Call("record", [3])])]

    ids = asyncio.run(all_three())
    assert {message.id for message in messages()} == set(ids)


# --- transactions ---


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestOnCommit:
    @pytest.mark.parametrize(("option", "alias"), [(True, "default"), ("other", "other")])
    def test_sent_after_commit(self, sqs_env: Environment, option: Any, alias: str) -> None:
        with transaction.atomic(using=alias):
            task_id = schedule("jobs", Call("record"), on_commit=option)
            many = schedule_many("jobs", [Call("record")], on_commit=option)
            assert bodies() == []
        assert {message.id for message in messages()} == {task_id, *many}

    def test_not_sent_after_a_rollback(self, sqs_env: Environment) -> None:
        sqs_env(DISPATCH_ON_COMMIT=True)
        with pytest.raises(KeyError), transaction.atomic():
            schedule_function("jobs", "record")
            raise KeyError
        assert bodies() == []

    def test_configured_for_all_and_switched_off_for_one(self, sqs_env: Environment) -> None:
        sqs_env(DISPATCH_ON_COMMIT=True)
        with transaction.atomic():
            schedule_function("jobs", "record", "later")
            schedule("jobs", Call("record", ["now"]), on_commit=False)
            assert [message.args for message in messages()] == [["now"]]
        assert [message.args for message in messages()] == [["later"]]

    def test_one_that_cannot_be_sent_keeps_none_from_being_sent(
        self, sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_ON_COMMIT=True)
        refused: list[int] = []

        def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
            if "refuse-me" in json.dumps(request):
                refused.append(len(request["Entries"]))
                return error(400, "InvalidMessageContents")
            return None

        proxy.spoil = spoil
        after: list[str] = []
        with transaction.atomic():
            lost = schedule_function("jobs", "record", "refuse-me")
            also = schedule_many("jobs", [Call("record", ["refuse-me"])])
            sent = schedule_function("jobs", "record")
            transaction.on_commit(lambda: after.append("the project's own"))
        assert after
        assert refused == [3, 1, 1]  # together, and then each of the two by itself
        assert [message.id for message in messages()] == [sent]
        for task_id in (lost, *also):
            assert f"not sent after its commit id={task_id} function=record queue=jobs" in (
                caplog.text
            )

    def test_a_queue_that_is_gone_is_told_too(
        self, sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
        with transaction.atomic():
            task_id = schedule("jobs", Call("record"), on_commit=True)
            queue = open_queue("jobs")
            queue.client.delete_queue(QueueUrl=queue.url)
        assert f"not sent after its commit id={task_id}" in caplog.text

    def test_no_error_at_all_keeps_others_from_the_commit(
        self, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        def broken(*args: Any) -> None:
            raise OSError("no sockets left")

        after: list[str] = []
        with transaction.atomic():
            task_id = schedule("jobs", Call("record"), on_commit=True)
            transaction.on_commit(lambda: after.append("the project's own"))
            monkeypatch.setattr(Queue, "send_batch", broken)
        assert after
        assert (
            f"commit id={task_id} function=record queue=jobs error=no sockets left" in caplog.text
        )

    def test_outside_of_a_transaction_an_error_is_raised(
        self, sqs_env: Environment, proxy: Proxy
    ) -> None:
        sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_ON_COMMIT=True)
        schedule_function("jobs", "record")
        proxy.spoil = lambda operation, request: error(403, "AccessDenied")
        with pytest.raises(SendError):
            schedule_function("jobs", "record")

    def test_without_autocommit_there_is_no_commit_to_wait_for(self, sqs_env: Environment) -> None:
        transaction.set_autocommit(False)
        try:
            with pytest.raises(transaction.TransactionManagementError):
                schedule("jobs", Call("record"), on_commit=True)
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_a_database_that_does_not_answer_is_not_asked_for_its_transaction(
        self, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection.close()
        monkeypatch.setattr(connection, "connect", lambda: pytest.fail("it has connected"))
        assert schedule("jobs", Call("record"), on_commit=True)

    def test_bad_arguments_are_told_at_once(self, sqs_env: Environment) -> None:
        with transaction.atomic(), pytest.raises(InvalidArgument):
            schedule("jobs", Call("record", [object()]), on_commit=True)


# --- eager mode ---


@pytest.fixture
def eager(env: Environment) -> Environment:
    env(
        DISPATCH_EXECUTE_SYNCHRONOUSLY=True,
        DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail flaky=tests.jobs.Flaky "
        "retry=tests.jobs.AlwaysRetry broken=tests.nowhere.f",
    )
    return env


@pytest.mark.parametrize("variables", [{}, {"DISPATCH_SIGNING_KEYS": "a-key-of-the-tests"},
                                       {"DISPATCH_MESSAGE_FORMAT": "base64"}])  # fmt: skip
def test_eager_tasks_run_here_through_the_same_encoding(
    eager: Environment, variables: dict[str, str]
) -> None:
    eager(**variables)
    schedule_function("any-queue", "record", [1], a="b")
    assert calls == [(([1],), {"a": "b"})]


def test_eager_delays_are_not_waited_for(eager: Environment) -> None:
    schedule_many("q", [Call("record", [1], delay=5), Call("record", [2], delay=5000)])
    assert calls == [((1,), {}), ((2,), {})]


def test_where_the_address_says_it_a_signed_message_says_its_queues_place(
    eager: Environment,
) -> None:
    arn = "arn:aws:sqs:eu-west-1:123456789012:q"
    eager(DISPATCH_SIGNING_KEYS="a-key-of-the-tests", DISPATCH_QUEUES=f"jobs={arn}")
    _, [prepared] = prepare_calls("jobs", [Call("record")], get_config(), is_local=True)
    assert '"location":"eu-west-1/123456789012"' in prepared.body
    schedule_function("jobs", "flaky")  # its retries are signed, too
    assert calls == [("flaky", 1), ("flaky", 2), ("flaky", 3)]


def test_eager_retries_run_at_once(eager: Environment) -> None:
    schedule_function("q", "flaky")
    assert calls == [("flaky", 1), ("flaky", 2), ("flaky", 3)]
    calls.clear()
    schedule_function("q", "retry")
    assert len(calls) == RETRY_LIMIT + 1


def test_eager_failures_are_logged_not_raised(
    eager: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    schedule_function("q", "fail", "told to")
    assert "told to" in caplog.text
    assert "outcome=failed" in caplog.text


def test_eager_functions_that_cannot_run_raise(eager: Environment) -> None:
    with pytest.raises(UnknownFunction, match="Unable to locate function: tests.nowhere.f"):
        schedule_function("q", "broken")


def test_any_mapping_and_any_iterable_will_do(sqs_env: Environment) -> None:
    schedule("jobs", Call("record", iter([1]), MappingProxyType({"a": 2})))  # type: ignore[arg-type]
    (message,) = messages()
    assert (message.args, message.kwargs) == ([1], {"a": 2})


def test_options_that_no_worker_would_take_are_told_here(sqs_env: Environment) -> None:
    wrong: list[dict[str, Any]] = [
        {"timeout_timedelta": timedelta(days=1)}, {"timeout_timedelta": 1e-9},
        {"timeout_timedelta": float("nan")}, {"retry_backoff": timedelta(hours=13)},
        {"max_retries": -1}, {"verbose": 1},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(InvalidCall, match=f"option {next(iter(options))}: "):
            schedule_function("jobs", SafeTask(jobs.record, **options))
    fine: list[dict[str, Any]] = [
        {"retry_backoff": timedelta(0)}, {"retry_backoff": 0}, {"timeout_timedelta": "5m"},
        {"timeout_timedelta": 1e-05},
    ]  # fmt: skip
    for options in fine:
        schedule_function("jobs", SafeTask(jobs.record, **options))
    got = [message.options for message in messages()]
    assert sorted(map(str, got)) == sorted(
        map(str, [{"retry_backoff": 0.0}, {"retry_backoff": 0.0}, {"timeout": 300.0},
                  {"timeout": 1e-05}])
    )  # fmt: skip
    for each in got:
        apply_received_options(SafeTask(), each)


def test_a_safetask_that_cannot_be_imported_keeps_no_message_back(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """A web process may lack what a worker needs."""
    sqs_env(DISPATCH_SAFE_TASK="nowhere.Task")
    assert schedule_function("jobs", "record", 1)
    assert (
        "could not be loaded; tasks are not observed error=BEANSTALK_DISPATCH_SAFE_TASK: cannot"
        in caplog.text
    )
    (received,) = open_queue("jobs").receive(count=1, wait=1, visibility=30)
    assert Message.decode(received.body, queue="").function == "record"


def test_one_call_is_not_several(sqs_env: Environment) -> None:
    one: Any = Call("record")
    with pytest.raises(
        InvalidCall, match=r"write schedule_many\(queue, \[Call\('name', \[1\]\)\]\)"
    ):
        schedule_many("jobs", one)


def test_headers_travel_with_the_message(sqs_env: Environment) -> None:
    with capture_tasks() as tasks:
        schedule("jobs", Call("record", headers={"tenant": "one"}))
    assert tasks[0].message.headers == {"tenant": "one"}
    wrong: Any
    for wrong in ({"tenant": 1}, ["tenant"]):
        with pytest.raises(InvalidCall, match="headers is a mapping of strings to strings"):
            schedule("jobs", Call("record", headers=wrong))


@pytest.mark.parametrize("sent_at", ["yesterday", -1, math.nan, True, datetime(2026, 1, 2)])
def test_a_moment_of_scheduling_that_no_worker_accepts_is_refused(
    sqs_env: Environment, sent_at: Any
) -> None:
    with pytest.raises(InvalidCall, match=r"sent_at .* is not a moment in Unix seconds, as moment"):
        schedule("jobs", Call("record", sent_at=sent_at))
