from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.signals import request_started
from django.dispatch import Signal
from django.test import override_settings

from beanstalk_dispatch.problems import start_log
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


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ([], []),
        (["BEANSTALK_WORKR", "BEANSTALK_DISPATCH_TABEL", "BEANSTALK_DISPATCH_XYZ"],
         [("unknown variables names='BEANSTALK_DISPATCH_TABEL, BEANSTALK_DISPATCH_XYZ, "
          "BEANSTALK_WORKR' did_you_mean='BEANSTALK_DISPATCH_TABLE, BEANSTALK_WORKER'")]),
        (["BEANSTALK_DISPATCH_XYZ"],
         ["unknown variables names='BEANSTALK_DISPATCH_XYZ' did_you_mean='none'"]),
    ],
)  # fmt: skip
def test_unknown_variables_are_one_warning(
    env: Environment, caplog: pytest.LogCaptureFixture, names: list[str], lines: list[str]
) -> None:
    env(**dict.fromkeys(names, "x"))
    start_log.log_unknown_variables()
    assert [record.getMessage() for record in caplog.records] == lines
    assert {record.levelname for record in caplog.records} <= {"WARNING"}


def test_what_the_settings_overrule_is_one_warning(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER="True", DISPATCH_TABLE="a=m.f", DISPATCH_TASKS="m", DISPATCH_TASK_TIMEOUT="5x")
    with override_settings(
        BEANSTALK_WORKER=False, BEANSTALK_DISPATCH_TABLE={"a": "m.f"},
        BEANSTALK_DISPATCH_TASK_TIMEOUT="5m",
    ):  # fmt: skip
        start_log.log_unknown_variables()
    assert caplog.messages == [
        (
            "variables overruled names='BEANSTALK_DISPATCH_TASK_TIMEOUT, BEANSTALK_WORKER' "
            "error=the Django settings have other values"
        )
    ]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "worker=False reason='BEANSTALK_WORKER is not set' functions=none queues=none"),
        ({"WORKER": "True", "DISPATCH_TABLE": "b=m.f a=m.g", "DISPATCH_QUEUES": "mail=q"},
         "worker=True reason='BEANSTALK_WORKER from environment' functions=a, b queues=mail"),
        ({"WORKER": "Ture"}, "worker=unknown reason=configuration error=1 problem"),
    ],
)  # fmt: skip
def test_the_start_line_says_what_the_process_is(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    expected: str,
) -> None:
    env(**variables)
    with caplog.at_level(logging.INFO):
        start_log.log_start_line()
    record, *more = caplog.records
    assert f"start {expected}" in record.getMessage()
    assert ["start signed=no" in each.getMessage() for each in more] in ([], [True])


@pytest.mark.parametrize(
    ("variables", "levels", "end"),
    [
        (
            {"DISPATCH_SIGNING_KEYS": "a-key-of-the-tests"},
            ["INFO"],
            " signed=yes settings=tests.settings",
        ),
        ({}, ["INFO", "WARNING"], " signed=no settings=tests.settings"),
        ({"WORKER": "True"}, ["INFO", "WARNING"], " signed=no settings=tests.settings"),
        (
            {"DISPATCH_EXECUTE_SYNCHRONOUSLY": "True"},
            ["INFO"],
            " signed=no settings=tests.settings",
        ),
        ({"DISPATCH_SIGNING_KEYS": "short"}, ["ERROR"], "(the value is secret and not shown)"),
    ],
)
def test_the_start_says_whether_messages_are_signed(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    levels: list[str],
    end: str,
) -> None:
    env(**variables)
    with caplog.at_level(logging.INFO):
        start_log.log_start_line()
    assert [record.levelname for record in caplog.records] == levels
    first, *more = [record.getMessage() for record in caplog.records]
    assert first.endswith(end)
    for line in more:
        assert line == (
            "start signed=no: anyone who may send to the queue may run every listed function. Set "
            "BEANSTALK_DISPATCH_SIGNING_KEYS to one long random string, on the web environment "
            'first and then on the worker environment: python -c "import secrets; '
            'print(secrets.token_urlsafe(32))"'
        )


def test_secrets_are_not_in_the_log(
    env: Environment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "secret").write_text("hush1")
    env(DISPATCH_SQS_KEY="hush0", DISPATCH_SQS_SECRET_FILE=tmp_path / "secret",
        DISPATCH_SQS_TOKEN="$hush2", DISPATCH_SIGNING_KEYS="hush3-of-16-or-more",
        DISPATCH_SIGNING_KEY="hush4", WORKER="Ture")  # fmt: skip
    start_log.log_start_line()
    start_log.log_unknown_variables()
    assert "Ture" in caplog.text
    assert "hush" not in caplog.text
