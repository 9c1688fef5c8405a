"""What docs/isolation.md says of connection pools, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import psycopg
import pytest
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from tests.services import database_settings, postgres


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


def reset(connection: psycopg.Connection[Any]) -> None:
    """As in docs/isolation.md."""
    connection.autocommit = True
    connection.execute("RESET ALL; SET TIME ZONE 'UTC'")


@pytest.mark.parametrize(
    ("options", "timeout"), [({}, "1ms"), ({"reset": reset}, "0")], ids=["without", "with reset"]
)
def test_what_one_thread_sets_reaches_another_through_a_pool_unless_that_resets(
    database: str, django_db_blocker: DjangoDbBlocker, options: dict[str, Any], timeout: str
) -> None:
    pool = {"min_size": 1, "max_size": 1} | options
    with django_db_blocker.unblock():
        entry = database_settings(database) | {"OPTIONS": {"pool": pool}}
        handler = ConnectionHandler({"default": entry})

        def ask(statement: str) -> str:
            with handler["default"].cursor() as cursor:
                cursor.execute(statement)
                row = cursor.fetchone() if statement.startswith("SHOW") else ("",)
            handler["default"].close()
            return str(row[0])

        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            one.submit(ask, "SET statement_timeout = '1ms'").result()
            assert other.submit(ask, "SHOW statement_timeout").result() == timeout
            assert other.submit(ask, "SHOW TimeZone").result() == "UTC"
        cast("Any", handler["default"]).close_pool()
