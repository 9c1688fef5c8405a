from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest

from beanstalk_dispatch.exceptions import MalformedMessage
from beanstalk_dispatch.running.definitions.entries import Entry
from beanstalk_dispatch.running.definitions.options import (
    MIN_RECEIVED_BACKOFF,
    apply_received_options,
    options_to_send,
    problems_of_options,
    time_limit_of,
)
from beanstalk_dispatch.running.retries import retry_delay
from beanstalk_dispatch.safe_task import SafeTask
from tests import jobs
from tests.conftest import Environment


def test_the_time_limit_comes_from_the_configuration(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="7s")
    assert time_limit_of(SafeTask()) == 7
    assert time_limit_of(SafeTask(timeout_timedelta=timedelta(days=1))) == 86400
    assert time_limit_of(SafeTask(timeout_timedelta=1.5)) == 1.5


def test_options_travel_and_come_back() -> None:
    task = SafeTask(
        jobs.record,
        timeout_timedelta=timedelta(seconds=30),
        verbose=False,
        max_retries=3,
        retry_backoff=timedelta(seconds=5),
    )
    options = options_to_send(task)
    assert options == {"timeout": 30.0, "verbose": False, "max_retries": 3, "retry_backoff": 5.0}
    other = SafeTask()
    assert options_to_send(other) == {}
    apply_received_options(other, options | {"unknown": 1})
    assert options_to_send(other) == options


@pytest.mark.parametrize(
    ("received", "expected"),
    [({"max_retries": 10**9}, 100), ({"max_retries": None}, None), ({}, 500)],
)
def test_a_message_may_set_a_hundred_retries(
    received: dict[str, Any], expected: int | None
) -> None:
    task = SafeTask()
    task.max_retries = 500
    apply_received_options(task, received)
    assert task.max_retries == expected


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", -1), ("timeout", "soon"), ("timeout", []), ("verbose", 1), ("max_retries", -1),
     ("max_retries", True), ("max_retries", "3"), ("retry_backoff", None)],
)  # fmt: skip
def test_a_wrong_option_makes_a_malformed_message(option: str, value: object) -> None:
    with pytest.raises(MalformedMessage, match=f"option {option}: "):
        apply_received_options(SafeTask(), {option: value})


def test_an_option_of_any_size_and_depth_is_refused_in_one_line() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 200):
        deep = [deep]
    for value in ("x" * 1_000_000, deep):
        with pytest.raises(MalformedMessage, match="option timeout") as caught:
            apply_received_options(SafeTask(), {"timeout": value})
        assert len(str(caught.value)) <= 200


@pytest.mark.parametrize(("own", "asked", "backoff"), [(10, 0, 1), (0.5, 0, 0.5), (10, 3, 3)])
def test_a_message_cannot_ask_for_retries_without_a_pause(
    own: float, asked: float, backoff: float
) -> None:
    task = SafeTask()
    task.retry_backoff = own
    apply_received_options(task, {"retry_backoff": asked})
    assert task.retry_backoff == backoff


def test_an_option_that_is_set_to_none_does_not_travel() -> None:
    assert options_to_send(SafeTask(jobs.record, timeout_timedelta=None, max_retries=None)) == {}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("timeout_timedelta", "30s", "'30s' is a string; write a timedelta or seconds"),
        ("timeout_timedelta", 0, "0 is out of range; more than 0s and at most 12h"),
        ("retry_backoff", "1m", "'1m' is a string; write a timedelta or seconds"),
        ("max_retries", "3", "'3' is not a count"),
        ("verbose", "no", "'no' is not true or false"),
        ("isolation", "proces", "'proces' is not thread or process or fresh"),
        ("expires_after", "1h", "'1h' is not seconds or a timedelta above 0"),
        ("expires_after", 0, "0 is not seconds or a timedelta above 0"),
    ],
)
def test_a_class_with_an_option_that_cannot_work(name: str, value: object, problem: str) -> None:
    task_class = type("Wrong", (SafeTask,), {name: value})
    (found,) = problems_of_options(task_class)
    assert found.startswith(f"{name}: ")
    assert problem.replace("0 is", "timedelta(0) is") in found or problem.split(" ", 1)[1] in found


@pytest.mark.parametrize("wrong", ["1h", 0, -5, timedelta(0), True])
def test_a_wrong_expiry_deletes_no_message(wrong: Any) -> None:
    class Code(SafeTask, expires=wrong):
        """A task whose author has written a wrong expiry, or 0 for none."""

    assert Entry(task_class=Code, observers=()).expires is None


def test_options_that_work_are_no_problem() -> None:
    class Fine(SafeTask):
        timeout_timedelta = 5
        max_retries = 3
        isolation = "fresh"

        @property
        def retry_backoff(self) -> timedelta:  # type: ignore[override]
            return timedelta(seconds=1)

    assert problems_of_options(Fine) == problems_of_options(SafeTask) == []
    assert Fine().retry_backoff == timedelta(seconds=1)


def test_a_backoff_function_gives_the_delay() -> None:
    def delay(exception: BaseException | None, attempt: int) -> timedelta:
        return timedelta(seconds=attempt * 7)

    task: Any = SafeTask(print, max_retries=2, retry_backoff=delay)
    assert retry_delay(task, ValueError(), 2) == 14
    task.retry_backoff = lambda exception, attempt: -1
    assert retry_delay(task, ValueError(), 2) == 0
    apply_received_options(task, {"retry_backoff": 0})
    assert task.retry_backoff == MIN_RECEIVED_BACKOFF


class OwnDelay(SafeTask):
    def retry_backoff(self, exception: BaseException | None, attempt: int) -> float:
        return 3.5

    def run(self) -> None:
        """Never run here."""


def test_a_method_may_be_the_backoff() -> None:
    assert problems_of_options(OwnDelay) == []
    assert retry_delay(OwnDelay(), None, 1) == 3.5
