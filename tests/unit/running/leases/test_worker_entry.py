from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import RequestFactory

from beanstalk_dispatch import __version__, views
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.leases import worker_entry
from beanstalk_dispatch.running.leases.worker_entry import WorkerEntry, entry_keys
from beanstalk_dispatch.running.running_tasks import RUNNING
from tests.conftest import Environment
from tests.workers import until


@pytest.fixture(autouse=True)
def lease_cache(env: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    env(WORKER=True, DISPATCH_LEASE_CACHE="default")
    monkeypatch.setattr(worker_entry, "WRITE_SECONDS", 0.01)
    caches["default"].clear()
    yield
    worker_entry.WORKER_ENTRY.end()
    caches["default"].clear()


def entries() -> list[dict[str, Any]]:
    """The entries of all workers, as the cache has them."""
    return list(caches["default"].get_many(entry_keys()).values())


def started(**options: Any) -> WorkerEntry:
    entry = WorkerEntry()
    entry.start("poller", get_config(), threads=4, **options)
    return entry


def end(*started: WorkerEntry) -> None:
    for each in started:
        each.end()
    assert entries() == []


def test_a_worker_is_seen_until_it_ends() -> None:
    entry = started(queues=["jobs"])
    until(entries)
    (found,) = entries()
    assert (found["consumer"], found["threads"], found["queues"]) == ("poller", 4, ["jobs"])
    assert (found["process_id"], found["version"]) == (os.getpid(), __version__)
    entry.start("endpoint", get_config(), threads=15)
    until(lambda: entries()[0]["written_at"] > found["written_at"])
    assert [each["consumer"] for each in entries()] == ["poller"]
    end(entry)


def test_an_entry_has_the_oldest_tasks_and_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_entry, "MAX_TASKS", 1)
    delivery = Delivery(queue="jobs", receive_count=2)
    first, second = (Message(function=name, args=["a secret"], attempt=3) for name in "fg")
    entry = started()
    with (
        RUNNING.task(first, delivery, get_config()),
        RUNNING.task(second, delivery, get_config()),
    ):
        until(lambda: entries() and entries()[0]["count"] == 2)
        (found,) = entries()
    (task,) = found["running"]
    assert task.pop("seconds") >= 0
    assert task == {
        "id": first.id, "function": "f", "queue": "jobs", "attempt": 3, "receive_count": 2,
    }  # fmt: skip
    assert "secret" not in str(found)
    until(lambda: entries()[0]["count"] == 0)
    end(entry)


def test_no_two_workers_have_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_entry, "MAX_WORKERS", 2)
    monkeypatch.setattr(worker_entry, "_TRIES", 2)
    first, second = started(), started()
    until(lambda: len(entries()) == 2)
    third = started(queues=["third"])
    caches["default"].clear()  # as a cache that has started again: all take a key once more
    until(lambda: len(entries()) == 2)
    tokens = {each["token"] for each in entries()}
    assert len(tokens) == 2
    first.end()
    second.end()
    until(lambda: [each["queues"] for each in entries()] == [["third"]])
    end(third)


def test_a_cache_that_fails_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fail(alias: str) -> Any:
        calls.append(alias)
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(worker_entry, "cache_of", fail)
        entry = started()
        until(lambda: len(calls) > 2)
    until(entries)
    end(entry)
    assert [each.message for each in caplog.records] == [
        "worker entry not written cache=default error=ConnectionError: no route"
    ]


def test_without_a_worker_a_cache_or_a_thread_nothing_is_written(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        end(started())  # or the end of the process would stop there
    for variables in ({"WORKER": False}, {"WORKER": True, "DISPATCH_LEASE_CACHE": None}):
        env(**variables)
        end(started())


def test_a_forked_child_leaves_the_entry_to_its_parent() -> None:
    entry = started()
    until(entries)
    thread, (found,) = entry._thread, entries()
    assert thread is not None
    entry.forget()
    thread.join(60)
    assert [each["token"] for each in entries()] == [found["token"]]


def test_the_endpoint_has_an_entry_from_its_first_message_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    for _ in range(2):
        request = RequestFactory().post("/", b"{}", content_type="application/json")
        assert views.dispatcher(request).status_code == 400
    until(entries)
    assert [(each["consumer"], each["threads"]) for each in entries()] == [("endpoint", None)]
