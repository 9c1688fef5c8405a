"""The outbox on PostgreSQL, processes that are killed, and a process that forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from django.core.management import call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from beanstalk_dispatch.client import Call, schedule_many
from beanstalk_dispatch.contrib.outbox.claims import (
    Heads,
    _read_by_index,
    claim,
    database_now,
    queues_in,
)
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.contrib.outbox.sender import SENDER
from tests.conftest import Environment
from tests.proxy import Answer, Proxy
from tests.recording_sqs import Sqs
from tests.services import database_settings, postgres
from tests.unit.contrib.outbox.conftest import no_sender, sqs

__all__ = ["no_sender", "sqs"]


@pytest.fixture(scope="module")
def migrated(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """A database ``postgres`` of Django, on a server of its own, with the table of the outbox."""
    with postgres() as url, django_db_blocker.unblock():
        databases: Any = connections.configure_settings(
            {"default": {}, "postgres": database_settings(url)}
        )
        connections.databases["postgres"] = databases["postgres"]
        call_command("migrate", database="postgres", verbosity=0)
        yield
        connections["postgres"].close()
        del connections["postgres"]
        del connections.databases["postgres"]


@pytest.fixture
def outbox(migrated: None, sqs: Sqs, sqs_env: Environment, no_sender: None) -> Sqs:
    sqs_env(DISPATCH_OUTBOX_DATABASES="postgres")
    OutboxMessage.objects.using("postgres").all().delete()
    return sqs


def store(alias: str, labels: range, group: str | None = None) -> None:
    calls = [Call("record", [n], group_id=group) for n in labels]
    schedule_many(alias, calls, on_commit="postgres")


def left() -> int:
    return OutboxMessage.objects.using("postgres").count()


def run_in_thread(work: Any) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connections["postgres"].close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_several_relays_send_each_message_once_and_each_group_in_order(outbox: Sqs) -> None:
    store("jobs", range(100))
    for group in range(1, 4):
        store("fifo", range(1000 * group, 1000 * group + 10), f"g{group}")
    threads = [run_in_thread(Relay().send_available) for _ in range(3)]
    for thread in threads:
        thread.join(60)
    Relay().send_available()  # what a relay had claimed, the others have passed over
    assert left() == 0
    assert sorted(n for n in outbox.labels if n < 1000) == list(range(100))
    for group in range(1, 4):
        own = [n for n in outbox.labels if n // 1000 == group]
        assert own == list(range(1000 * group, 1000 * group + 10))


def test_what_is_claimed_is_passed_over_until_the_claim_ends(outbox: Sqs) -> None:
    store("fifo", range(3), "g")
    store("fifo", range(10, 12), "other")
    head = OutboxMessage.objects.using("postgres").order_by("id")[0].id
    claimed = claim("postgres", "fifo", [head], now=database_now("postgres"), seconds=60)
    assert claimed
    assert claimed
    assert len(claimed.rows) == 3
    Relay().send_available()
    assert outbox.labels == [10, 11]
    claimed.rows_in("postgres", [head]).update(available_at=claimed.now)
    Relay().send_available()
    assert outbox.labels == [10, 11, 0, 1, 2]


def test_what_is_committed_is_sent_by_the_thread(
    migrated: None, sqs: Sqs, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_OUTBOX_DATABASES="postgres")
    OutboxMessage.objects.using("postgres").all().delete()
    store("jobs", range(3))
    assert SENDER.flush(30)
    assert (sorted(sqs.labels), left()) == ([0, 1, 2], 0)


def test_processes_that_are_killed_lose_nothing_and_an_outage_neither() -> None:
    """A short form of the benchmark, which kills a thousand processes on each database."""
    command = [sys.executable, "-m", "benchmarks.outbox", "--kills=1", "--outage=0.5", "--claims=0",
               "postgres"]  # fmt: skip
    run = subprocess.run(
        command, text=True, capture_output=True, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("lost 0") == 6


# --- on PostgreSQL ---------------------------------------------------------------------------


def fill(queue: str, groups: int, count: int, *, days: int = 0) -> None:
    with connections["postgres"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO beanstalk_outbox_outboxmessage (task_id, function, queue, fifo_group, "
            "body, parameters, created_at, available_at, failures, error) "
            "SELECT n::text, 'f', %s, CASE WHEN %s = 0 THEN '' ELSE 'g' || n %% %s END, '{}', "
            "'{}', now(), now() + %s * interval '1 day', 0, '' FROM generate_series(1, %s) n",
            [queue, groups, max(groups, 1), days, count],
        )


ROWS = 5_000
"""Of each kind: to read all of one is more than a claim may read."""


def rows_read(plan: dict[str, Any]) -> float:
    """How many rows the scans of a plan have read."""
    below = sum(rows_read(each) for each in plan.get("Plans", ()))
    if "Scan" not in plan["Node Type"] or plan["Node Type"] in {"CTE Scan", "WorkTable Scan"}:
        return below
    removed = plan.get("Rows Removed by Filter", 0)
    return below + float((plan["Actual Rows"] + removed) * plan["Actual Loops"])


@pytest.mark.parametrize("statistics", ["of an empty outbox", "of these rows"])
@pytest.mark.parametrize("groups", [0, 1, 10, 1000])
def test_a_claim_reads_few_rows_beside_a_dead_queue(
    outbox: Sqs, groups: int, statistics: str
) -> None:
    """A scan of the table, a sort of a group or a look along the primary key would read more."""
    connection = connections["postgres"]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    fill("dead", groups, ROWS)
    fill("live", 0, ROWS, days=30)
    fill("live", groups, ROWS)
    if statistics == "of these rows":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as captured:
        assert list(queues_in("postgres")) == ["dead", "live"]
        now = database_now("postgres")
        ids = Heads().find("postgres", "live", now, 80)
        claimed = claim("postgres", "live", ids, now=now, seconds=60)
    assert claimed
    assert len(claimed.rows) == 80
    assert len(ids) == min(groups or 80, 80)
    reads = [
        each["sql"] for each in captured if each["sql"].lstrip().startswith(("SELECT", "WITH"))
    ]
    total = 0.0
    for statement in reads:
        with _read_by_index("postgres"), connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
            total += rows_read(cursor.fetchone()[0][0]["Plan"])
    assert total < 2000


def test_a_claim_outlives_the_time_limit_of_an_idle_transaction(outbox: Sqs, proxy: Proxy) -> None:
    """No transaction is open while SQS is asked, so the row is sent once and deleted."""
    with connections["postgres"].cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '100ms'")
    store("jobs", range(1))

    def answer_late(operation: str, request: dict[str, Any]) -> Answer:
        time.sleep(0.3)
        return outbox(operation, request)

    proxy.spoil = answer_late
    Relay().send_available()
    assert (outbox.labels, left()) == ([0], 0)
    connections["postgres"].close()


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_time_is_that_of_the_database(
    outbox: Sqs, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The clock of a machine that stores or sends may be wrong."""
    real = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(hours=hours))
    store("jobs", range(1))
    Relay().send_available()
    assert (outbox.labels, left()) == ([0], 0)


