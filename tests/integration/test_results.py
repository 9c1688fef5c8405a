"""Results in PostgreSQL and in Valkey: a fast worker, a store that hangs, a zero character."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from beanstalk_dispatch.client import Call, schedule_function, schedule_many
from beanstalk_dispatch.contrib.results import Status, get_result
from beanstalk_dispatch.contrib.results.stores import GUARD
from beanstalk_dispatch.messages.outcomes import Outcome
from tests.conftest import Environment
from tests.consumers import run_all
from tests.jobs import calls
from tests.services import Service, database_settings, postgres, valkey


class ToPostgres:
    """Sends the results to the database ``postgres``."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "postgres"


@pytest.fixture(scope="module")
def in_postgres(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with postgres() as url, django_db_blocker.unblock():
        databases = connections.configure_settings(
            {"default": {}, "postgres": database_settings(url)}
        )
        connections.databases["postgres"] = databases["postgres"]
        call_command("migrate", "beanstalk_results", database="postgres", verbosity=0)
        with override_settings(DATABASE_ROUTERS=[ToPostgres()]):
            yield
        connections["postgres"].close()
        del connections["postgres"]
        del connections.databases["postgres"]


@pytest.fixture
def database(in_postgres: None, worker_env: Environment) -> Environment:
    worker_env(DISPATCH_RESULTS="db")
    return worker_env


def run_in_another_thread() -> list[Outcome]:
    """A worker with a connection of its own."""

    def run() -> list[Outcome]:
        try:
            return run_all()
        finally:
            connections["postgres"].close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)


def test_a_worker_neither_waits_for_the_senders_transaction_nor_is_overwritten(
    database: Environment,
) -> None:
    with transaction.atomic(using="postgres"):
        task_id = schedule_function("jobs", "record")
        assert run_in_another_thread() == [Outcome.DONE]
    assert get_result(task_id).status is Status.SUCCESSFUL


def test_what_a_text_of_postgresql_cannot_hold_is_kept(database: Environment) -> None:
    database(DISPATCH_TABLE="zero=tests.jobs.zero fail=tests.jobs.fail",
             DISPATCH_ON_FAILURE="acknowledge")  # fmt: skip
    good, bad = schedule_many("jobs", [Call("zero", (1,)), Call("fail", ("the \0 reason",))])
    assert run_all() == [Outcome.DONE, Outcome.FAILED]
    assert get_result(good).return_value == "a\0b\ud800"
    assert "the \0 reason" in get_result(bad).errors[0].traceback


def lose_connection() -> None:
    """A task that notices the loss, as one of a database that fails over."""
    with suppress(OperationalError), connections["postgres"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def lose_idle_connection() -> None:
    """A task that uses no database, while the server or a proxy ends the idle connection."""
    idle = connections["postgres"]
    other = idle.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [idle.connection.info.backend_pid])
    other.close()


@pytest.mark.parametrize("name", ["lose_connection", "lose_idle_connection"])
def test_the_end_of_a_task_is_kept_if_the_connection_was_lost(
    database: Environment, name: str
) -> None:
    database(DISPATCH_TABLE=f"{name}=tests.integration.test_results.{name}")
    task_id = schedule_function("jobs", name)
    assert run_in_another_thread() == [Outcome.DONE]
    assert get_result(task_id).status is Status.SUCCESSFUL


@pytest.fixture
def server() -> Iterator[Service]:
    with (started := valkey()):
        yield started


def test_a_store_that_hangs_loses_and_repeats_no_task(
    server: Service, worker_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}",
        "OPTIONS": {"socket_timeout": 0.3},
    }
    calls.clear()
    with override_settings(CACHES={"results": settings}):
        worker_env(DISPATCH_RESULTS="results")
        with server.paused():
            ids = [schedule_function("jobs", "record", number) for number in range(2)]
            assert run_all() == [Outcome.DONE] * 2
        assert sorted(args for args, _ in calls) == [(0,), (1,)]
        assert f"result not written id={ids[0]} error=TimeoutError: " in caplog.text
        GUARD.forget()  # it would leave the store alone for ten seconds
        task_id = schedule_function("jobs", "record")
        assert run_all() == [Outcome.DONE]
        assert get_result(task_id).status is Status.SUCCESSFUL
