from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from beanstalk_dispatch import cron
from beanstalk_dispatch.cron import PeriodicTask
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.worker import cron_scheduler
from beanstalk_dispatch.worker.cron_scheduler import Scheduler
from tests.conftest import Environment

VALID = """\
version: 1
cron:
  - name: clean_up
    url: /beanstalk_dispatch/dispatcher
    schedule: "*/5 * * * *"
"""


def load(tmp_path: Path, content: str) -> list[PeriodicTask]:
    file = tmp_path / "cron.yaml"
    file.write_text(content)
    return cron.load(file)


def test_a_cron_yaml_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, VALID) == [
        PeriodicTask(name="clean_up", url="/beanstalk_dispatch/dispatcher", schedule="*/5 * * * *")
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "while parsing"),
        ("", "version: 1"),
        ("- a", "version: 1"),
        (VALID.replace("1", "2", 1), "version: 1"),
        ("version: 1\ncron: x", "a list under"),
        ("version: 1\ncron: [x]", "entry 1: expected the strings name, url, schedule"),
        (VALID.replace("clean_up", "5"), "entry 1: expected the strings name, url, schedule"),
        (VALID.replace("url: /", "url: "), "is not a path"),
        (VALID.replace("*/5 *", "61 *"), "clean_up: '61"),
    ],
)
def test_a_wrong_cron_yaml_is_one_error(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load(tmp_path, content)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        cron.load(tmp_path / "nowhere.yaml")


def test_a_missing_extra_gives_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(
        ConfigurationError, match=r"pip install 'django-beanstalk-dispatch\[local\]"
    ):
        load(tmp_path, VALID)


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
    assert "periodic task=clean_up was not sent: 'jobs' is not in" in caplog.text


def test_the_scheduler_looks_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler([TASK], "jobs")
    looks: list[datetime] = []
    monkeypatch.setattr(scheduler, "send_due", looks.append)
    monkeypatch.setattr(cron_scheduler, "_LOOK_EVERY", 0.01)
    scheduler.run(lambda: len(looks) == 3)
    assert len(looks) == 3


def test_the_scheduler_outlives_its_errors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = Scheduler([TASK], "jobs")
    looks: list[datetime] = []

    def surprise(now: datetime) -> None:
        looks.append(now)
        raise RuntimeError("surprise")

    monkeypatch.setattr(scheduler, "send_due", surprise)
    monkeypatch.setattr(cron_scheduler, "_LOOK_EVERY", 0.01)
    scheduler.run(lambda: len(looks) == 2)
    assert caplog.text.count("periodic tasks were not sent") == 2
