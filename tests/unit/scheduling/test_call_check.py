from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from beanstalk_dispatch.client import (
    Call,
    aschedule,
    schedule,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import InvalidCall, UnknownFunction
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.scheduling import call_check
from beanstalk_dispatch.signals import delivery_finished
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment

HERE = "tests.unit.scheduling.test_call_check"


def send_welcome(user_id: int, template: str = "plain", *, copies: int = 1) -> None:
    """A task."""


def needs_keyword(*, user_id: int) -> None:
    """A task."""


def takes_anything(*args: Any, **kwargs: Any) -> None:
    """A task."""


def with_user(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("the user", *args, **kwargs)

    return wrapper


@with_user
def decorated(user: str, number: int) -> None:
    """A task, whose decorator passes an argument on."""


class Mail(SafeTask):
    def run(self, user_id: int) -> None:
        """A task."""


class Static(SafeTask):
    @staticmethod
    def run(user_id: int) -> None:
        """A task."""


class WithOwnProcess(SafeTask):
    def process(self, *args: Any, **kwargs: Any) -> None:
        super().process(*args, "one more", **kwargs)

    def run(self, user_id: int, more: str) -> None:
        """A task."""


TABLE = " ".join(
    f"{name}={HERE}.{name}"
    for name in ("send_welcome", "needs_keyword", "takes_anything", "decorated", "Mail", "Static",
                 "WithOwnProcess")
)  # fmt: skip


@contextmanager
def collected() -> Iterator[list[Outcome]]:
    outcomes: list[Outcome] = []

    def receive(*, outcome: Outcome, **_: object) -> None:
        outcomes.append(outcome)

    delivery_finished.connect(receive)
    yield outcomes
    delivery_finished.disconnect(receive)


@pytest.fixture(autouse=True)
def table(env: Environment) -> Environment:
    env(DISPATCH_TABLE=f"{TABLE} builtin=builtins.len missing={HERE}.missing")
    return env


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("send_welcome", [1], {}),
        ("send_welcome", [1, "x"], {"copies": 2}),
        ("send_welcome", [], {"user_id": 1}),
        ("needs_keyword", [], {"user_id": 1}),
        ("takes_anything", [1, 2], {"delay": 3}),
        ("decorated", [1], {}),
        ("Mail", [1], {}),
        ("Static", [1], {}),
        ("WithOwnProcess", [1], {}),
        ("builtin", [1, 2, 3], {}),
        ("missing", [1, 2, 3], {}),
    ],
)
def test_a_call_that_may_be_right_is_scheduled(
    name: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    with capture_tasks() as tasks:
        for _ in range(2):
            schedule_function("q", name, *args, **kwargs)
    assert [task.function for task in tasks] == [name, name]


def test_a_module_that_exits_when_it_is_imported_does_not_end_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exits(*_: object) -> None:
        raise SystemExit(4)

    monkeypatch.setattr(call_check, "entry", exits)
    with capture_tasks() as tasks:
        schedule_function("q", "send_welcome", 1)
    assert len(tasks) == 1


def test_a_task_that_takes_any_names_costs_no_more_memory_with_each_of_them() -> None:
    with capture_tasks() as tasks:
        for number in range(200):
            schedule_function("q", "takes_anything", **{f"name{number}": 1})
    known = call_check._parameters_by_name(get_config())["takes_anything"]
    assert known
    assert len(known.fitting) < len(tasks) == 200


WELCOME = "send_welcome(user_id, template=..., *, copies=...)"
CALL_DELAY = "delay= belongs to Call: schedule(queue, Call('Mail', [...], delay=...))"
ON_COMMIT = "on_commit= belongs to schedule: schedule(queue, Call(...), on_commit=True)"
ARGUMENTS = "for args= and kwargs= write schedule_function(queue, 'Mail', 1, a=2)"
COUNTDOWN = "write Call('Mail', [...], delay=...) for countdown="


@pytest.mark.parametrize(
    ("call", "error", "remedy"),
    [
        (Call("send_welcome"), "missing a required argument: 'user_id'", f"it is {WELCOME}"),
        (Call("send_welcome", [1, 2, 3]), "too many positional arguments", f"it is {WELCOME}"),
        (Call("needs_keyword", [1]), "too many positional arguments",
         "it is needs_keyword(*, user_id)"),
        (Call("Mail", [1], {"delay": 60}), "got an unexpected keyword argument 'delay'",
         f"it is Mail(user_id); {CALL_DELAY}"),
        (Call("Mail", [1], {"on_commit": True}), "got an unexpected keyword argument 'on_commit'",
         f"it is Mail(user_id); {ON_COMMIT}"),
        (Call("Mail", [1], {"countdown": 5}), "got an unexpected keyword argument 'countdown'",
         f"it is Mail(user_id); {COUNTDOWN}"),
        (Call("Mail", [], {"args": [1], "kwargs": {}}), "missing a required argument: 'user_id'",
         f"it is Mail(user_id); {ARGUMENTS}"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_with_what_to_write(call: Call, error: str, remedy: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        schedule("q", call)
    assert str(caught.value) == f"{call.function}: {error}; {remedy}"


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("countdown", "write Call('name', [...], delay=...) for countdown="),
        ("eta", "write Call('name', [...], delay=eta - timezone.now()) for eta="),
        ("timeout", "a time limit is set by @task(timeout=...) or SafeTask(..., timeout=...)"),
    ],
)
def test_options_of_celery_are_refused_with_ours(option: str, advice: str) -> None:
    options: dict[str, Any] = {option: 1}
    with pytest.raises(TypeError) as caught:
        Call("Mail", [1], **options)
    problem = f"Call.__init__() got an unexpected keyword argument '{option}'"
    assert str(caught.value) == f"{problem}; {advice}"


@pytest.mark.parametrize("call", [schedule, async_to_sync(aschedule)])
def test_schedule_takes_one_call(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"takes a queue and one Call: schedule\(queue, Call"):
        call("mail", "Mail", 1)
    with pytest.raises(TypeError, match="delay= belongs to Call"):
        call("mail", Call("Mail", [1]), delay=5)


def test_a_path_in_the_table_has_a_name() -> None:
    with pytest.raises(UnknownFunction, match="write its name there, 'Mail'"):
        schedule_function("q", f"{HERE}.Mail", 1)


def test_what_changes_arguments_is_run_with_what_it_changes(table: Environment) -> None:
    table(DISPATCH_TABLE=TABLE, DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    with collected() as outcomes:
        schedule_function("q", "decorated", 1)
        schedule_function("q", "WithOwnProcess", 1)
    assert outcomes == [Outcome.DONE, Outcome.DONE]


@pytest.mark.parametrize("debug", [False, True])
def test_a_web_process_imports_no_task_for_it(
    debug: bool, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tests.jobs_apart", raising=False)
    sqs_env(DISPATCH_TABLE="apart=tests.jobs_apart.apart")
    with override_settings(DEBUG=debug):
        if debug:
            with pytest.raises(InvalidCall, match="apart: too many positional arguments"):
                schedule_function("jobs", "apart", 1)
        else:
            schedule_function("jobs", "apart", 1)
    assert ("tests.jobs_apart" in sys.modules) is debug


@pytest.mark.parametrize("wrong", ["send_welcome", ("send_welcome", [1])])
def test_what_is_no_call_is_refused(wrong: Any) -> None:
    error = (
        f"expected a Call, got {type(wrong).__name__}; write schedule(queue, Call('name', [1])) or "
        "schedule_function(queue, 'name', 1)"
    )
    for schedule_it in (lambda: schedule("q", wrong), lambda: schedule_many("q", [wrong])):
        with pytest.raises(InvalidCall) as caught:
            schedule_it()
        assert str(caught.value) == error
