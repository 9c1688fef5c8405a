from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.core.signals import request_started
from django.test import Client, override_settings

from beanstalk_dispatch.problems import check_log
from beanstalk_dispatch.problems.daemon_request import post
from tests.conftest import TABLE, Environment

pytestmark = pytest.mark.django_db(databases="__all__")

PATH = "/beanstalk_dispatch/dispatcher"


def wait_for_checks() -> None:
    """Wait for the thread that logs the checks, if it runs."""
    for thread in threading.enumerate():
        if thread.name == check_log._THREAD:
            thread.join(30)


@pytest.fixture(autouse=True)
def _no_request_yet() -> Iterator[None]:
    check_log.do_not_log_on_first_request()
    yield
    check_log.do_not_log_on_first_request()


def test_a_worker_logs_its_failing_checks_at_its_first_request(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log.log_on_first_request()
    assert caplog.messages == []
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        for _ in range(2):
            Client().post(PATH, HTTP_X_AWS_SQSD_MSGID="1", data=b"", content_type="text/plain")
        wait_for_checks()
    lines = [f"{r.levelname} {r.getMessage()}" for r in caplog.records if "check" in r.getMessage()]
    assert lines == [
        (
            "WARNING check failed id=beanstalk_dispatch.E017 hint=\"Add 'localhost' to "
            "ALLOWED_HOSTS on the worker.\" error=The daemon POSTs to the host 'localhost', which "
            "ALLOWED_HOSTS does not list: Django answers 400 and the message is not run."
        ),
        lines[1],
        "ERROR checks failed ids=beanstalk_dispatch.E017: messages may not run",
    ]
    assert lines[1].startswith("WARNING check failed id=beanstalk_dispatch.W007 hint=")


@pytest.mark.parametrize(
    "request_facts",
    [
        {"environ": {"HTTP_X_AWS_SQSD_MSGID": "1", "PATH_INFO": "/"}},
        {"scope": {"headers": [(b"x-aws-sqsd-msgid", b"1")], "path": "/"}},
    ],
)
def test_a_path_of_the_daemon_that_is_not_the_dispatchers_is_logged_once(
    request_facts: dict[str, Any], env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log.log_on_first_request()
    for facts in (
        {"environ": {"PATH_INFO": "/"}},
        {"environ": {"HTTP_X_AWS_SQSD_MSGID": "1", "PATH_INFO": PATH}},
        request_facts,
        request_facts,
    ):
        request_started.send(None, **facts)
    wait_for_checks()
    assert [each for each in caplog.messages if each.startswith("wrong")] == [
        (
            "wrong path path=/ error=the daemon posts there, and the dispatcher is at "
            f"{PATH}: correct HttpPath, or the url in cron.yaml"
        )
    ]


def test_all_errors_are_one_line_and_so_one_event_in_sentry(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE="a=tests.nowhere.f b=tests.nowhere.g c=tests.jobs.NotATask")
    with override_settings(ALLOWED_HOSTS=["testserver"]):
        check_log.log_failing()
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    ids = "beanstalk_dispatch.E002 beanstalk_dispatch.E017"
    assert line == f"checks failed ids='{ids}': messages may not run"


def test_warnings_alone_are_no_error(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log.log_failing()
    assert "check failed id=beanstalk_dispatch.W007" in caplog.text
    assert {each.levelname for each in caplog.records} == {"WARNING"}


def test_the_doctor_reports_them_itself(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = mock.Mock()
    monkeypatch.setattr(check_log, "_log_failing_in_thread", logs)
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log.log_on_first_request()
    assert post(PATH).status == 200
    wait_for_checks()
    logs.assert_not_called()


@pytest.mark.parametrize("worker", ["False", "Ture"])
def test_another_machine_logs_none(
    env: Environment, caplog: pytest.LogCaptureFixture, worker: str
) -> None:
    env(WORKER=worker)
    check_log.log_on_first_request()
    request_started.send(sender=None)
    assert caplog.messages == []


def test_a_silenced_check_is_not_logged(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    with override_settings(SILENCED_SYSTEM_CHECKS=["beanstalk_dispatch.W007"]):
        check_log.log_failing()
    assert caplog.messages == []


def test_checks_that_cannot_run_fail_no_request(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log.log_on_first_request()
    with override_settings(ROOT_URLCONF="tests.nowhere"):
        request_started.send(sender=None)
        wait_for_checks()
    (line,) = caplog.messages
    assert line.startswith("checks could not run error=ModuleNotFoundError: No module named")


def test_a_process_without_threads_says_that_the_checks_did_not_run(
    env: Environment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log.log_on_first_request()
    monkeypatch.setattr(threading.Thread, "start", start)
    request_started.send(sender=None)
    assert caplog.messages == ["checks could not run error=RuntimeError: can't start new thread"]


def test_of_two_first_requests_one_logs(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    check_log._log_once()  # the other one has disconnected it
    assert caplog.messages == []
