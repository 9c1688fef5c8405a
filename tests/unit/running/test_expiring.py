"""A task whose moment has passed does not run, and that is no failure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from django.core.cache import caches

from beanstalk_dispatch.client import Call, schedule
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.calling_process import execute
from beanstalk_dispatch.contrib.results import Status, get_result
from beanstalk_dispatch.contrib.sentry.spans import failure_of
from beanstalk_dispatch.exceptions import InvalidCall, TaskExpired
from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.safe_task import Retry, SafeTask
from beanstalk_dispatch.scheduling.destination import resolve
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment
from tests.jobs import calls
from tests.runs import deliver, deliver_and_keep

HOUR = 3600
NOW = 1_900_000_000.0
seen: list[Any] = []


class Watch(Observer):
    @contextmanager
    def cancelling(self, delivery: RunView) -> Iterator[None]:
        seen.append((delivery.outcome, failure_of(delivery)))
        yield


class Short(SafeTask, expires=HOUR):
    """Is worthless an hour after it was sent."""

    observers = (Watch(),)

    def run(self) -> None:
        raise Retry(delay=2 * HOUR)


class Odd(SafeTask):
    """Has an attribute of this name for itself."""

    expires_after = cast("Any", "never")

    def run(self) -> None:
        calls.append(("odd",))


class Copies(DelayedCopies):
    def __init__(self) -> None:
        self.sent: list[Message] = []

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        self.sent.append(message)


@pytest.fixture(autouse=True)
def table(env: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    env(
        DISPATCH_TABLE=f"record=tests.jobs.record short={__name__}.Short odd={__name__}.Odd",
        DISPATCH_RESULTS="default",
    )
    monkeypatch.setattr(time, "time", lambda: NOW)
    caches["default"].clear()
    calls.clear()
    seen.clear()
    return env


def run(message: Message, consumer: DelayedCopies | None = None, **facts: Any) -> Result:
    body = message.encode(queue="q")
    return deliver(body, Delivery(queue="q", **facts), consumer or Copies())


def not_after(call: Call) -> float | None:
    with capture_tasks() as tasks:
        schedule("q", call)
    assert Message.decode(tasks[0].body, queue="q").not_after == tasks[0].message.not_after
    return tasks[0].message.not_after


def test_a_message_that_comes_after_its_moment_does_not_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    result = run(Message(function="record", id="one", not_after=NOW - 5))
    assert (result.outcome, result.status, result.is_acknowledged) == (Outcome.EXPIRED, 200, True)
    assert not result.is_failure
    assert calls == []
    assert "outcome=expired receive_count=1" in caplog.text
    assert "reason='it expired 5 s ago'" in caplog.text


def test_until_then_it_runs() -> None:
    assert run(Message(function="record", not_after=NOW)).outcome is Outcome.DONE
    assert len(calls) == 1


def test_its_result_is_a_failure_with_that_error() -> None:
    run(Message(function="record", id="one", not_after=NOW - 5))
    result = get_result("one")
    assert result.status is Status.FAILED
    assert result.errors[-1].exception_class_path == "beanstalk_dispatch.exceptions.TaskExpired"
    assert result.attempts == 0


def test_observers_see_it_and_sentry_sees_no_failure() -> None:
    message = Message(function="short", not_after=NOW - 5)
    run_, _ = deliver_and_keep(message.encode(queue="q"), Delivery(queue="q"), Copies())
    assert seen == [(Outcome.EXPIRED, None)]
    assert isinstance(run_.exception, TaskExpired)
    assert run_.is_final is False


def test_a_message_that_waits_for_a_later_hop_expires_at_once() -> None:
    copies = Copies()
    message = Message(function="record", not_before=NOW + 5000, not_after=NOW - 1)
    assert run(message, copies).outcome is Outcome.EXPIRED
    assert copies.sent == []


@pytest.mark.parametrize("expires", [HOUR, timedelta(hours=1), float(HOUR)])
def test_a_call_expires_after_the_moment_when_it_is_due(expires: float | timedelta) -> None:
    assert not_after(Call("record", expires=expires)) == NOW + HOUR
    assert not_after(Call("record", expires=expires, delay=5000)) == NOW + 5000 + HOUR


def test_a_call_may_name_the_moment() -> None:
    moment = datetime.fromtimestamp(NOW + 90, UTC)
    assert not_after(Call("record", expires=moment)) == NOW + 90
    assert not_after(Call("record", expires=moment, delay=60)) == NOW + 90
    assert not_after(Call("record")) is None


@pytest.mark.parametrize(
    ("expires", "reason"),
    [
        (0, "expires 0 has passed"),
        (-1, "expires -1 has passed"),
        (float("nan"), "expires nan has passed"),
        (float("inf"), "expires inf has passed"),
        (datetime.fromtimestamp(NOW + 30, UTC), "has passed when the task is due"),
        (True, "expires True is not a number of seconds, a timedelta or a datetime"),
        ("1h", "expires '1h' is not a number of seconds"),
    ],
)
def test_another_moment_is_refused(expires: Any, reason: str) -> None:
    with pytest.raises(InvalidCall, match=reason):
        not_after(Call("record", expires=expires, delay=60))


def test_a_message_of_0_1_cannot_expire(table: Environment) -> None:
    table(DISPATCH_MESSAGE_FORMAT="base64")
    with pytest.raises(
        InvalidCall, match="record: expires needs BEANSTALK_DISPATCH_MESSAGE_FORMAT"
    ):
        schedule("q", Call("record", expires=HOUR))


# --- by the task's own policy ---


@pytest.mark.parametrize(
    ("times", "facts"),
    [
        ({"sent_at": NOW - HOUR - 1}, {}),
        ({"sent_at": NOW - 9 * HOUR, "not_before": NOW - HOUR - 1}, {}),
        ({}, {"sent_at": NOW - HOUR - 1}),
        ({}, {"scheduled_at": NOW - HOUR - 1, "sent_at": NOW}),
    ],
)
def test_a_task_may_always_expire(times: dict[str, Any], facts: dict[str, Any]) -> None:
    assert run(Message(function="short", **times), **facts).outcome is Outcome.EXPIRED


def test_a_call_with_a_moment_of_its_own_is_not_the_policys() -> None:
    message = Message(function="short", sent_at=NOW - 2 * HOUR, not_after=NOW)
    assert run(message).outcome is Outcome.RETRY


def test_a_retry_keeps_the_moment_of_the_first_message() -> None:
    copies = Copies()
    message = Message(function="short", sent_at=NOW - 60)
    assert run(message, copies).outcome is Outcome.RETRY
    assert [each.not_after for each in copies.sent] == [NOW - 60 + HOUR]
    assert run(replace(copies.sent[0], sent_at=NOW), copies).outcome is Outcome.RETRY
    assert copies.sent[1].not_after == NOW - 60 + HOUR


def test_a_message_whose_time_nobody_knows_does_not_expire() -> None:
    assert run(Message(function="short")).outcome is Outcome.RETRY


def test_an_attribute_that_is_no_time_is_the_projects_own() -> None:
    assert entry("odd", get_config()).expires is None
    assert run(Message(function="odd", sent_at=1)).outcome is Outcome.DONE


def test_it_expires_in_the_calling_process_as_well(table: Environment) -> None:
    table(DISPATCH_EXECUTE_SYNCHRONOUSLY="True")
    body = Message(function="record", not_after=NOW - 1).encode(queue="q")
    _, result = execute(resolve("q", get_config(), is_local=True), body)
    assert result.outcome is Outcome.EXPIRED
