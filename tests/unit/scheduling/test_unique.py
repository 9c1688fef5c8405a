"""While the message of a unique call waits, a second one is not sent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import transaction
from django.test import override_settings

from beanstalk_dispatch.client import (
    Call,
    aschedule,
    aschedule_function,
    batching,
    cancel,
    schedule,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results import Status, get_result
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall, SendError
from beanstalk_dispatch.messages import unique_key
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.signals import task_scheduled
from beanstalk_dispatch.sqs.circuit import Circuit
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment
from tests.consumers import run_all
from tests.jobs import calls

CACHE = {"BACKEND": f"{__name__}.Watched"}
operations: list[tuple[Any, ...]] = []
during: list[str] = []


class Watched(LocMemCache):
    """Notes each operation, and the time to live that it sets."""

    def add(self, key: str, value: Any, timeout: Any = None, version: Any = None) -> bool:
        operations.append(("add", timeout))
        return super().add(key, value, timeout, version)

    def get(self, key: str, default: Any = None, version: Any = None) -> Any:
        operations.append(("get",))
        return super().get(key, default, version)

    def touch(self, key: str, timeout: Any = None, version: Any = None) -> bool:
        operations.append(("touch", timeout))
        return super().touch(key, timeout, version)


class Away(LocMemCache):
    def add(self, key: str, value: Any, timeout: Any = None, version: Any = None) -> bool:
        raise OSError("no cache")

    get = touch = add  # type: ignore[assignment]


class Sync(SafeTask, max_attempts=2, backoff=0):
    """Schedules itself again while it runs."""

    def run(self, pk: int, *, kind: str = "full", fails: bool = False) -> None:
        during.append(schedule_function("jobs", "sync", pk=pk, kind=kind))
        if fails:
            raise ValueError("told to fail")


@pytest.fixture
def unique_env(worker_env: Environment) -> Iterator[Environment]:
    worker_env(
        DISPATCH_LEASE_CACHE="default",
        DISPATCH_TABLE=f"record=tests.jobs.record fail=tests.jobs.fail sync={__name__}.Sync",
        DISPATCH_DEAD_LETTER_QUEUE=None,
    )
    with override_settings(CACHES={"default": CACHE}):
        caches["default"].clear()
        for noted in (operations, during, calls):
            noted.clear()
        yield worker_env


def call(*args: Any, **options: Any) -> Call:
    return Call("record", args, unique="sync:7", **options)


def waiting() -> int:
    return len(open_queue("jobs").receive(count=10, wait=0, visibility=0))


def test_a_second_call_gets_the_id_of_the_first_and_is_not_sent(
    unique_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = schedule("jobs", call(1))
    assert operations == [("add", 65.0), ("touch", 3600)]
    assert schedule("jobs", call(2)) == first
    assert f"function=record holder={first}" in caplog.text
    assert schedule("jobs", Call("record", unique="sync:8")) != first
    assert schedule("jobs", Call("fail", unique="sync:7")) != first
    assert waiting() == 3


def test_calls_of_one_batch_are_unique_among_themselves(unique_env: Environment) -> None:
    found = schedule_many("jobs", [call(1), Call("record"), call(2), call(3)])
    assert found[0] == found[2] == found[3] != found[1]
    assert waiting() == 2
    assert schedule_many("jobs", [call(4)]) == [found[0]]


def test_the_key_is_free_when_the_task_starts_so_that_no_update_is_lost(
    unique_env: Environment,
) -> None:
    unique_env(DISPATCH_POLICIES="sync.unique_by=pk")
    first = schedule_function("jobs", "sync", 7)
    assert run_all(deliveries=1) == [Outcome.DONE]
    assert during != [first]
    assert waiting() == 1
    assert schedule_function("jobs", "sync", 7) == during[0]


def test_a_retry_does_not_take_the_key_of_a_later_call(unique_env: Environment) -> None:
    unique_env(DISPATCH_POLICIES="sync.unique_by=pk")
    schedule_function("jobs", "sync", 7, fails=True)
    run_all(deliveries=3)  # the first attempt, its retry, and the message that it has sent
    assert len(set(during)) == 2
    assert schedule_function("jobs", "sync", 7) == during[-1]


def test_until_its_end_the_key_is_kept_through_retries(unique_env: Environment) -> None:
    unique_env(DISPATCH_POLICIES="sync.unique_by=pk sync.unique_until=end")
    first = schedule_function("jobs", "sync", 7, fails=True)
    assert run_all(deliveries=2)[0] is Outcome.RETRY
    assert during == [first, first]
    assert schedule_function("jobs", "sync", 7) != first


def test_after_a_success_it_is_free(unique_env: Environment) -> None:
    first = schedule("jobs", call(unique_until="end"))
    assert run_all() == [Outcome.DONE]
    assert schedule("jobs", call()) != first


@pytest.mark.parametrize("until", ["start", "end"])
def test_a_task_that_does_not_run_frees_its_key(unique_env: Environment, until: str) -> None:
    first = schedule("jobs", call(unique_until=until))
    cancel(first)
    assert run_all() == [Outcome.CANCELLED]
    second = schedule("jobs", call(unique_until=until, expires=0.001))
    assert second != first
    assert run_all() == [Outcome.EXPIRED]
    assert schedule("jobs", call()) not in {first, second}


def test_the_arguments_make_the_key(unique_env: Environment) -> None:
    unique_env(DISPATCH_POLICIES="sync.unique_by=pk+kind sync.unique_for=2m")
    first = schedule_function("jobs", "sync", 7)
    assert operations[1] == ("touch", 120)
    assert schedule_function("jobs", "sync", pk=7, kind="full", fails=True) == first
    assert schedule_function("jobs", "sync", 7, kind="quick") != first
    assert schedule("jobs", Call("sync", [7], unique="own")) != first
    unique_env(DISPATCH_POLICIES="record.unique_by=pk")
    assert schedule_function("jobs", "record", pk=7) == schedule_function("jobs", "record", pk=7)
    with pytest.raises(InvalidCall, match="record: unique_by names 'pk', which the call"):
        schedule_function("jobs", "record", 7)


def test_of_a_task_that_cannot_be_imported_the_named_arguments_are_known(
    unique_env: Environment,
) -> None:
    unique_env(DISPATCH_TABLE="away=tests.nowhere.away", DISPATCH_POLICIES="away.unique_by=pk")
    assert schedule_function("jobs", "away", pk=7) == schedule_function("jobs", "away", pk=7)
    with pytest.raises(InvalidCall, match="away: unique_by names 'pk'"):
        schedule_function("jobs", "away", 7)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"unique": ""}, "unique '' is not a string of 1 to 255"),
        ({"unique": 7}, "unique 7 is not a string"),
        ({"unique_for": 0}, "unique_for 0 is not a number of seconds"),
        ({"unique_for": "1h"}, "unique_for '1h' is not a number of seconds"),
        ({"unique_until": "done"}, "unique_until is 'done'; expected start or end"),
    ],
)
def test_a_wrong_option_is_refused(
    unique_env: Environment, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidCall, match=reason):
        schedule("jobs", Call("record", **{"unique": "k"} | options))


def test_it_needs_a_cache_and_messages_in_json(unique_env: Environment) -> None:
    unique_env(DISPATCH_MESSAGE_FORMAT="base64")
    with pytest.raises(InvalidCall, match="unique needs BEANSTALK_DISPATCH_MESSAGE_FORMAT=json"):
        schedule("jobs", call())
    unique_env(DISPATCH_MESSAGE_FORMAT=None, DISPATCH_LEASE_CACHE=None)
    with pytest.raises(ConfigurationError, match="LEASE_CACHE is not set: a task is unique by"):
        schedule("jobs", call())
    unique_env(DISPATCH_POLICIES="record.unique_by=pk")
    with pytest.raises(ConfigurationError, match="unique_by without BEANSTALK_DISPATCH_LEASE"):
        get_config()


def test_a_delay_and_a_time_of_its_own_make_the_time_to_live(unique_env: Environment) -> None:
    schedule("jobs", call(delay=60, unique_for=timedelta(minutes=5)))
    assert operations == [("add", 65.0), ("touch", 360)]


def test_a_call_that_is_not_sent_frees_its_key(
    unique_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **parameters: Any) -> str:
        raise SendError("no SQS")

    open_queue("jobs")
    with monkeypatch.context() as patch:
        patch.setattr(Circuit, "call", refuse)
        with pytest.raises(SendError, match="no SQS"):
            schedule("jobs", call())
        with pytest.raises(SendError, match="no SQS"):
            schedule_many("jobs", [call(), Call("record")])
    schedule("jobs", call())
    assert waiting() == 1


def test_a_cache_that_is_away_costs_uniqueness_and_one_line(
    unique_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Away"}}):
        assert schedule("jobs", call()) != schedule("jobs", call())
    assert waiting() == 2
    assert caplog.text.count("key not unique id=") == 1
    assert "cache=default error=OSError: no cache" in caplog.text


def test_a_key_that_is_freed_while_it_is_asked_for_is_taken(
    unique_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Message(function="record", unique={"key": "k", "for": 60})
    answers = iter([False, True, False, False, False])
    monkeypatch.setattr(Watched, "add", lambda self, *args, **more: next(answers))
    assert unique_key.claim(message, get_config()) is None
    assert unique_key.claim(message, get_config()) is None
    assert list(answers) == []


def test_the_message_that_holds_the_key_may_be_sent_again(unique_env: Environment) -> None:
    message = Message(function="record", unique={"key": "k", "for": 60})
    assert unique_key.claim(message, get_config()) is None
    assert unique_key.claim(message, get_config()) is None


def test_without_a_cache_a_worker_frees_nothing(unique_env: Environment) -> None:
    schedule("jobs", call())
    unique_env(DISPATCH_LEASE_CACHE=None)
    message = Message(function="record", unique={"key": "k", "for": 60})
    unique_key.free(message, get_config())
    operations.clear()
    assert run_all() == [Outcome.DONE]
    assert operations == []


def test_coroutines_are_unique_too(unique_env: Environment) -> None:
    async def both(*awaitables: Any) -> list[str]:
        return [*await asyncio.gather(*awaitables)]

    first, second = asyncio.run(both(*(aschedule("jobs", call()) for _ in range(2))))
    assert first == second
    unique_env(DISPATCH_POLICIES="sync.unique_by=pk")
    found = asyncio.run(both(*(aschedule_function("jobs", "sync", pk=1) for _ in range(2))))
    assert found[0] == found[1]
    assert waiting() == 2


def test_in_a_block_a_unique_call_is_sent_at_once(unique_env: Environment) -> None:
    with batching("jobs"):
        first = schedule("jobs", call())
        schedule_function("jobs", "record")
        assert waiting() == 1
        assert schedule("jobs", call()) == first
    assert waiting() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kept_in", ["default", "db", None])
def test_the_key_is_asked_for_after_the_commit(
    unique_env: Environment, caplog: pytest.LogCaptureFixture, kept_in: str | None
) -> None:
    caplog.set_level(logging.INFO)
    unique_env(DISPATCH_RESULTS=kept_in)
    with transaction.atomic():
        first = schedule("jobs", call(), on_commit=True)
        second = schedule("jobs", call(), on_commit=True)
        assert ("add", 65.0) not in operations
    assert first != second
    if kept_in:
        superseded = get_result(second)
        assert (superseded.status, superseded.superseded_by) == (Status.READY, first)
        assert get_result(first).superseded_by is None
    assert f"not sent, because its key is held id={second} function=record holder={first}" in (
        caplog.text
    )
    assert waiting() == 1


def test_only_what_was_sent_is_announced(unique_env: Environment) -> None:
    announced: list[str] = []

    def receiver(task_id: str, **kwargs: Any) -> None:
        announced.append(task_id)

    task_scheduled.connect(receiver)
    try:
        first = schedule("jobs", call())
        schedule("jobs", call())
    finally:
        task_scheduled.disconnect(receiver)
    assert announced == [first]


def test_captured_tasks_are_all_there(unique_env: Environment) -> None:
    with capture_tasks() as tasks:
        schedule("jobs", call())
        schedule("jobs", call())
    assert len(tasks) == 2
    assert operations == []


def test_other_calls_ask_the_cache_for_nothing(unique_env: Environment) -> None:
    schedule_many("jobs", [Call("record"), Call("record")])
    assert operations == []
    unique_env(DISPATCH_LEASE_CACHE=None)
    assert run_all() == [Outcome.DONE] * 2
    assert operations == []


@pytest.mark.parametrize(
    "unique", [{"key": "k"}, {"for": 3}, {"key": "", "for": 3}, {"key": "k", "for": 0}]
)
def test_a_message_without_a_key_or_a_time_is_malformed(unique: dict[str, Any]) -> None:
    body = Message(function="record", unique=unique).encode(queue="q")
    with pytest.raises(Exception, match="unique is not an object with a key and a time"):
        Message.decode(body, queue="q")


def test_tasks_that_share_their_slots_have_one_message_group(unique_env: Environment) -> None:
    """So SQS delivers those of other accounts fairly. The group does not show the account."""
    unique_env(DISPATCH_POLICIES="sync.limit_by=pk")
    schedule_function("jobs", "sync", 7)
    schedule_function("jobs", "sync", pk=7, kind="quick")
    schedule_function("jobs", "sync", 8)
    schedule("jobs", Call("sync", [7], group_id="own"))
    schedule_function("jobs", "record", 7)
    received = open_queue("jobs").receive(count=10, wait=0, visibility=0)
    groups = Counter(each.attributes.get("MessageGroupId") for each in received)
    assert sorted(groups.values()) == [1, 1, 1, 2]
    assert (groups["own"], groups[None]) == (1, 1)
    assert {len(each) for each in groups if each not in {"own", None}} == {64}
