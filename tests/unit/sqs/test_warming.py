from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from django.apps import apps

from beanstalk_dispatch import client
from beanstalk_dispatch.client import schedule_function, warm
from beanstalk_dispatch.sqs import opening, session, warming
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.services import NO_COVERAGE
from tests.workers import until


@pytest.fixture
def requests(without_queue: Environment, proxy: Proxy, queue_name: str) -> list[str]:
    """The operations that were requested. ``jobs`` is given by name, ``more`` by URL."""
    url = f"http://127.0.0.1:9/0/{queue_name}"
    without_queue(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_QUEUES=f"jobs={queue_name} more={url}"
    )
    opening._open_queues.reset()
    found: list[str] = []

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        found.append(operation)
        return None

    proxy.spoil = spoil
    return found


def test_queues_are_looked_up_and_nothing_is_sent(
    requests: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warm()
    assert requests == ["GetQueueUrl", "CreateQueue", "GetQueueAttributes", "CreateQueue"]
    assert "warmed up queues=2 ms=" in caplog.text
    requests.clear()
    schedule_function("jobs", "record", 1)
    assert requests == ["SendMessage"]


def test_without_aliases_there_is_a_client(requests: list[str], sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES=None)
    warm()
    assert requests == []
    assert opening._open_queues.clients is not None
    assert len(opening._open_queues.clients._clients) == 1


def test_what_does_not_succeed_is_logged(
    requests: list[str], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.spoil = lambda operation, request: error(403, "AccessDenied")
    warm()
    assert "not warmed up error=GetQueueUrl on tests-" in caplog.text


def test_tasks_that_run_here_need_no_client(requests: list[str], sqs_env: Environment) -> None:
    sqs_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    warm()
    assert requests == []
    assert opening._open_queues.clients is None


@pytest.mark.parametrize(("value", "is_called"), [("True", True), ("", False)])
def test_django_starts_it_in_a_thread(
    env: Environment, monkeypatch: pytest.MonkeyPatch, value: str, is_called: bool
) -> None:
    names: list[str] = []
    monkeypatch.setattr(client, "warm", lambda: names.append(threading.current_thread().name))
    env(DISPATCH_WARM=value)
    apps.get_app_config("beanstalk_dispatch").ready()
    if is_called:
        until(lambda: names)
    assert names == ["beanstalk_dispatch-warm"] * is_called


def test_a_session_uses_the_data_that_an_earlier_one_has_read() -> None:
    first, second = (session._new_session() for _ in range(2))
    loaders = [each._session.get_component("data_loader") for each in (first, second)]
    assert loaders[0] is loaders[1]
    assert len(set(loaders[0].search_paths)) == len(loaders[0].search_paths)


# --- forks -----------------------------------------------------------------------------------


def test_a_fork_waits_until_the_imports_have_ended() -> None:
    fork_lock = warming._fork_lock
    fork_lock.lock.acquire()
    threading.Timer(0.2, fork_lock.lock.release).start()
    started = time.monotonic()
    pid = os.fork()
    if not pid:  # pragma: no cover - the child
        os._exit(0 if fork_lock.lock.acquire(timeout=1) else 1)
    assert time.monotonic() - started >= 0.19
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not fork_lock.lock.locked()


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "FORK_WAIT_SECONDS", 0.05)
    fork_lock = warming._fork_lock
    with fork_lock.lock:
        pid = os.fork()
        if not pid:  # pragma: no cover - the child
            os._exit(0 if fork_lock.lock.acquire(timeout=1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert fork_lock.lock.locked()


FORKS = """
import os, sys
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["beanstalk_dispatch"], BEANSTALK_DISPATCH_WARM=True,
    BEANSTALK_DISPATCH_QUEUES="mail=https://sqs.eu-west-1.amazonaws.com/123456789012/mail",
    BEANSTALK_DISPATCH_SQS_KEY="key", BEANSTALK_DISPATCH_SQS_SECRET="a-secret-key",
    LOGGING={"version": 1, "handlers": {"stderr": {"class": "logging.StreamHandler"}},
             "root": {"handlers": ["stderr"], "level": "INFO"}},
)
django.setup()
for _ in range(3):  # the thread imports boto3 now, or logs that it has
    pid = os.fork()
    if not pid:
        from beanstalk_dispatch.client import warm

        warm()
        os._exit(0 if "boto3" in sys.modules else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.slow
def test_a_process_that_forks_while_it_warms_up_has_children_that_import_and_log() -> None:
    subprocess.run(
        [sys.executable, "-c", FORKS], check=True, timeout=30, env=os.environ | NO_COVERAGE
    )
