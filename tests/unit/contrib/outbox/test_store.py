from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.db import connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from beanstalk_dispatch.client import (
    Call,
    aschedule_function,
    cancel,
    schedule,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.outbox.claims import claim
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.contrib.outbox.rows import to_prepared
from beanstalk_dispatch.contrib.outbox.sender import SENDER
from beanstalk_dispatch.contrib.results import get_result
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall, SendError
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.observers import Observer, RunView
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.scheduling import outbox
from beanstalk_dispatch.scheduling.destination import resolve
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment
from tests.jobs import calls
from tests.recording_sqs import Sqs, body_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def stored(database: str = "default") -> list[Any]:
    rows = OutboxMessage.objects.using(database).order_by("id")
    return [json.loads(row.body)["args"][0] for row in rows]


def test_a_call_is_stored_in_the_callers_transaction_and_sent_after_its_commit(sqs: Sqs) -> None:
    with transaction.atomic():
        task_id = schedule_function("jobs", "record", "one")
        assert stored() == ["one"]
        assert sqs.requests == []
    assert SENDER.flush(30)
    assert [body_of(entry)["id"] for entry in sqs.entries] == [task_id]
    assert stored() == []


def test_what_is_rolled_back_is_neither_stored_nor_sent(sqs: Sqs) -> None:
    with transaction.atomic():
        schedule_function("jobs", "record", "kept")
        with pytest.raises(KeyError), transaction.atomic():
            schedule_function("jobs", "record", "rolled back")
            raise KeyError
    assert SENDER.flush(30)
    assert (sqs.labels, stored()) == (["kept"], [])


def test_without_a_transaction_a_call_is_sent_at_once(sqs: Sqs) -> None:
    schedule_function("jobs", "record", 1)
    assert SENDER.flush(30)
    assert (sqs.labels, stored()) == ([1], [])


def test_many_calls_are_one_insert(sqs: Sqs, no_sender: None) -> None:
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        ids = schedule_many("jobs", [Call("record", [n]) for n in range(50)])
    assert len(queries) == 1
    assert [row.task_id for row in OutboxMessage.objects.order_by("id")] == ids
    Relay().send_available()
    assert sorted(sqs.labels) == list(range(50))
    assert len(sqs.requests) == 5


def test_a_call_is_stored_as_each_of_several_is(sqs: Sqs, no_sender: None) -> None:
    call = Call("record", ["é %s"], {"a": 1}, group_id="g", delay=60)
    schedule("jobs", call)
    schedule_many("jobs", [call, call])
    of_each_row = {"id", "task_id", "body", "created_at", "available_at", "due_at"}
    rows: Any = list(OutboxMessage.objects.order_by("id").values())
    alone, together, _ = (
        {name: value for name, value in row.items() if name not in of_each_row} for row in rows
    )
    assert alone == together
    assert rows[1]["due_at"] - rows[0]["due_at"] < timedelta(seconds=30)
    assert stored() == ["é %s"] * 3


def test_a_call_that_is_not_stored_rolls_the_transaction_back(sqs: Sqs, no_table: None) -> None:
    with pytest.raises(TransactionManagementError), transaction.atomic():
        with pytest.raises(SendError):
            schedule_function("jobs", "record", 1)
        OutboxMessage.objects.exists()


def test_no_request_is_made_at_the_call(sqs: Sqs, no_sender: None) -> None:
    """SQS may not answer now; so even the queue's URL is looked up later."""
    sqs.is_down = True
    schedule_function("jobs", "record", 1)
    assert stored() == [1]


def test_a_row_holds_no_signature_and_what_is_sent_is_signed(
    sqs: Sqs, sqs_env: Environment, no_sender: None
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS="a-key-of-16-chars")
    schedule_function("jobs", "record", 1)
    (row,) = OutboxMessage.objects.all()
    assert row.body.endswith("}")
    assert "1" not in str(row).partition(" ")[0]
    Relay().send_available()
    assert not sqs.entries[0]["MessageBody"].endswith("}")


def test_a_row_has_the_id_that_a_body_in_base64_has_not(
    sqs: Sqs, sqs_env: Environment, no_sender: None
) -> None:
    sqs_env(DISPATCH_MESSAGE_FORMAT="base64")
    task_id = schedule_function("jobs", "record", 1)
    (row,) = OutboxMessage.objects.all()
    assert (row.task_id, json.loads(row.body)["id"]) == (task_id, task_id)
    prepared = to_prepared(row, resolve(row.queue, get_config()), now=timezone.now())
    assert json.loads(base64.b64decode(prepared.body)) == {
        "function": "record", "args": [1], "kwargs": {},
    }  # fmt: skip


@pytest.mark.parametrize("keys", ["", "a-key-of-16-chars"])
def test_a_message_is_encoded_once_to_be_stored(
    sqs: Sqs, sqs_env: Environment, no_sender: None, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=keys)
    encoded: list[str] = []
    write = Message.write

    def counted(message: Message, **parameters: Any) -> str:
        encoded.append(message.id)
        return write(message, **parameters)

    monkeypatch.setattr(Message, "write", counted)
    ids = schedule_many("jobs", [Call("record", [n]) for n in range(3)])
    assert encoded == ids
    assert stored() == [0, 1, 2]


def test_another_database_has_an_outbox_of_its_own(sqs: Sqs, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_OUTBOX_DATABASES="default other")
    with transaction.atomic(using="other"):
        schedule("jobs", Call("record", ["other"]), on_commit="other")
        assert (stored(), stored("other")) == ([], ["other"])
    assert SENDER.flush(30)
    assert (sqs.labels, stored("other")) == (["other"], [])


@pytest.mark.parametrize("alias", ["other", ""])
def test_a_database_without_an_outbox_is_an_error_at_the_call(sqs: Sqs, alias: str) -> None:
    with pytest.raises(InvalidCall, match=f"'{alias}' has no outbox.*lists default"):
        schedule("jobs", Call("record", [1]), on_commit=alias)


def test_a_call_that_asks_for_it_is_sent_at_once(sqs: Sqs, sqs_env: Environment) -> None:
    with transaction.atomic():
        schedule_many("jobs", [Call("record", [1])], on_commit=False)
        assert (sqs.labels, stored()) == ([1], [])


def test_what_the_database_does_not_take_is_an_error_at_the_call(sqs: Sqs, no_table: None) -> None:
    with pytest.raises(
        SendError, match="'default' does not take the message: OperationalError: no"
    ):
        schedule_function("jobs", "record", "a-secret")


def test_without_the_app_a_call_is_an_error(sqs: Sqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_registered", None)
    with pytest.raises(ConfigurationError, match="'beanstalk_dispatch.contrib.outbox' is not in"):
        schedule_function("jobs", "record", 1)


def test_a_coroutine_stores_in_the_thread_of_the_database(sqs: Sqs, no_sender: None) -> None:
    async def schedule_two() -> None:
        await asyncio.gather(*(aschedule_function("jobs", "record", n) for n in range(2)))

    asyncio.run(schedule_two())
    assert sorted(stored()) == [0, 1]


def test_tasks_that_run_here_wait_for_the_commit_and_are_not_stored(
    sqs: Sqs, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    calls.clear()
    with transaction.atomic():
        schedule_function("jobs", "record", 1)
        assert (calls, stored()) == ([], [])
    assert calls == [((1,), {})]


def test_captured_tasks_are_not_stored(sqs: Sqs) -> None:
    with capture_tasks() as tasks:
        schedule_function("jobs", "record", 1)
    tasks.assert_scheduled("jobs", "record", 1)
    assert stored() == []


class Traced(Observer):
    """Gives each message a header."""

    def publishing(self, publications: Any, queue: str) -> Any:
        for each in publications:
            each.headers["trace"] = queue
        return super().publishing(publications, queue)


class TracedTask(SafeTask):
    observers = (Traced(),)


def test_observers_see_the_call_that_stores_and_not_the_sending(
    sqs: Sqs, sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_SAFE_TASK=f"{__name__}.TracedTask")
    with transaction.atomic():
        schedule_function("jobs", "record", 1)
        row = OutboxMessage.objects.get()
    assert json.loads(row.body)["headers"] == {"trace": queue_name}
    assert SENDER.flush(30)
    assert body_of(sqs.entries[0])["headers"] == {"trace": queue_name}


def test_a_message_that_headers_make_too_large_is_stored_and_sent_without(
    sqs: Sqs, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_SAFE_TASK=f"{__name__}.TracedTask")
    call = Call("record", ["x" * (MAX_MESSAGE_BYTES - 150)], headers={"own": "kept"})
    schedule("jobs", call)
    assert SENDER.flush(30)
    assert body_of(sqs.entries[0])["headers"] == {"own": "kept"}
    assert stored() == []


# --- on-failure ------------------------------------------------------------------------------


@pytest.fixture
def on_failure(sqs: Sqs, sqs_env: Environment, no_sender: None) -> Sqs:
    sqs_env(DISPATCH_OUTBOX="on-failure", DISPATCH_ON_COMMIT=True)
    open_queue("jobs")
    return sqs


def test_nothing_is_stored_while_sqs_answers(on_failure: Sqs) -> None:
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        schedule_function("jobs", "record", 1)
    assert [query["sql"] for query in queries] == ["BEGIN", "COMMIT"]
    assert (on_failure.labels, stored()) == ([1], [])


def test_what_cannot_be_sent_after_its_commit_is_kept(
    on_failure: Sqs, caplog: pytest.LogCaptureFixture
) -> None:
    on_failure.is_down = True
    with transaction.atomic():
        ids = [schedule_function("jobs", "record", n) for n in range(2)]
    assert stored() == [0, 1]
    assert "ServiceUnavailable" in OutboxMessage.objects.all()[0].error
    assert f"kept in the outbox id={ids[0]} function=record" in caplog.text
    on_failure.is_down = False
    Relay().send_available()
    assert (sorted(on_failure.labels), stored()) == ([0, 1], [])


def test_what_waits_for_a_database_without_an_outbox_is_kept_in_the_first(on_failure: Sqs) -> None:
    on_failure.is_down = True
    with transaction.atomic(using="other"):
        schedule("jobs", Call("record", [1]), on_commit="other")
    assert stored() == [1]


def test_what_cannot_be_kept_either_is_logged(
    on_failure: Sqs, no_table: None, caplog: pytest.LogCaptureFixture
) -> None:
    on_failure.is_down = True
    with transaction.atomic():
        task_id = schedule_function("jobs", "record", 1)
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert line.startswith(f"not sent after its commit id={task_id} function=record queue=jobs")
    assert "ServiceUnavailable" in line
    assert "the outbox does not take it either: OperationalError" in line


def test_without_the_app_it_is_logged(
    on_failure: Sqs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_failure.is_down = True
    monkeypatch.setattr(outbox, "_registered", None)
    with transaction.atomic():
        task_id = schedule_function("jobs", "record", 1)
    assert f"not sent after its commit id={task_id}" in caplog.text


@pytest.mark.parametrize(("alias", "sent"), [("jobs", [0, 2]), ("fifo", [0])])
def test_a_message_that_is_kept_is_not_overtaken_by_its_fifo_group(
    on_failure: Sqs, alias: str, sent: list[int]
) -> None:
    on_failure.refuses_request = lambda label: label == 1
    group = "g" if alias == "fifo" else None
    with transaction.atomic():
        schedule_many(alias, [Call("record", [n], group_id=group) for n in range(3)])
    assert on_failure.labels == sent
    assert stored() == [n for n in range(3) if n not in sent]


# --- cancelled before it is sent -------------------------------------------------------------


class Ends(Observer):
    """Sees the ends of tasks that do not run."""

    seen: ClassVar[list[tuple[str, str]]] = []

    @contextmanager
    def cancelling(self, delivery: RunView) -> Iterator[None]:
        assert delivery.message
        self.seen.append((delivery.message.id, str(delivery.exception)))
        yield


@pytest.mark.parametrize("table", ["record=tests.jobs.record", None])
def test_a_cancelled_call_of_a_later_time_is_deleted_and_its_end_is_seen(
    sqs: Sqs, sqs_env: Environment, table: str | None
) -> None:
    sqs_env(DISPATCH_TABLE=table, DISPATCH_OBSERVERS=f"{__name__}.Ends", DISPATCH_RESULTS="db")
    Ends.seen.clear()
    task_id = schedule("jobs", Call("record", ["later"], delay=timedelta(days=30)))
    with transaction.atomic():
        cancel(task_id)
        assert Ends.seen == []
    assert Ends.seen == [(task_id, "it was cancelled before it was sent")]
    result = get_result(task_id)
    assert (stored(), result.status, result.attempts) == ([], "FAILED", 0)
    with pytest.raises(ConfigurationError, match="LEASE_CACHE is not set"):
        cancel(task_id)


def test_a_cancel_in_a_transaction_that_is_rolled_back_is_none(sqs: Sqs) -> None:
    task_id = schedule("jobs", Call("record", ["later"], delay=timedelta(days=30)))
    with transaction.atomic():
        cancel(task_id)
        transaction.set_rollback(True)
    assert stored() == ["later"]


@pytest.mark.usefixtures("no_sender")
def test_a_cancelled_call_that_may_be_sent_now_is_left_to_a_worker(
    sqs: Sqs, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_LEASE_CACHE="default")
    task_id = schedule("jobs", Call("record", ["now"]))
    OutboxMessage.objects.update(available_at=timezone.now() + timedelta(seconds=30))
    cancel(task_id)
    assert stored() == ["now"]
    assert record.is_cancelled(task_id, get_config())
    OutboxMessage.objects.update(available_at=timezone.now())
    cancel(task_id, stop=True)
    assert stored() == []


@pytest.mark.usefixtures("no_sender")
def test_a_cancelled_call_whose_fifo_group_is_claimed_is_left_to_a_worker(
    sqs: Sqs, sqs_env: Environment
) -> None:
    """Who has claimed the oldest message of a group sends those that follow it, too."""
    sqs_env(DISPATCH_LEASE_CACHE="default")
    calls_of_group = [Call("record", [n], group_id="g") for n in range(2)]
    _, follower = schedule_many("fifo", calls_of_group)
    head = OutboxMessage.objects.order_by("id")[0].id
    assert claim("default", "fifo", [head], now=timezone.now(), seconds=30)
    cancel(follower)
    assert stored() == [0, 1]
    assert record.is_cancelled(follower, get_config())
    OutboxMessage.objects.update(available_at=timezone.now())
    with CaptureQueriesContext(connection) as captured:
        cancel(follower)
    assert stored() == [0]
    [first] = [n for n, each in enumerate(captured) if each["sql"].startswith("BEGIN")]
    assert captured[first + 1]["sql"].startswith("UPDATE")


def test_a_deleted_row_whose_task_is_unknown_has_no_end_to_see(sqs: Sqs) -> None:
    schedule("jobs", Call("record", ["x"], delay=timedelta(days=1)))
    OutboxMessage.objects.update(body="spoilt", task_id="spoilt")
    cancel("spoilt")
    assert not OutboxMessage.objects.exists()


def test_the_sender_is_not_woken_by_a_call_of_a_later_time(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[Any] = []
    monkeypatch.setattr(SENDER, "wake", lambda rows, **_: woken.extend(rows))
    schedule_many("jobs", [Call("record", [n], delay=3600 * n) for n in range(2)])
    assert [row.id for row in OutboxMessage.objects.filter(due_at=None)] == [
        each.id for each in woken
    ]
