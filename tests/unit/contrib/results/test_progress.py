"""How far a task is: kept with its result, and never in its way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.results import Progress, get_result, recording
from beanstalk_dispatch.contrib.results.stores import CacheStore
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.resuming import progress
from beanstalk_dispatch.running import legs
from tests import long_jobs
from tests.conftest import Environment
from tests.unit.running.test_resuming import Copies, of, run, run_all

pytestmark = pytest.mark.django_db(transaction=True)
NAMES = ("see", "tell", "tell_async", "tell_in_transaction", "lose_result", "rows", "fail_at")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_PROGRESS_SECONDS", 0)


@pytest.fixture(autouse=True)
def results(env: Environment, tmp_path: Path) -> Iterator[Environment]:
    env(
        WORKER=True, DISPATCH_TABLE=" ".join(f"{each}=tests.long_jobs.{each}" for each in NAMES),
        DISPATCH_CRASH_LEDGER=tmp_path / "ledger", DISPATCH_RESULTS="db",
    )  # fmt: skip
    long_jobs.done.clear()
    caches["default"].clear()
    yield env
    caches["default"].clear()


def outcome_of(message: Message) -> Outcome:
    result: Result = run(message, Copies())[1]
    return result.outcome


@pytest.mark.parametrize("store", ["default", "db"])
@pytest.mark.parametrize("function", ["tell", "tell_async"])
def test_it_is_seen_while_the_task_runs(results: Environment, store: str, function: str) -> None:
    results(DISPATCH_RESULTS=store)
    assert outcome_of(of(function, [[1, 3], [2.5, 3], [3]])) is Outcome.DONE
    assert long_jobs.done == [Progress(1, 3), Progress(2.5, 3), Progress(3)]
    assert get_result("task-1").progress == (3, None)


def test_it_is_kept_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_PROGRESS_SECONDS", 1)
    assert outcome_of(of("tell", [[1], [2]])) is Outcome.DONE
    assert long_jobs.done == [None, None]
    assert get_result("task-1").progress == (2, None)


def test_a_transaction_is_left_alone() -> None:
    assert outcome_of(of("tell_in_transaction", [[1], [2]])) is Outcome.DONE
    assert long_jobs.done == [None, None]
    assert get_result("task-1").progress == (2, None)


@pytest.mark.parametrize("wrong", [-1, "many", None, 2**60, 10**400, "nan", "inf"])
def test_a_wrong_value_is_logged_and_fails_no_task(
    caplog: pytest.LogCaptureFixture, wrong: Any
) -> None:
    assert outcome_of(of("tell", [[1, 10], [wrong, 10], [wrong]])) is Outcome.DONE
    assert get_result("task-1").progress == (1, 10)
    assert caplog.text.count("progress not kept id=task-1 error=") == 1


def test_a_store_that_fails_is_asked_once_in_ten_seconds_and_logged_once_a_minute(
    results: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def fail(*_: object) -> bool:
        asked.append("one")
        raise ConnectionError("no answer")

    results(DISPATCH_RESULTS="default")
    monkeypatch.setattr(CacheStore, "save_progress", fail)
    assert outcome_of(of("tell", [[1], [2], [3]])) is Outcome.DONE
    assert caplog.text.count("result not written id=task-1 error=ConnectionError") == 1
    assert asked == ["one"]
    assert get_result("task-1").progress == (3, None)


def test_resume_says_it_by_itself_and_counts_a_queryset_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The items of earlier legs are counted, and one that is deleted is not."""
    monkeypatch.setattr(legs, "_LOOK_SECONDS", 0)
    for name in "abcd":
        OutboxMessage.objects.create(function="f", task_id=name)
    with CaptureQueriesContext(connection) as captured:
        assert run_all(of("see"), Copies(ends_after=1)) == 3
    assert sum("COUNT(" in each["sql"] for each in captured) == 1
    assert long_jobs.done == [None, (1, 4), (2, 4)]
    assert get_result("task-1").progress == (3, 4)


def test_after_a_kill_it_goes_on_from_the_kept_cursor(results: Environment) -> None:
    results(DISPATCH_LEASE_CACHE="default")
    message = of("fail_at", 40, 25, 10, "ValueError")
    assert outcome_of(message) is Outcome.FAILED
    assert get_result("task-1").progress == (25, 40)
    copies = Copies()
    run(message, copies, count=2)
    assert [list(each.progress) for each in copies.sent] == [[20, 40]]
    assert Message.decode(copies.sent[0].encode(queue="q"), queue="q").progress == [20, 40]


def test_items_that_cannot_be_counted_are_no_failure(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise DatabaseError("too slow")

    monkeypatch.setattr(QuerySet, "count", fail)
    OutboxMessage.objects.create(function="f", task_id="a")
    assert outcome_of(of("see")) is Outcome.DONE
    assert get_result("task-1").progress == (1, None)
    assert "items not counted id=task-1 error=DatabaseError: too slow" in caplog.text


def test_without_results_nothing_is_counted_or_kept(results: Environment) -> None:
    results(DISPATCH_RESULTS=None)
    with CaptureQueriesContext(connection) as captured:
        assert outcome_of(of("rows")) is Outcome.DONE
    assert sum("COUNT(" in each["sql"] for each in captured) == 0
    progress(1, 2)


@pytest.mark.parametrize("store", ["default", "db"])
def test_a_result_that_was_deleted_stays_deleted_until_the_end(
    results: Environment, store: str
) -> None:
    results(DISPATCH_RESULTS=store)
    assert outcome_of(of("lose_result")) is Outcome.DONE
    assert long_jobs.done == []
    assert get_result("task-1").progress == (1, None)


@pytest.mark.parametrize(
    ("values", "text"),
    [((300, 1000), "300 of 1,000 (30 %)"), ((120, 100), "120 of 100 (120 %)"), ((0, 0), "0 of 0"),
     ((1234.5,), "1,234.5")],
)  # fmt: skip
def test_how_it_is_shown(values: tuple[float, ...], text: str) -> None:
    assert str(Progress(*values)) == text
