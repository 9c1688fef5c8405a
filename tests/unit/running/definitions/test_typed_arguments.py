"""Arguments that JSON cannot carry, rebuilt by the annotations of the listed task."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.core import checks

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.tasks import SQSBackend
from beanstalk_dispatch.contrib.tasks.library import task_backends
from beanstalk_dispatch.exceptions import InvalidArgument
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.testing import capture_tasks
from tests import jobs, typed_jobs
from tests.runs import deliver

Environment = Callable[..., None]

MODULE = "tests.typed_jobs"
ID = UUID("0b5f6b5e-0a41-4bb4-8f5c-2b8d8d8f3a01")
DAY = date(2026, 12, 1)
PRICE = Decimal("12.50")


@pytest.fixture
def listed(env: Environment) -> Environment:
    jobs.calls.clear()
    functions = ("one_of_each", "nested", "single", "bare", "pay", "with_context")
    env(
        DISPATCH_TASKS=" ".join([MODULE, *(f"{MODULE}.{each}" for each in functions)]),
        DISPATCH_EXECUTE_SYNCHRONOUSLY=True,
    )
    return env


def test_each_type_comes_back(listed: Environment) -> None:
    given = (
        ID,
        datetime(2026, 12, 1, 12, 30, 0, 7, tzinfo=UTC),
        DAY,
        time(12, 30),
        timedelta(days=2, microseconds=1),
        PRICE,
        typed_jobs.Size.LARGE,
        typed_jobs.Line(ID, PRICE),
        typed_jobs.Address(street="Main", since=DAY),
    )
    schedule_function("jobs", typed_jobs.one_of_each, *given)
    assert jobs.calls == [given]


def test_lists_dicts_and_variable_arguments_come_back(listed: Environment) -> None:
    lines = [typed_jobs.Line(ID, PRICE)]
    days: dict[str, date | None] = {"a": DAY, "b": None}
    schedule_function("jobs", typed_jobs.nested, lines, days, PRICE, PRICE, key=ID)
    assert jobs.calls == [(lines, days, (PRICE, PRICE), {"key": ID})]


def test_only_converted_arguments_are_rebuilt(listed: Environment) -> None:
    text: Any = str(ID)
    schedule_function("jobs", typed_jobs.single, text)
    schedule_function("jobs", typed_jobs.single, id=ID)
    schedule_function("jobs", typed_jobs.single, 5)
    assert jobs.calls == [(text,), (ID,), (5,)]


def test_the_message_lists_them_and_is_plain_json(listed: Environment) -> None:
    with capture_tasks() as tasks:
        schedule_function("jobs", typed_jobs.nested, [], {"a": DAY}, key=ID)
    message = tasks[0].message
    assert (message.args, message.kwargs) == ([[], {"a": "2026-12-01"}], {"key": str(ID)})
    assert message.typed == [1, "key"]
    read = Message.decode(message.encode(queue="q"), queue="q")
    assert (read.typed, read.args, read.kwargs) == (message.typed, message.args, message.kwargs)


def test_a_retry_of_a_class_has_them_too(listed: Environment) -> None:
    schedule_function("jobs", typed_jobs.Ship, ID, fails=True)
    assert jobs.calls == [(ID, [0]), (ID, [0])]


def test_a_django_task_has_them_after_its_context(listed: Environment) -> None:
    schedule_function("jobs", typed_jobs.with_context, PRICE)
    assert jobs.calls == [(PRICE, 1, None, None)]


def test_enqueue_sends_them_too(listed: Environment) -> None:
    task, backend = typed_jobs.with_context, task_backends["default"]
    tags: Any = ("a",)  # which Django makes a list
    result = task.enqueue(PRICE, on=[DAY], tags=tags)
    assert isinstance(backend, SQSBackend)
    backend.enqueue_many([(task, [PRICE], {})])
    assert jobs.calls == [(PRICE, 1, [DAY], ["a"]), (PRICE, 1, None, None)]
    assert (result.args, result.kwargs) == (["12.50"], {"on": ["2026-12-01"], "tags": ["a"]})


@pytest.mark.parametrize(
    ("price", "error"),
    [
        (ID, "Unsupported type: <class 'uuid.UUID'>; or annotate the parameter: price: UUID"),
        ({1}, "Unsupported type: <class 'set'>"),
    ],
)
def test_enqueue_names_the_argument_that_would_not_come_back(
    listed: Environment, price: Any, error: str
) -> None:
    with pytest.raises(TypeError, match=f"^{error}$"):
        typed_jobs.with_context.enqueue(on=[DAY], price=price)


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [
        (typed_jobs.bare, [ID], r"pass str\(value\); or annotate the parameter: value: UUID$"),
        (typed_jobs.bare, [1, DAY], "or annotate the parameter: other: date$"),
        (typed_jobs.single, [DAY], "or annotate the parameter: id: date$"),
        (typed_jobs.pay, [typed_jobs.Bill(7)], "or correct Bill: name 'Hashable' is not defined$"),
        (typed_jobs.single, [(1, 2)], "tuple would come back as a list; pass a list$"),
        (typed_jobs.single, [{DAY}], "set is not JSON; pass a list$"),
        (typed_jobs.single, [{5: DAY}], "JSON keys are strings$"),
        (typed_jobs.single, [float("nan")], "nan is not JSON; pass None or a string$"),
    ],
)
def test_a_value_that_would_not_come_back_is_refused(
    listed: Environment, function: Any, args: list[Any], error: str
) -> None:
    with pytest.raises(InvalidArgument, match=error):
        schedule_function("jobs", function, *args)


def test_without_the_function_at_hand_the_error_is_that_of_json(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_TABLE="elsewhere=shop.no_such.task")
    with pytest.raises(InvalidArgument, match=r"pass str\(value\)$"):
        schedule_function("jobs", "elsewhere", ID)


def test_an_annotation_that_cannot_be_read_is_named_and_spoils_no_other(env: Environment) -> None:
    env(DISPATCH_TASKS=f"{MODULE}.unread", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    schedule_function("jobs", typed_jobs.unread, "a", DAY)
    assert jobs.calls.pop() == ("a", DAY)
    key: Any = ID
    reason = r"or 'key' has an annotation that cannot be read: name 'Hashable' is not defined$"
    with pytest.raises(InvalidArgument, match=reason):
        schedule_function("jobs", typed_jobs.unread, key)


def received(function: str, *args: Any, **kwargs: Any) -> Result:
    typed: list[int | str] = [*range(len(args)), *kwargs]
    message = Message(function=f"{MODULE}.{function}", args=args, kwargs=kwargs, typed=typed)
    return deliver(message.encode(queue="q"), Delivery(queue="q"))


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda: received("single", "no id"), "argument 'id' does not fit "),
        (lambda: received("single", id=[]), "argument 'id' does not fit "),
        (lambda: received("bare", 1), "argument 'value' needs an annotation that says its type"),
        (lambda: received("single", 1, 2), "argument 1 needs an annotation that says its type"),
        (lambda: received("nested", [{"item": 5}], {}), "argument 'lines' does not fit list"),
        (lambda: received("nested", [], [1]), "argument 'days' does not fit dict"),
        (lambda: received("nested", [], {}, 7), "argument 'rest' does not fit Decimal"),
        (
            lambda: received("unread", 7),
            "argument 'key' has an annotation that cannot be read: name 'Hashable'",
        ),
    ],
)
def test_a_message_that_does_not_fit_is_malformed(
    listed: Environment, result: Callable[[], Result], reason: str
) -> None:
    listed(DISPATCH_TASKS=" ".join(f"{MODULE}.{n}" for n in ("single", "bare", "nested", "unread")))
    found = result()
    assert found.outcome is Outcome.MALFORMED
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert jobs.calls == []


@pytest.mark.parametrize("typed", ["id", [-1], [True], [None]])
def test_a_wrong_list_of_them_is_malformed(listed: Environment, typed: Any) -> None:
    body = Message(function=f"{MODULE}.single", args=[1], typed=[0]).encode(queue="q")
    found = deliver(json.dumps(json.loads(body) | {"typed": typed}), Delivery(queue="q"))
    assert (found.outcome, found.reason) == (
        Outcome.MALFORMED, "typed is not a list of positions and names",
    )  # fmt: skip


def test_the_checks_name_annotations_that_nothing_can_fill(env: Environment) -> None:
    env(DISPATCH_TASKS=f"{MODULE} {MODULE}.of_a_model {MODULE}.unread {MODULE}.single")
    found = [each.msg for each in checks.run_checks() if each.id == "beanstalk_dispatch.W027"]
    assert found == [
        f"'{MODULE}.of_a_model': 'user' is annotated as Model, which no message can carry.",
        f"'{MODULE}.unread': its annotations cannot be read: name 'Hashable' is not defined.",
    ]


def test_a_builtin_without_a_signature_is_named(env: Environment) -> None:
    env(DISPATCH_TABLE="largest=builtins.max")
    body = Message(function="largest", args=[1], typed=[0]).encode(queue="q")
    found = deliver(body, Delivery(queue="q"))
    reason = "parameters cannot be read: no signature found for builtin <built-in function max>"
    assert (found.outcome, found.reason) == (Outcome.MALFORMED, f"the task's {reason}")
    assert [each.msg for each in checks.run_checks() if each.id == "beanstalk_dispatch.W027"] == [
        f"'largest': its {reason}."
    ]
