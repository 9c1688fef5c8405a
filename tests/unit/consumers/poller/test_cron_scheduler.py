from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from beanstalk_dispatch.consumers.poller import cron_scheduler
from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
from beanstalk_dispatch.messages.cron import PeriodicTask
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment

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
