from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.db.models import QuerySet
from django.test import override_settings

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.consumers.endpoint.dispatcher import EndpointConsumer
from beanstalk_dispatch.consumers.poller.runners import PollerConsumer
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.exceptions import LeaseUnavailable
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.process.role import PROCESS
from beanstalk_dispatch.resuming import resume
from beanstalk_dispatch.running import legs
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.run import Run
from tests import long_jobs
from tests.conftest import Environment
from tests.runs import deliver_and_keep

NAMES = (
    "append_all", "note", "note_async", "fail_at", "act", "hide_the_end", "twice",
    "in_transaction", "rows", "call", "wrong",
)  # fmt: skip


class Copies(DelayedCopies):
    """Keeps what it is to send again, and ends after some questions."""

    def __init__(self, ends_after: int | None = None) -> None:
        self.sent: list[Message] = []
        self.left = ends_after

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        self.sent.append(message)

    def is_ending(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


class CopiesOfChild(Copies):
    children = CHILDREN


@pytest.fixture(autouse=True)
def resuming(env: Environment, tmp_path: Path) -> Iterator[None]:
    env(
        WORKER=True, DISPATCH_TABLE=" ".join(f"{each}=tests.long_jobs.{each}" for each in NAMES),
        DISPATCH_TASK_TIMEOUT="60s", DISPATCH_CRASH_LEDGER=tmp_path / "ledger",
    )  # fmt: skip
    long_jobs.done.clear()
    caches["default"].clear()
    yield
    caches["default"].clear()


def leased(env: Environment) -> None:
    env(DISPATCH_LEASE_CACHE="default")


def of(function: str, *args: Any) -> Message:
    return Message(function=function, args=args, id="task-1")


def run(
    message: Message, consumer: DelayedCopies, *, count: int = 1, queue: str = "q"
) -> tuple[Run, Result]:
    delivery = Delivery(queue=queue, message_id="m", receive_count=count)
    return deliver_and_keep(message.encode(queue=queue), delivery, consumer)


def run_all(message: Message, copies: Copies) -> int:
    """Run the message and its copies, and return how many there were."""
    copies.sent.append(message)
    number = 0
    while copies.sent:
        number += 1
        run(copies.sent.pop(), copies)
    return number


# --- the end of a leg ------------------------------------------------------------------------


def test_a_leg_ends_before_the_time_limit_and_the_next_goes_on(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="1s")
    copies = Copies()
    assert run_all(of("note", 20, 0.1), copies) > 1
    assert long_jobs.done == list(range(20))


def test_the_next_leg_is_no_attempt(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    copies = Copies(ends_after=0)
    _, result = run(of("note", 20, 0.01), copies)
    (copy,) = copies.sent
    assert (result.outcome, result.is_acknowledged, result.is_failure) == ("retry", True, False)
    assert (copy.id, copy.cursor, copy.leg, copy.counted_attempt) == ("task-1", 1, 2, 1)
    assert "reason='the process is ending; the message waits for 0 s'" in caplog.text
    assert Message.decode(copy.encode(queue="q"), queue="q") == copy


def test_a_coroutine_resumes(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="1s")
    assert run_all(of("note_async", 20, 0.1), Copies()) > 1
    assert long_jobs.done == list(range(20))


@pytest.mark.django_db(transaction=True)
def test_a_coroutine_resumes_with_a_lease_in_a_database(
    env: Environment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django asks no database in a thread that runs coroutines."""
    monkeypatch.setattr(legs, "_LOOK_SECONDS", 0)
    database = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "rows"}
    with override_settings(CACHES={"default": database}):
        call_command("createcachetable")
        leased(env)
        assert run_all(of("note_async", 12, 0), Copies(ends_after=11)) == 2
    assert long_jobs.done == list(range(12))
    assert "not kept" not in caplog.text
    assert "not known" not in caplog.text


def test_the_calling_process_runs_all_legs(env: Environment) -> None:
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_TASK_TIMEOUT="1s")
    schedule_function("q", "note", 20, 0.1)
    assert long_jobs.done == list(range(20))


def test_the_deadline_of_a_delivery_ends_a_leg(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = Copies()
    deadline = clock.monotonic() + 1
    delivery = Delivery(queue="q", message_id="m", deadline=deadline)
    message = Message(function="note", args=(40, 0.1), id="task-1")
    monkeypatch.setattr(legs, "MARGIN_SHARE", 0)
    _, result = deliver_and_keep(message.encode(queue="q"), delivery, copies)
    assert result.outcome is Outcome.RETRY
    assert copies.sent[0].cursor == len(long_jobs.done)


def test_a_task_that_hides_the_end_of_its_leg_goes_on(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="1s")
    assert run_all(of("hide_the_end", 4), Copies()) > 1
    assert long_jobs.done == list(range(4))


def test_a_fifo_queue_takes_no_copy_so_the_loop_goes_on() -> None:
    _, result = run(of("note", 20), Copies(ends_after=0), queue="q.fifo")
    assert (result.outcome, len(long_jobs.done)) == (Outcome.DONE, 20)


@pytest.mark.parametrize(
    ("action", "name", "outcome"), [("cancel", "task-1", "cancelled"), ("pause", "q", "retry")]
)
def test_cancel_and_pause_end_a_leg(
    env: Environment, monkeypatch: pytest.MonkeyPatch, action: str, name: str, outcome: str
) -> None:
    leased(env)
    monkeypatch.setattr(legs, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(legs, "_ASK_SECONDS", 0)
    monkeypatch.setattr("beanstalk_dispatch.running.run.ASK_SECONDS", 0)
    copies = Copies()
    _, result = run(of("act", action, name), copies)
    assert (result.outcome, result.is_acknowledged) == (outcome, True)
    assert long_jobs.done == [0, 1, 2]
    assert [each.cursor for each in copies.sent] == ([3] if action == "pause" else [])


def test_who_says_that_a_process_ends(env: Environment, tmp_path: Path) -> None:
    file = tmp_path / "drain"
    env(DISPATCH_DRAIN_FILE=file)
    poller, endpoint = PollerConsumer(lambda _: None), EndpointConsumer()
    assert not poller.is_ending()
    assert not endpoint.is_ending()
    file.touch()
    PROCESS.is_ending = True
    assert poller.is_ending()
    assert endpoint.is_ending()


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_server")
def test_a_child_learns_that_its_parent_ends(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_ISOLATION="process", DISPATCH_QUEUES="q=q", DISPATCH_SQS_ENDPOINT_URL=NO_QUEUE)
    path = tmp_path / "items"
    consumer = CopiesOfChild(ends_after=1)
    started, result = run(of("append_all", str(path), 1000, 10, 0.01), consumer)
    assert result.outcome is Outcome.FAILED  # there is no queue to which a child sends its copy
    assert "could not be sent again" in result.reason
    assert started.message.cursor is None
    assert 10 < len(path.read_text().splitlines()) < 1000


NO_QUEUE = "http://127.0.0.1:9"


# --- the cursor ------------------------------------------------------------------------------


def test_with_a_lease_an_older_duplicate_does_not_run(env: Environment) -> None:
    leased(env)
    copies = Copies(ends_after=0)
    message = of("note", 20, 0.01)
    run(message, copies)
    assert run(message, copies, count=2)[1].outcome is Outcome.DUPLICATE
    run(copies.sent[0], Copies())
    assert long_jobs.done == list(range(20))


def test_after_a_kill_the_kept_cursor_becomes_the_next_leg(env: Environment) -> None:
    leased(env)
    message = of("fail_at", 40, 25, 10, "ValueError")
    assert run(message, Copies())[1].outcome is Outcome.FAILED
    copies = Copies()
    _, result = run(message, copies, count=2)
    assert (result.outcome, result.is_acknowledged) == (Outcome.RETRY, True)
    assert [(each.cursor, each.leg) for each in copies.sent] == [(20, 2)]
    assert run(copies.sent[0], copies)[1].outcome is Outcome.FAILED
    assert long_jobs.done == [*range(25), *range(20, 25)]


def test_a_first_receive_begins_at_the_kept_cursor(env: Environment) -> None:
    leased(env)
    message = of("fail_at", 40, 25, 10, "ValueError")
    for _ in range(2):
        assert run(message, Copies())[1].outcome is Outcome.FAILED
    assert long_jobs.done == [*range(25), *range(20, 25)]


def test_the_kept_cursor_of_an_earlier_leg_is_not_used(env: Environment) -> None:
    leased(env)
    assert run(of("fail_at", 40, 25, 10, "ValueError"), Copies())[1].outcome is Outcome.FAILED
    later = replace(of("note", 40), cursor=30, leg=2)
    assert run(later, Copies())[1].outcome is Outcome.DONE
    assert long_jobs.done == [*range(25), *range(30, 40)]


def test_a_cache_that_does_not_say_whether_the_queue_is_paused_ends_no_leg(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased(env)

    def refuse(*_: object) -> None:
        raise LeaseUnavailable("ConnectionError of cache 'default'")

    monkeypatch.setattr(record, "paused_since", refuse)
    assert run(of("note", 20), Copies())[1].outcome is Outcome.DONE


def test_a_poison_item_ends_as_any_failing_task(env: Environment) -> None:
    leased(env)
    copies = Copies()
    for count in range(1, 4):
        message = of("fail_at", 40, 5, 10, "ValueError")
        assert run(message, copies, count=count)[1].outcome is Outcome.FAILED
    assert copies.sent == []


def test_a_retry_begins_at_the_item_that_failed() -> None:
    copies = Copies()
    run(of("fail_at", 40, 25, 10, "Retry"), copies)
    (copy,) = copies.sent
    assert (copy.cursor, copy.leg, copy.counted_attempt) == (25, 2, 2)


def test_without_an_answer_of_the_cache_no_item_is_repeated(
    env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leased(env)

    class Gone:
        def get(self, *_: object) -> object:
            raise ConnectionError

        set = get

    monkeypatch.setattr(legs, "cache_of", lambda _: Gone())
    failed, result = run(of("note", 20), Copies())
    assert (result.outcome, long_jobs.done) == (Outcome.FAILED, [])
    assert "ConnectionError of cache 'default'" in str(failed.exception)
    monkeypatch.setattr(Gone, "get", lambda *_: (0, None))
    assert run(of("note", 20, 0.01), Copies())[1].outcome is Outcome.DONE
    assert caplog.text.count("cursor not kept id=task-1 cache=default") == 1


# --- what can be resumed ---------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_queryset_is_read_in_batches_by_its_primary_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legs, "_LOOK_SECONDS", 0)
    for name in "abcde":
        OutboxMessage.objects.create(function="f", task_id=name)
    assert run_all(of("rows"), Copies(ends_after=2)) == 4
    assert long_jobs.done == list("abcde")


@pytest.mark.django_db
def test_the_cursor_of_another_key_is_its_text() -> None:
    for name in ("b", "a"):
        StoredResult.objects.create(id=name, expires_at="2100-01-01T00:00Z")
    assert [each.pk for each in resume(StoredResult.objects.all(), every=1)] == ["a", "b"]


def test_a_function_of_the_cursor(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="2s")
    assert run_all(of("call", "same"), Copies()) > 1
    assert long_jobs.done == list(range(10))


def test_a_cursor_that_json_changes_is_an_error() -> None:
    failed, _ = run(of("call", "tuple"), Copies())
    assert str(failed.exception) == "JSON would change the cursor (0,)"


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [("twice", (), "a task can call resume() once"),
     ("wrong", ([1],), "resume() takes a queryset, a sequence, or a function of a cursor")],
)  # fmt: skip
def test_mistakes_fail_the_task(function: str, args: tuple[Any, ...], error: str) -> None:
    failed, result = run(of(function, *args), Copies())
    assert result.outcome is Outcome.FAILED
    assert error in str(failed.exception)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_around_the_loop_is_an_error() -> None:
    failed, _ = run(of("in_transaction"), Copies())
    assert "resume() is inside of transaction.atomic()" in str(failed.exception)
    assert long_jobs.done == []


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:5],
        lambda rows: rows.order_by("function"),
        lambda rows: rows.order_by("pk").reverse(),  # it would begin again for ever
        lambda rows: rows.values("id"),
        lambda rows: rows.union(rows),
        lambda _: QuerySet(long_jobs.InTwoColumns),
    ],
)
def test_a_queryset_that_has_no_cursor_is_refused(change: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"resume\(\) takes a queryset in order_by"):
        resume(change(OutboxMessage.objects.all()))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("items", [[], range(0), OutboxMessage.objects.all()])
def test_without_items_the_task_is_done(items: Any) -> None:
    assert list(resume(items)) == []
    assert run(of("rows"), Copies())[1].outcome is Outcome.DONE


@pytest.mark.django_db(transaction=True)
def test_rows_that_come_and_go_meanwhile_are_those_after_the_cursor() -> None:
    rows = {name: OutboxMessage.objects.create(function="f", task_id=name) for name in "bcd"}
    seen = []
    for row in resume(OutboxMessage.objects.all(), every=1):
        seen.append(row.task_id)
        if row.task_id == "b":
            rows["c"].delete()
            OutboxMessage.objects.create(id=rows["b"].id - 1, function="f", task_id="a")
            OutboxMessage.objects.create(function="f", task_id="e")
    assert seen == ["b", "d", "e"]


def test_outside_of_a_task_all_items_are_returned() -> None:
    assert list(resume("abc")) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="every is at least 1, not 0"):
        resume("abc", every=0)