def test_the_time_of_the_database_has_the_time_zone_of_the_settings(
    outbox: Sqs, settings: Any
) -> None:
    aware = database_now("postgres")
    settings.USE_TZ = False
    assert abs(timezone.make_aware(database_now("postgres")) - aware) < timedelta(minutes=1)


# --- a fork ----------------------------------------------------------------------------------

PRELOAD: Final = """
import importlib.abc, os, signal, sys, threading, time

importing = threading.Event()

class SlowImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "boto3":
            importing.set()
            time.sleep(0.5)
        return None

import django
django.setup()
from django.db import connections
from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.outbox.sender import SENDER

sys.meta_path.insert(0, SlowImport())
schedule_function("standard", "f", "parent")
assert importing.wait(10)
connections.close_all()
child = os.fork()
signal.alarm(60)
# The first new thread of the child has the id of the sender, and could take its lock for its own.
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
schedule_function("standard", "f", "parent" if child else "child")
assert SENDER.flush(30), "parent hangs" if child else "child hangs"
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_during_the_first_import_of_the_sender_leaves_a_child_that_sends(
    outbox: Sqs, proxy: Proxy
) -> None:
    """As gunicorn forks after it has loaded the application with ``preload_app``."""
    database = connections["postgres"].settings_dict
    address = f"{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    run = subprocess.run(
        [sys.executable, "-c", PRELOAD], text=True, capture_output=True, check=False, timeout=120,
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path),
            "DJANGO_SETTINGS_MODULE": "benchmarks.outbox_settings",
            "SECRET_KEY": "for-tests-only",
            "DATABASE_URL": f"postgres://{address}",
            "BEANSTALK_DISPATCH_TABLE": "f=benchmarks.urls.no_op",
            "BEANSTALK_DISPATCH_QUEUES": "standard=standard",
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": proxy.url,
            "BEANSTALK_DISPATCH_SQS_REGION": "eu-west-1",
            "BEANSTALK_DISPATCH_SQS_KEY": "key",
            "BEANSTALK_DISPATCH_SQS_SECRET": "a-secret-key",
            "BEANSTALK_DISPATCH_OUTBOX": "always",
        },
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(outbox.labels) == ["child", "parent", "parent"]
