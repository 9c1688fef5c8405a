from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from django.core.signals import request_started
from django.dispatch import Signal

from beanstalk_dispatch import start_log
from beanstalk_dispatch.signals import task_scheduled, task_started
from tests.conftest import Environment

pytestmark = pytest.mark.django_db(databases="__all__")  # a request closes connections


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    start_log.log_waiting()
    yield
    start_log.log_waiting()


@pytest.mark.parametrize(
    "arguments",
    [
        ["/venv/bin/gunicorn", "shop.wsgi"],
        ["manage.py", "runserver"],
        ["/venv/bin/django-admin", "testserver"],
        ["-c"],
        [],
    ],
)
def test_a_server_logs_its_start_at_once(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    start_log.log_start()
    assert caplog.messages[0].startswith("start worker=False")
    assert not start_log.log_waiting()


@pytest.mark.parametrize("signal", [request_started, task_scheduled, task_started])
@pytest.mark.parametrize(
    "arguments",
    [
        ["manage.py", "migrate"],
        ["/venv/bin/django-admin", "shell"],
        ["/venv/lib/python3.13/site-packages/django/__main__.py", "check"],
        ["manage.py"],
        ["/venv/bin/mypy", "shop"],
    ],
)
def test_a_command_logs_it_when_it_first_has_to_do_with_tasks(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    signal: Signal,
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    start_log.log_start()
    assert caplog.messages == []
    signal.send(sender=None)
    lines = caplog.messages
    assert lines[0].startswith("start worker=False")
    for other in (request_started, task_scheduled, task_started):
        other.send(sender=None)
    assert caplog.messages == lines
