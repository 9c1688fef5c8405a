from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase

from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.signals import task_scheduled
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.jobs import calls
from tests.proxy import Answer, Proxy, error

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Requests(list[list[Any]]):
    """The first argument of each call, by request; to be used as a proxy's ``spoil``."""

    def __call__(self, operation: str, request: dict[str, Any]) -> Answer | None:
        if operation == "SendMessageBatch":
            bodies = [json.loads(entry["MessageBody"]) for entry in request["Entries"]]
            self.append([body["args"][0] for body in bodies])
        return None


@pytest.fixture
def requests(sqs_env: Environment, proxy: Proxy) -> Requests:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_ON_COMMIT=True)
    proxy.spoil = found = Requests()
    return found


@pytest.fixture
def announced() -> Iterator[list[str]]:
    found: list[str] = []

    def receiver(task_id: str, **_: Any) -> None:
        found.append(task_id)

    task_scheduled.connect(receiver)
    yield found
    task_scheduled.disconnect(receiver)


def test_what_waits_for_one_commit_goes_in_tens(requests: Requests, announced: list[str]) -> None:
    with transaction.atomic():
        ids = [schedule_function("jobs", "record", n) for n in range(12)]
        ids += schedule_many("jobs", [Call("record", [n]) for n in range(12, 15)])
        assert requests == []
    assert requests == [list(range(10)), list(range(10, 15))]
    assert announced == ids


def test_a_savepoint_that_is_rolled_back_takes_its_calls_with_it(requests: Requests) -> None:
    with transaction.atomic():
        schedule_function("jobs", "record", "before")
        with pytest.raises(KeyError), transaction.atomic():
            schedule_function("jobs", "record", "rolled back")
            with transaction.atomic():
                schedule_function("jobs", "record", "released, and rolled back with the outer one")
            raise KeyError
        with transaction.atomic():
            schedule_function("jobs", "record", "released")
        schedule_function("jobs", "record", "after")
    assert requests == [["before", "released", "after"]]


def test_the_first_call_may_be_the_one_that_is_rolled_back(requests: Requests) -> None:
    with transaction.atomic():
        with pytest.raises(KeyError), transaction.atomic():
            schedule_function("jobs", "record", "rolled back")
            raise KeyError
        schedule_function("jobs", "record", "kept")
    assert requests == [["kept"]]


def test_a_rollback_leaves_nothing_for_the_next_commit(requests: Requests) -> None:
    with pytest.raises(KeyError) as caught, transaction.atomic():
        schedule_function("jobs", "record", "rolled back")
        raise KeyError
    with transaction.atomic():
        schedule_function("jobs", "record", "kept")
    assert requests == [["kept"]]
    assert caught.value.__traceback__ is not None  # its frames held nothing that was sent


def test_each_database_has_its_own_commit(requests: Requests) -> None:
    with transaction.atomic():
        schedule("jobs", Call("record", ["default"]))
        with transaction.atomic(using="other"):
            schedule("jobs", Call("record", ["other"]), on_commit="other")
        assert requests == [["other"]]
    assert requests == [["other"], ["default"]]


def test_each_queue_has_its_own_batches(
    requests: Requests, sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} more={queue_name}-more")
    with transaction.atomic():
        for n, alias in enumerate(("jobs", "more", "jobs")):
            schedule_function(alias, "record", n)
    assert requests == [[0, 2], [1]]


def test_an_order_is_kept_on_a_fifo_queue(
    requests: Requests, sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}.fifo")
    with transaction.atomic():
        for n in range(45):
            schedule("jobs", Call("record", [n], group_id="one"))
    assert [n for request in requests for n in request] == list(range(45))


def test_what_another_callback_commits_is_sent_once(requests: Requests) -> None:
    """A project's callback may use a transaction of its own while ours still wait."""

    def schedule_in_a_transaction() -> None:
        with transaction.atomic():
            schedule_function("jobs", "record", "inner")

    with transaction.atomic():
        transaction.on_commit(schedule_in_a_transaction)
        schedule_function("jobs", "record", "outer")
        transaction.on_commit(schedule_in_a_transaction)
    assert requests == [["inner"], ["outer"], ["inner"]]


def test_an_error_of_another_callback_keeps_nothing_from_being_sent(requests: Requests) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError), transaction.atomic():
        schedule_function("jobs", "record", 1)
        transaction.on_commit(fail)
        schedule_function("jobs", "record", 2)
    assert requests == [[1, 2]]


