from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from beanstalk_dispatch.consumers.poller import cron_scheduler
from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
from beanstalk_dispatch.messages.cron import PeriodicTask
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received
from tests.conftest import Environment
from tests.proxy import Proxy, error
from tests.workers import until

TASK = PeriodicTask(name="clean_up", url="/path", schedule="*/5 * * * *")


def test_a_due_task_is_sent_as_the_daemon_marks_it(sqs_env: Environment) -> None:
    scheduler = Scheduler([TASK], "jobs")
    now = datetime.now(UTC)
    scheduler.send_due(now)
    queue = open_queue("jobs")
    assert queue.receive(count=1, wait=0, visibility=30) == []
    for _ in range(2):  # an hour was slept through: one message, not twelve
        scheduler.send_due(now + timedelta(hours=1))
    (received,) = queue.receive(count=10, wait=0, visibility=30)
    attributes = received.message_attributes
    assert attributes["beanstalk.sqsd.task_name"] == "clean_up"
    assert attributes["beanstalk.sqsd.path"] == "/path"
    assert attributes["beanstalk.sqsd.scheduled_time"].endswith(":00Z")


def test_a_task_that_cannot_be_sent_is_logged(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(DISPATCH_QUEUES="other=q")
    scheduler = Scheduler([TASK], "jobs")
    with caplog.at_level(logging.ERROR):
        scheduler.send_due(datetime.now(UTC) + timedelta(hours=1))
    assert "periodic task not sent task=clean_up error='jobs' is not in" in caplog.text


def test_it_checks_for_due_tasks_until_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cron_scheduler, "_CHECK_SECONDS", 0)
    scheduler = Scheduler([TASK], "jobs")
    checks: list[datetime] = []
    monkeypatch.setattr(scheduler, "send_due", checks.append)
    tick = scheduler.tick(lambda: len(checks) == 3)
    for _ in range(5):
        tick()
    assert len(checks) == 3


def test_it_checks_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler([TASK], "jobs")
    checks: list[datetime] = []
    monkeypatch.setattr(scheduler, "send_due", checks.append)
    tick = scheduler.tick(lambda: False)
    for _ in range(5):
        tick()
    assert len(checks) == 1


def test_an_unexpected_error_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cron_scheduler, "_CHECK_SECONDS", 0)
    scheduler = Scheduler([TASK], "jobs")

    def surprise(now: datetime) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(scheduler, "send_due", surprise)
    tick = scheduler.tick(lambda: False)
    for _ in range(2):
        tick()
    assert caplog.text.count("periodic tasks not sent error=RuntimeError") == 2


# --- several workers ---


class Ailing(LocMemCache):
    """A cache that does not answer these methods."""

    silent: ClassVar[set[str]] = set()

    def add(self, *args: Any, **kwargs: Any) -> bool:
        if "add" in self.silent:
            raise ConnectionError("no answer")
        return super().add(*args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> None:
        if "set" in self.silent:
            raise ConnectionError("no answer")
        super().set(*args, **kwargs)


@pytest.fixture
def shared(sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The workers share a cache. They wait a second for one that has begun to send."""
    monkeypatch.setattr(cron_scheduler, "PENDING_SECONDS", 1)
    monkeypatch.setattr(Ailing, "silent", set())
    sqs_env(DISPATCH_LEASE_CACHE="leases", DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    backend = f"{Ailing.__module__}.{Ailing.__qualname__}"
    with override_settings(CACHES={"leases": {"BACKEND": backend}}):
        caches["leases"].clear()
        yield proxy


def received() -> list[Received]:
    return open_queue("jobs").receive(count=10, wait=0, visibility=30)


def is_sent_by(worker: Scheduler, now: datetime) -> bool:
    worker.send_due(now)
    return bool(received())


@pytest.mark.usefixtures("shared")
def test_of_several_workers_one_sends_each_occurrence() -> None:
    workers = [Scheduler([TASK], "jobs") for _ in range(3)]
    now = datetime.now(UTC)
    for minutes in (5, 5, 10):
        for worker in workers:
            worker.send_due(now + timedelta(minutes=minutes))
    assert len(received()) == 2


@pytest.mark.usefixtures("shared")
def test_a_confirmed_occurrence_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cron_scheduler, "PENDING_SECONDS", 0.01)
    worker, other = Scheduler([TASK], "jobs"), Scheduler([TASK], "jobs")
    now = datetime.now(UTC) + timedelta(minutes=5)
    assert is_sent_by(worker, now)
    time.sleep(0.05)
    assert not is_sent_by(other, now)


@pytest.mark.usefixtures("shared")
def test_an_occurrence_is_sent_by_another_worker_if_one_is_killed_before() -> None:
    killed, other = Scheduler([TASK], "jobs"), Scheduler([TASK], "jobs")
    now = datetime.now(UTC) + timedelta(minutes=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queue, "send", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            killed.send_due(now)
    assert not is_sent_by(other, now)  # the first may still send it
    until(lambda: is_sent_by(other, now))


def raise_interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_an_occurrence_that_sqs_does_not_take_is_sent_later(
    shared: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    worker, now = Scheduler([TASK], "jobs"), datetime.now(UTC) + timedelta(minutes=5)
    shared.spoil = lambda operation, request: error(403, "AccessDenied")
    worker.send_due(now)
    assert "periodic task not sent task=clean_up error=" in caplog.text
    shared.spoil = lambda operation, request: None
    assert not is_sent_by(worker, now)  # not once a second
    until(lambda: is_sent_by(worker, now))


@pytest.mark.usefixtures("shared")
def test_a_worker_that_has_just_started_sends_the_occurrence_of_the_last_minute() -> None:
    now = datetime.now(UTC)
    every_minute = replace(TASK, schedule="* * * * *")
    Scheduler([every_minute], "jobs").send_due(now)
    Scheduler([every_minute], "jobs").send_due(now)
    assert len(received()) == 1


@pytest.mark.usefixtures("shared")
def test_without_an_answer_of_the_cache_each_worker_sends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ailing, "silent", {"add"})
    now = datetime.now(UTC) + timedelta(minutes=5)
    for _ in range(2):
        worker = Scheduler([TASK], "jobs")
        worker.send_due(now)
        worker.send_due(now)
    assert len(received()) == 2
    line = "not known whether sent task=clean_up error=ConnectionError: no answer"
    assert caplog.text.count(line) == 2


@pytest.mark.usefixtures("shared")
def test_an_occurrence_that_cannot_be_confirmed_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ailing, "silent", {"set"})
    worker, now = Scheduler([TASK], "jobs"), datetime.now(UTC) + timedelta(minutes=5)
    assert is_sent_by(worker, now)
    assert not is_sent_by(worker, now)
