"""Connections around a task, on SQLite; tests/integration has PostgreSQL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction

from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.left_behind import connections as guard
from beanstalk_dispatch.safe_task import SafeTask
from tests.jobs import run_in_steps
from tests.runs import attempt

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def begin() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")


def enter_atomic() -> None:
    transaction.atomic().__enter__()


def switch_autocommit_off() -> None:
    transaction.set_autocommit(False)


@pytest.mark.parametrize("leave", [begin, enter_atomic, switch_autocommit_off])
def test_a_transaction_left_open_fails_its_task_and_no_other(
    leave: Any, caplog: pytest.LogCaptureFixture
) -> None:
    came = attempt(SafeTask(leave))
    assert came.outcome is Outcome.FAILED
    assert str(came.exception) == (
        "the task left a transaction open on the database 'default'; what it did there was rolled "
        "back. Use 'with transaction.atomic():'"
    )
    assert "SafeTask failed id=1 function=f error=the task left a transaction open" in caplog.text
    assert guard.aliases_in_transaction() == []
    with transaction.atomic():
        connection.ensure_connection()
    assert attempt(SafeTask(lambda: None)).outcome is Outcome.DONE


def test_a_task_that_fails_keeps_its_own_error(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        begin()
        raise ValueError("mine")

    assert str(attempt(SafeTask(fails)).exception) == "mine"
    assert "transaction left open id=1 function=f error=the task left" in caplog.text
    assert guard.aliases_in_transaction() == []


def test_a_hook_that_leaves_one_open_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Hooked(SafeTask):
        def run(self) -> None:
            pass

        def on_success(self, *args: Any, **kwargs: Any) -> None:
            begin()

    assert attempt(Hooked()).outcome is Outcome.DONE
    assert "hook failed hook=on_success id=1 function=f" in caplog.text
    assert guard.aliases_in_transaction() == []


def test_a_process_of_the_projects_own_that_leaves_one_open_fails_the_task() -> None:
    class Own(SafeTask):
        def process(self, *args: Any, **kwargs: Any) -> None:
            super().process(*args, **kwargs)
            begin()

        def run(self) -> None:
            pass

    assert attempt(Own()).outcome is Outcome.FAILED
    assert guard.aliases_in_transaction() == []


def test_a_process_that_surrounds_the_task_with_a_transaction_is_fine() -> None:
    class Atomic(SafeTask):
        def process(self, *args: Any, **kwargs: Any) -> None:
            with transaction.atomic():
                super().process(*args, **kwargs)

        def run(self) -> None:
            with transaction.atomic():
                connection.ensure_connection()

    assert attempt(Atomic()).outcome is Outcome.DONE


def test_a_callers_transaction_is_left_alone() -> None:
    with transaction.atomic():
        before = connections["default"]
        assert attempt(SafeTask(lambda: None)).outcome is Outcome.DONE
        limited = SafeTask(run_in_steps, timeout_timedelta=0.1, verbose=False)
        assert attempt(limited, 20).outcome is Outcome.TIMED_OUT
        assert connections["default"] is before
        assert before.in_atomic_block


def test_an_interrupted_tasks_connections_are_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    def broken(self: Any) -> None:
        closed.append(self.alias)
        raise DatabaseError("the server has gone")

    for alias in ("default", "other"):
        connections[alias].ensure_connection()
    assert attempt(SafeTask(run_in_steps, timeout_timedelta=5), 0).outcome is Outcome.DONE
    monkeypatch.setattr(type(connections["default"]), "close", broken)
    limited = SafeTask(run_in_steps, timeout_timedelta=0.1, verbose=False)
    assert attempt(limited, 20).outcome is Outcome.TIMED_OUT
    assert sorted(closed) == ["default", "other"]
    assert "close failed database=other error=the server has gone" in caplog.text


class Raw:
    """A driver's connection whose server has gone."""

    def rollback(self) -> None:
        raise DatabaseError("no server")


def test_a_connection_that_can_neither_be_closed_nor_rolled_back_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wrapper = connections["other"]
    raw = wrapper.connection
    monkeypatch.setattr(wrapper, "close", lambda: None)
    wrapper.connection = Raw()
    guard.drop(wrapper)
    assert connections["other"] is not wrapper
    assert "rollback failed database=other error=no server" in caplog.text
    wrapper.connection = raw
    connections["other"] = wrapper


def test_a_connection_that_was_closed_is_made_anew(tmp_path: Any) -> None:
    original = connections["other"]
    wrapper = original.copy()
    wrapper.settings_dict = wrapper.settings_dict | {"NAME": str(tmp_path / "file.sqlite3")}
    connections["other"] = wrapper
    wrapper.ensure_connection()
    guard.drop(wrapper)
    assert wrapper.connection is None
    assert connections["other"] is not wrapper
    connections["other"] = original


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (SimpleNamespace(info=SimpleNamespace(transaction_status=0)), False),  # psycopg: idle
        (SimpleNamespace(info=SimpleNamespace(transaction_status=2)), True),
        (SimpleNamespace(info=SimpleNamespace(transaction_status=4)), False),  # unknown: it is gone
        (SimpleNamespace(server_status=2), False),  # PyMySQL
        (SimpleNamespace(server_status=3), True),
        (SimpleNamespace(in_transaction=True), True),  # sqlite3
        (SimpleNamespace(), False),  # a driver that cannot be asked
    ],
)
def test_what_the_driver_knows(raw: Any, expected: bool) -> None:
    assert guard._driver_is_in_transaction(raw) is expected


def test_a_project_that_manages_transactions_by_itself_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrapper = connections["other"]
    monkeypatch.setitem(wrapper.settings_dict, "AUTOCOMMIT", False)
    with wrapper.cursor() as cursor:
        cursor.execute("BEGIN")
    assert guard.aliases_in_transaction() == []
    wrapper.connection.rollback()


def test_a_failed_connection_that_django_cannot_close_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = connections["other"]
    other.ensure_connection()
    monkeypatch.setitem(guard._opened.by_alias, "other", other)
    assert guard.are_open()
    dropped: list[Any] = []
    monkeypatch.setattr(guard, "drop", dropped.append)
    monkeypatch.setattr(other, "close", lambda: 1 / 0)  # as a task may leave it
    monkeypatch.setattr(other, "is_usable", lambda: False)
    guard.end_request(sender=None)
    assert dropped == []
    other.errors_occurred = True
    guard.end_request(sender=None)
    assert dropped == [other]
    other.errors_occurred = False
