from __future__ import annotations

import threading
from typing import Any

import pytest
from django.apps import apps

from beanstalk_dispatch import client
from beanstalk_dispatch.client import schedule_function, warm
from beanstalk_dispatch.sqs import opening, session
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.workers import until


@pytest.fixture
def requests(without_queue: Environment, proxy: Proxy, queue_name: str) -> list[str]:
    """The operations that were requested. ``jobs`` is given by name, ``more`` by URL."""
    url = f"http://127.0.0.1:9/0/{queue_name}"
    without_queue(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_QUEUES=f"jobs={queue_name} more={url}"
    )
    opening._open_queues.forget()
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
