"""The outbox on PostgreSQL, where a claim is a row lock; and processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from pytest_django import DjangoDbBlocker

from beanstalk_dispatch.client import Call, schedule_many
from beanstalk_dispatch.contrib.outbox.claims import claimed
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.contrib.outbox.sender import SENDER
from tests.conftest import Environment
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
    head = OutboxMessage.objects.using("postgres").order_by("id")[:1]
    with transaction.atomic(using="postgres"):
        assert len(head.select_for_update()) == 1
        run_in_thread(Relay().send_available).join(30)
        assert outbox.labels == [10, 11]
    Relay().send_available()
    assert outbox.labels == [10, 11, 0, 1, 2]


def test_a_claim_ends_with_its_connection(outbox: Sqs) -> None:
    """As when the process or its machine is gone."""
    store("jobs", range(3))

    def claim_and_die() -> None:
        with pytest.raises(OperationalError), claimed("postgres", without=(), seconds=60) as rows:
            assert len(rows) == 3
            with connections["postgres"].cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    run_in_thread(claim_and_die).join(30)
    Relay().send_available()
    assert sorted(outbox.labels) == [0, 1, 2]
    assert left() == 0


def test_what_is_committed_is_sent_by_the_thread(
    migrated: None, sqs: Sqs, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_OUTBOX_DATABASES="postgres")
    store("jobs", range(3))
    assert SENDER.flush(30)
    assert (sorted(sqs.labels), left()) == ([0, 1, 2], 0)


def test_processes_that_are_killed_lose_nothing_and_an_outage_neither() -> None:
    """A short form of the benchmark, which kills a thousand processes on each database."""
    command = [sys.executable, "-m", "benchmarks.outbox", "--kills=1", "--outage=0.5", "postgres"]
    run = subprocess.run(
        command, text=True, capture_output=True, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("lost 0") == 6
