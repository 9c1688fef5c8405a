"""The marks that a task is cancelled and that a queue is paused, in the lease's cache."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings

from beanstalk_dispatch.client import acancel, cancel
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall, LeaseUnavailable
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.record import is_cancelled, pause, paused_since, resume
from beanstalk_dispatch.messages.shared_cache import SharedCache
from beanstalk_dispatch.safe_task import SafeTask
from tests.conftest import Environment
from tests.runs import run_of


@pytest.fixture(autouse=True)
def lease_env(env: Environment) -> Iterator[Environment]:
    env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    yield env
    caches["default"].clear()


def away(*args: Any, **kwargs: Any) -> Any:
    raise ConnectionError("refused")


def test_only_the_task_with_that_id_is_cancelled() -> None:
    cancel("one")
    asyncio.run(acancel("two"))
    assert [is_cancelled(each, get_config()) for each in ("one", "two", "three")] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("task_id", ["", "a\nb", "x" * 256, 5])
def test_what_no_task_can_have_for_an_id_is_refused(task_id: Any) -> None:
    with pytest.raises(InvalidCall, match="a task id is a string of 1 to 255 printable"):
        cancel(task_id)


def test_a_task_stays_cancelled_for_longer_than_sqs_keeps_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[float] = []
    add = caches["default"].add

    def note(key: str, value: float, seconds: float) -> bool:
        kept.append(seconds)
        return add(key, value, seconds)

    monkeypatch.setattr(caches["default"], "add", note)
    cancel("one")
    assert kept == [15 * 86400]


def test_without_a_cache_nothing_is_cancelled_and_nothing_paused(lease_env: Environment) -> None:
    lease_env(DISPATCH_LEASE_CACHE=None)
    for name, call in (("task", cancel), ("queue", pause), ("queue", resume)):
        with pytest.raises(ConfigurationError, match=rf"LEASE_CACHE is not set: a {name} is"):
            call("one")
    assert not is_cancelled("one", get_config())
    assert paused_since(["one"], get_config()) == {}


@pytest.mark.parametrize(
    "call", [cancel, pause, resume, lambda _: paused_since(["q"], get_config())]
)
def test_a_cache_that_does_not_answer_is_an_error(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("add", "delete", "get_many"):
        monkeypatch.setattr(caches["default"], name, away)
    with pytest.raises(LeaseUnavailable, match="ConnectionError of cache 'default'"):
        call("one")


def test_a_cache_that_keeps_nothing_is_an_error() -> None:
    dummy = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    with override_settings(CACHES=dummy), pytest.raises(LeaseUnavailable, match="does not keep"):
        cancel("one")


def test_a_cache_that_is_missing_is_a_configuration_error(lease_env: Environment) -> None:
    lease_env(DISPATCH_LEASE_CACHE="nowhere")
    with pytest.raises(ConfigurationError, match="LEASE_CACHE: cache 'nowhere'"):
        cancel("one")


def test_a_running_task_asks_once_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.0]
    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: times[0])
    task = SafeTask()
    assert not task.cancelled  # it is not running
    task.delivery = run_of(Message(function="f", id="one"))
    seen = [task.cancelled]
    cancel("one")
    seen.append(task.cancelled)
    times[0] = 1.0
    seen.append(task.cancelled)
    times[0] = 2.0
    monkeypatch.setattr(caches["default"], "get", away)
    seen.append(task.cancelled)
    assert seen == [False, False, True, True], "it stays cancelled, whatever the cache says later"


def test_a_delivery_without_a_message_is_not_cancelled() -> None:
    task = SafeTask()
    task.delivery = run_of()
    assert not task.cancelled


def test_a_cache_that_is_away_cancels_nothing_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cancel("one")
    monkeypatch.setattr(caches["default"], "get", away)
    assert not is_cancelled("one", get_config())
    assert caplog.messages == [
        "not known whether cancelled id=one cache=default error=ConnectionError: refused"
    ]


def test_a_cache_that_is_away_stops_nothing_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caches["default"], "get_many", away)
    for _ in range(2):
        assert not record.to_be_stopped(["one", "two"], get_config())
    assert caplog.messages == [
        "not known whether stopped cache=default error=ConnectionError: refused"
    ]


def test_a_queue_is_paused_until_it_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    pause("one")
    found = paused_since(["one", "two"], get_config())
    assert found == {"one": pytest.approx(time.time(), abs=5)}
    pause("one")
    assert paused_since(["one"], get_config()) == found, "it has been paused since the first time"
    assert resume("one")
    assert not resume("one")
    assert paused_since(["one"], get_config()) == {}


def test_names_that_are_not_ascii_have_keys() -> None:
    assert record.paused_key("ä b\ud800") != record.cancelled_key("ä b\ud800")


def test_a_cache_without_its_library_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://h"}
    monkeypatch.setitem(sys.modules, "redis", None)
    with (
        override_settings(CACHES={"leases": backend}),
        pytest.raises(LeaseUnavailable, match="of cache 'leases': import of redis halted"),
    ):
        SharedCache("leases")