@pytest.mark.parametrize(("status", "tried"), [(400, [2, 1, 1]), (500, [2, 2, 2])])
def test_each_call_is_tried_by_itself_only_if_sqs_refuses_the_request(
    requests: Requests, proxy: Proxy, caplog: pytest.LogCaptureFixture, status: int,
    tried: list[int],
) -> None:  # fmt: skip
    """A server that does not answer properly would keep the caller waiting once for each call."""
    sizes: list[int] = []
    open_queue("jobs")

    def spoil(operation: str, request: dict[str, Any]) -> Answer:
        sizes.append(len(request["Entries"]))
        return error(status, "Broken")

    proxy.spoil = spoil
    with transaction.atomic():
        ids = [schedule_function("jobs", "record", n) for n in range(2)]
    assert sizes == tried
    lines = [record.getMessage() for record in caplog.records if "not sent" in record.message]
    assert [line.partition(" function=")[0] for line in lines] == [
        f"not sent after its commit id={task_id}" for task_id in ids
    ]


@pytest.mark.parametrize(
    ("code", "at_most"),
    [
        # Five batches at a time, and botocore repeats twice what is throttled.
        ("RequestThrottled", 15), ("ThrottlingException", 15), ("OverLimit", 15),
        ("AccessDenied", 5), ("KmsAccessDenied", 5), ("ExpiredToken", 5),
        ("SignatureDoesNotMatch", 5), ("AWS.SimpleQueueService.NonExistentQueue", 5),
        ("QueueDoesNotExist", 5),
    ],
)  # fmt: skip
def test_an_error_that_is_not_of_one_message_ends_the_requests_of_a_commit(
    requests: Requests, proxy: Proxy, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, code: str, at_most: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0
    )
    open_queue("jobs")
    proxy.counts.clear()
    proxy.spoil = lambda operation, request: error(400, code)
    with transaction.atomic():
        for n in range(50):
            schedule_function("jobs", "record", n)
    assert 1 <= proxy.counts["SendMessageBatch"] <= at_most
    assert sum("not sent after its commit" in line for line in caplog.messages) == 50


@pytest.mark.parametrize(("code", "tried"), [("ExpiredToken", 1), ("AccessDenied", 2)])
def test_what_concerns_everybody_keeps_a_commit_from_trying_further_queues(
    requests: Requests, proxy: Proxy, sqs_env: Environment, queue_name: str,
    caplog: pytest.LogCaptureFixture, code: str, tried: int,
) -> None:  # fmt: skip
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} more={queue_name}-more")
    for each in ("jobs", "more"):
        open_queue(each)
    proxy.spoil = lambda operation, request: error(403, code)
    with transaction.atomic():
        for each in ("jobs", "more"):
            schedule_function(each, "record", each)
    assert proxy.counts["SendMessageBatch"] == tried
    lines = [line for line in caplog.messages if "not sent after its commit" in line]
    assert [f"queue={each}" in line for each, line in zip(("jobs", "more"), lines, strict=True)]
    assert all(code in line for line in lines)


def test_messages_are_sent_one_by_one_only_until_sqs_gives_another_reason(
    requests: Requests, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    def spoil(operation: str, request: dict[str, Any]) -> Answer:
        sizes.append(len(request["Entries"]))
        return error(400, "InvalidMessageContents" if len(sizes) < 3 else "AccessDenied")

    open_queue("jobs")
    proxy.spoil = spoil
    with transaction.atomic():
        for n in range(5):
            schedule_function("jobs", "record", n)
    assert sizes == [5, 1, 1]
    reasons = [line.partition("error=")[2] for line in caplog.messages if "not sent" in line]
    assert ["AccessDenied" in each for each in reasons] == [False, True, True, True, True]


def test_tasks_that_run_here_run_in_the_order_of_their_calls(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_ON_COMMIT=True, DISPATCH_QUEUES=None)
    calls.clear()
    with transaction.atomic():
        for n, queue in enumerate(("one", "two", "one")):
            schedule_function(queue, "record", n)
    assert calls == [((0,), {}), ((1,), {}), ((2,), {})]


class TestInATestCase(TestCase):
    """Django runs no callback there, but captureOnCommitCallbacks does."""

    @pytest.fixture(autouse=True)
    def _requests(self, requests: Requests) -> None:
        self.requests = requests

    def test_only_what_was_scheduled_in_the_block_is_sent(self) -> None:
        schedule_function("jobs", "record", "before")
        with self.captureOnCommitCallbacks(execute=True):
            schedule_function("jobs", "record", 1)
            schedule_function("jobs", "record", 2)
        with self.captureOnCommitCallbacks(execute=True):
            schedule_function("jobs", "record", 3)
        assert self.requests == [[1, 2], [3]]


def test_a_message_is_complete(requests: Requests) -> None:
    with transaction.atomic():
        task_id = schedule_function("jobs", "record", 1, a="b")
    queue = open_queue("jobs")
    (received,) = queue.receive(count=1, wait=0, visibility=30)
    message = Message.decode(received.body, queue=queue.name)
    assert (message.id, message.args, message.kwargs) == (task_id, [1], {"a": "b"})
