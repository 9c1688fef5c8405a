"""SQSBackend: what is sent, what is refused, and what Django is told of it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from contextlib import suppress
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from beanstalk_dispatch import client
from beanstalk_dispatch.client import cancel, schedule_function
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.results import get_result
from beanstalk_dispatch.contrib.results.pruning import prune
from beanstalk_dispatch.contrib.tasks import SQSBackend, from_environment, library
from beanstalk_dispatch.contrib.tasks.library import (
    InvalidTask,
    TaskResultDoesNotExist,
    task_backends,
)
from beanstalk_dispatch.exceptions import (
    BatchError,
    ConfigurationError,
    InvalidArgument,
    MessageTooLarge,
    SendError,
    UnknownFunction,
    UnknownQueue,
)
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.scheduling.destination import Destination
from beanstalk_dispatch.testing import capture_tasks
from tests import django_tasks
from tests.conftest import Environment
from tests.consumers import run_all
from tests.django_tasks import add, coroutine, echo, mail
from tests.jobs import calls
from tests.runs import deliver

Sent = list[tuple[Any, ...]]


def backend() -> Any:
    return task_backends["default"]


def test_a_task_is_sent_and_runs(tasks_env: Environment, sent: Sent) -> None:
    result = add.enqueue(1, b=2)
    assert result.status == "READY"
    assert result.enqueued_at is not None
    assert 0 < len(result.id) < 64
    assert sent == [("enqueued", "READY", 0)]
    assert run_all() == [Outcome.DONE]
    assert sent[1:] == [("started", "RUNNING", 1), ("finished", "SUCCESSFUL", 1)]


def test_the_message_is_one_of_the_package(tasks_env: Environment) -> None:
    with capture_tasks() as tasks:
        result = echo.enqueue((1,), b={"x": b"y"})
    message = json.loads(tasks[0].body)
    assert message.pop("sent_at")
    assert message == {
        "v": 1,
        "id": result.id,
        "function": "tests.django_tasks.echo",
        "args": [[1]],
        "kwargs": {"b": {"x": "y"}},
    }


def test_coroutines_enqueue(tasks_env: Environment, sent: Sent) -> None:
    async def enqueue() -> list[Any]:
        return await asyncio.gather(*[coroutine.aenqueue(str(number)) for number in range(3)])

    results = asyncio.run(enqueue())
    assert len({each.id for each in results}) == 3
    assert sent == [("enqueued", "READY", 0)] * 3
    assert run_all() == [Outcome.DONE] * 3
    assert sorted(calls) == [("coroutine", "0"), ("coroutine", "1"), ("coroutine", "2")]


def test_many_are_sent_in_batches(tasks_env: Environment, queue_name: str, sent: Sent) -> None:
    tasks_env(DISPATCH_QUEUES=f"jobs={queue_name} mail={queue_name}-mail")
    tasks: list[Any] = [(add, (n, n), {}) if n % 2 else (mail, (str(n),), {}) for n in range(25)]
    results = backend().enqueue_many(tasks)
    assert [each.args for each in results] == [list(args) for _, args, _ in tasks]
    assert len({each.id for each in results}) == 25
    assert sent == [("enqueued", "READY", 0)] * 25
    assert run_all("mail", deliveries=99) == [Outcome.DONE] * 13
    assert run_all("jobs", deliveries=99) == [Outcome.DONE] * 12
    again = asyncio.run(backend().aenqueue_many(iter([(add, (1, 2), {})])))
    assert len(again) == 1


def test_what_was_not_sent_of_many_is_said_by_its_position(
    tasks_env: Environment, monkeypatch: pytest.MonkeyPatch, sent: Sent
) -> None:
    cause = SendError("no answer")

    def fail(*_: Any, **__: Any) -> None:
        raise BatchError(sent={1: "the-id"}, unsent={0: "no answer"}, refused=[0]) from cause

    monkeypatch.setattr("beanstalk_dispatch.client.send_prepared", fail)
    with pytest.raises(BatchError) as caught:
        backend().enqueue_many([(add, (1, 2), {}), (add, (3, 4), {})])
    assert (caught.value.sent, caught.value.unsent) == ({1: "the-id"}, {0: "no answer"})
    assert caught.value.refused == {0}
    assert caught.value.__cause__ is cause
    assert sent == [("enqueued", "READY", 0)]


def test_nothing_is_sent_if_a_call_for_another_queue_is_wrong(
    tasks_env: Environment, queue_name: str, sent: Sent
) -> None:
    tasks_env(DISPATCH_QUEUES=f"jobs={queue_name} mail={queue_name}-mail")
    with pytest.raises(MessageTooLarge):
        backend().enqueue_many([(mail, ("a",), {}), (add, ("a" * 2_000_000, ""), {})])
    assert sent == []
    assert run_all("mail") == []


def test_nothing_is_sent_if_another_queue_does_not_exist(
    tasks_env: Environment, queue_name: str, sent: Sent
) -> None:
    tasks_env(
        DISPATCH_QUEUES=f"jobs={queue_name} mail={queue_name}-none", DISPATCH_CREATE_QUEUES=False
    )
    with pytest.raises(UnknownQueue):
        backend().enqueue_many([(add, (1, 2), {}), (mail, ("a",), {})])
    assert sent == []
    assert run_all("jobs") == []


def test_a_queue_that_fails_after_another_leaves_its_tasks_unsent(
    tasks_env: Environment, queue_name: str, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks_env(DISPATCH_QUEUES=f"jobs={queue_name} mail={queue_name}-mail")
    send_prepared = client.send_prepared

    def send_to_mail_only(destination: Destination, *args: Any, **kwargs: Any) -> list[str]:
        if destination.name == "jobs":
            raise SendError("no answer")
        return send_prepared(destination, *args, **kwargs)

    monkeypatch.setattr(client, "send_prepared", send_to_mail_only)
    with pytest.raises(BatchError) as caught:
        backend().enqueue_many([(add, (1, 2), {}), (mail, ("a",), {})])
    assert caught.value.unsent == {0: "no answer"}
    assert list(caught.value.sent) == [1]
    assert isinstance(caught.value.__cause__, SendError)
    assert sent == [("enqueued", "READY", 0)]
    assert run_all("mail") == [Outcome.DONE]


@pytest.mark.parametrize("is_async", [False, True])
def test_without_sqs_the_task_has_run(tasks_env: Environment, sent: Sent, is_async: bool) -> None:
    tasks_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    result = asyncio.run(add.aenqueue(1, 2)) if is_async else add.enqueue(1, 2)
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 1)
    assert [name for name, *_ in sent] == ["enqueued", "started", "finished"]
    many = backend().enqueue_many([(add, (1, n), {}) for n in range(3)])
    assert [each.return_value for each in many] == [1, 2, 3]


def test_a_delay_of_any_length_is_one_of_sqs_or_of_hops(tasks_env: Environment) -> None:
    now = timezone.now()
    with capture_tasks() as tasks:
        for seconds in (-5, 60, 86400):
            add.using(run_after=now + timedelta(seconds=seconds)).enqueue(1, 2)
        with override_settings(USE_TZ=False):
            naive = timezone.now() + timedelta(minutes=1)
            add.using(run_after=naive).enqueue(1, 2)
    assert [round(task.delay, -1) for task in tasks] == [0, 60, 86400, 60]


@pytest.mark.django_db(transaction=True)
def test_a_far_delay_stays_in_the_outbox_until_it_is_cancelled(
    tasks_env: Environment, sent: Sent
) -> None:
    tasks_env(DISPATCH_OUTBOX="always", DISPATCH_RESULTS="db")
    result = add.using(run_after=timezone.now() + timedelta(days=30)).enqueue(1, 2)
    cancel(result.id)
    assert not OutboxMessage.objects.exists()
    result.refresh()
    assert (result.status, sent) == (
        "FAILED",
        [("enqueued", "READY", 0), ("finished", "FAILED", 0)],
    )


def test_using_travels_with_the_message(tasks_env: Environment, sent: Sent) -> None:
    seen: list[Any] = []

    def look(task_result: Any, **_: Any) -> None:
        seen.append((task_result.task.queue_name, task_result.backend))

    entries = {name: from_environment()["default"] for name in ("default", "other")}
    library.task_started.connect(look)
    with override_settings(TASKS=entries):
        add.using(queue_name="jobs", backend="other").enqueue(1, 2)
        assert run_all() == [Outcome.DONE]
    add.using(queue_name="jobs").enqueue(1, 2)
    assert run_all() == [Outcome.DONE]
    library.task_started.disconnect(look)
    assert seen == [("jobs", "other"), ("jobs", "default")]


def test_a_backend_that_the_worker_does_not_have_is_the_tasks_own(tasks_env: Environment) -> None:
    entries = {name: from_environment()["default"] for name in ("default", "other")}
    with override_settings(TASKS=entries):
        add.using(backend="other").enqueue(1, 2)
    assert run_all() == [Outcome.DONE]


def test_schedule_function_takes_a_task(tasks_env: Environment) -> None:
    schedule_function("jobs", add, 1, 2)
    schedule_function("jobs", "tests.django_tasks.echo", x=1)
    assert run_all() == [Outcome.DONE, Outcome.DONE]


def test_a_task_in_the_table_runs_under_its_name(tasks_env: Environment, sent: Sent) -> None:
    tasks_env(DISPATCH_TASKS=None, DISPATCH_TABLE="sum=tests.django_tasks.add")
    with capture_tasks() as tasks:
        add.enqueue(1, 2)
        schedule_function("jobs", add, 1, 2)
        schedule_function("jobs", "sum", 1, 2)
        task: Any = SafeTask(add)  # type: ignore[arg-type]
        schedule_function("jobs", task, 1, 2)
    assert [task.function for task in tasks] == ["sum"] * 4
    add.enqueue(1, 2)
    assert run_all() == [Outcome.DONE]
    assert sent[-1] == ("finished", "SUCCESSFUL", 1)


def test_a_process_that_knows_tasks_refuses_others(tasks_env: Environment) -> None:
    tasks_env(DISPATCH_TASKS="tests.django_tasks.add", DISPATCH_TABLE=None)
    with pytest.raises(UnknownFunction, match="is neither in BEANSTALK_DISPATCH_TABLE nor, by"):
        echo.enqueue()
    tasks_env(DISPATCH_TASKS=None, DISPATCH_TABLE="add=tests.django_tasks.add")
    with pytest.raises(UnknownFunction, match="is not in BEANS.*: add; add tests.django_tasks to"):
        echo.enqueue()


def test_a_process_without_a_list_sends_any_task(tasks_env: Environment) -> None:
    tasks_env(DISPATCH_TASKS=None, DISPATCH_TABLE=None)
    assert add.enqueue(1, 2).id


def test_queues_are_the_aliases_and_the_default_is_the_first(
    tasks_env: Environment, queue_name: str
) -> None:
    tasks_env(
        DISPATCH_QUEUES=f"dead={queue_name}-dead jobs={queue_name} mail={queue_name}-mail",
        DISPATCH_DEAD_LETTER_QUEUE="dead",
    )
    with capture_tasks() as tasks:
        add.enqueue(1, 2)
        mail.enqueue("me")
        add.using(queue_name="mail").enqueue(1, 2)
    assert [task.queue for task in tasks] == ["jobs", "mail", "mail"]
    with pytest.raises(InvalidTask, match="Queue 'none' is not valid for backend"):
        add.using(queue_name="none")
    tasks_env(
        DISPATCH_QUEUES=f"mail={queue_name}-mail default={queue_name}",
        DISPATCH_DEAD_LETTER_QUEUE=None,
    )
    with capture_tasks() as tasks:
        add.enqueue(1, 2)
    assert [task.queue for task in tasks] == ["default"]


def test_without_aliases_any_queue_is_taken(tasks_env: Environment, queue_name: str) -> None:
    tasks_env(DISPATCH_QUEUES=None)
    with capture_tasks() as tasks:
        add.using(queue_name=queue_name).enqueue(1, 2)
        add.enqueue(1, 2)
    assert [task.queue for task in tasks] == [queue_name, "default"]


def test_queues_of_the_settings_restrict_them(tasks_env: Environment) -> None:
    entry = {**from_environment()["default"], "QUEUES": ["jobs", "gone"]}
    with override_settings(TASKS={"default": entry}):
        with pytest.raises(InvalidTask):
            add.using(queue_name="mail")
        (message,) = backend().check()
    assert message.id == "beanstalk_dispatch.tasks.E001"
    assert "has the queues gone, which BEANSTALK_DISPATCH_QUEUES" in message.msg
    assert not {each.id for each in backend().check()} & {message.id}


def test_a_wrong_configuration_does_not_break_the_import_of_tasks(tasks_env: Environment) -> None:
    tasks_env(DISPATCH_ON_FAILURE="perhaps")
    assert add.using(queue_name="anything")
    assert backend().supports_get_result is False
    with pytest.raises(ConfigurationError):
        add.enqueue(1, 2)


def test_wrong_calls_are_refused(tasks_env: Environment) -> None:
    with pytest.raises(TypeError):
        echo.enqueue(object())
    with pytest.raises(InvalidArgument):
        echo.enqueue({1: 2})
    with pytest.raises(InvalidTask):
        add.using(priority=1)
    with pytest.raises(InvalidTask, match="Queue 'mail' is not valid"):
        backend().enqueue_many([(mail, ("me",), {})])


@pytest.mark.django_db(transaction=True)
def test_a_transaction_is_waited_for_if_asked(tasks_env: Environment, sent: Sent) -> None:
    tasks_env(DISPATCH_ON_COMMIT=True)
    with capture_tasks() as tasks, transaction.atomic():
        result = add.enqueue(1, 2)
        assert (result.status, len(tasks)) == ("READY", 0)
        assert len(sent) == 1
    assert [task.message.id for task in tasks] == [result.id]
    tasks_env(DISPATCH_ON_COMMIT=False)
    with capture_tasks() as tasks, transaction.atomic():
        add.enqueue(1, 2)
        assert len(tasks) == 1
    tasks_env(DISPATCH_ON_COMMIT=None)
    entry = {**from_environment()["default"], "OPTIONS": {"ENQUEUE_ON_COMMIT": True}}
    with override_settings(TASKS={"default": entry}), capture_tasks() as tasks:
        with transaction.atomic():
            add.enqueue(1, 2)
            assert len(tasks) == 0
        assert len(tasks) == 1


@pytest.mark.django_db(transaction=True)
def test_a_task_of_another_author_waits_for_the_commit_of_its_row(tasks_env: Environment) -> None:
    """As Wagtail's index tasks, which a receiver of post_save enqueues."""
    with capture_tasks() as tasks:
        with transaction.atomic():
            backend().enqueue_many([(add, (1, 2), {})])
            result = add.enqueue(1, 2)
            assert (result.status, len(tasks)) == ("READY", 0)
        assert len(tasks) == 2
        with suppress(ZeroDivisionError), transaction.atomic():
            add.enqueue(1, 2)
            raise ZeroDivisionError
        assert len(tasks) == 2
        add.enqueue(1, 2)
        assert len(tasks) == 3


@pytest.mark.django_db(transaction=True)
def test_outside_of_autocommit_a_task_is_sent_at_once(tasks_env: Environment) -> None:
    """Django knows no callbacks there."""
    transaction.set_autocommit(False)
    try:
        with capture_tasks() as tasks:
            add.enqueue(1, 2)
            assert len(tasks) == 1
    finally:
        transaction.set_autocommit(True)


@pytest.mark.parametrize(
    ("option", "variables", "is_reported"),
    [
        (False, {}, True),
        (None, {"DISPATCH_ON_COMMIT": False}, True),
        (False, {"DISPATCH_OUTBOX": "always"}, False),
        (False, {"DISPATCH_RESULTS": None}, False),
        (None, {}, False),
        (True, {"DISPATCH_ON_COMMIT": False}, False),
    ],
)
def test_a_backend_that_sends_before_the_commit_is_reported(
    results_env: Environment, option: bool | None, variables: dict[str, Any], is_reported: bool
) -> None:
    results_env(**variables)
    options = {} if option is None else {"ENQUEUE_ON_COMMIT": option}
    entry = {**from_environment()["default"], "OPTIONS": options}
    with override_settings(TASKS={"default": entry}):
        found = [each.id for each in backend().check()]
    assert ("beanstalk_dispatch.tasks.W003" in found) is is_reported


def unlisted() -> list[tuple[str, str | None]]:
    """What the check of unlisted tasks says of this process."""
    return [
        (each.msg, each.hint) for each in backend().check()
        if each.id == "beanstalk_dispatch.tasks.W004"
    ]  # fmt: skip


def test_tasks_that_are_not_listed_are_named_with_the_line_to_type(
    tasks_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.startswith("tests.")]:
        monkeypatch.delitem(sys.modules, name)
    module: Any = ModuleType("search.tasks")
    monkeypatch.setitem(sys.modules, "search.tasks", module)
    source = "from beanstalk_dispatch.contrib.tasks import task\n@task\ndef index(pk): pass\n"
    exec(source, vars(module))
    tasks_env(DISPATCH_TABLE="a=tests.jobs.record")
    ((message, hint),) = unlisted()
    assert message.endswith("neither sends nor runs them: search.tasks.index.")
    line = "eb setenv 'BEANSTALK_DISPATCH_TASKS=tests.django_tasks search.tasks'"
    assert hint == line
    for variables in (
        {"DISPATCH_TABLE": "index=search.tasks.index"},
        {"DISPATCH_TASKS": "tests.django_tasks search.tasks.index"},
        {"DISPATCH_TASKS": None, "DISPATCH_TABLE": None, "WORKER": None},  # sends any task
    ):
        tasks_env(**({"DISPATCH_TABLE": "a=tests.jobs.record"} | variables))
        assert unlisted() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("value", "waits"), [("False", False), ("on", True), (None, True)])
def test_the_option_may_be_a_string(tasks_env: Environment, value: object, waits: bool) -> None:
    entry = {**from_environment()["default"], "OPTIONS": {"ENQUEUE_ON_COMMIT": value}}
    with override_settings(TASKS={"default": entry}), capture_tasks() as tasks:
        assert not {each.id for each in backend().check()} & {"beanstalk_dispatch.tasks.E002"}
        with transaction.atomic():
            add.enqueue(1, 2)
            assert len(tasks) == (0 if waits else 1)


def test_wrong_options_are_reported(tasks_env: Environment) -> None:
    options = {"ENQUEUE_ON_COMMIT": "perhaps", "ON_COMMIT": True}
    entry = {**from_environment()["default"], "OPTIONS": options}
    with override_settings(TASKS={"default": entry}):
        wrong = "TASKS['default']: ENQUEUE_ON_COMMIT 'perhaps' is not a boolean"
        with pytest.raises(ConfigurationError, match=re.escape(wrong)):
            add.enqueue(1, 2)
        found = list(backend().check())
    assert [each.id for each in found] == ["beanstalk_dispatch.tasks.E002"] * 2
    assert found[0].msg.startswith(wrong)
    assert found[1].msg == "TASKS['default'] has unknown OPTIONS: ON_COMMIT."


def test_results_need_a_store(tasks_env: Environment) -> None:
    assert backend().supports_get_result is False
    with pytest.raises(NotImplementedError, match="Set BEANSTALK_DISPATCH_RESULTS"):
        add.get_result("some-id")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("store", ["default", "db"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_times_are_those_of_the_store_and_as_django_has_them(
    tasks_env: Environment, store: str, use_tz: bool
) -> None:
    tasks_env(DISPATCH_RESULTS=store)
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"):
        result: Any = add.enqueue(1, 2)
        assert add.get_result(result.id).enqueued_at == result.enqueued_at
        (many,) = backend().enqueue_many([(add, (1, 2), {})])
        assert add.get_result(many.id).enqueued_at == many.enqueued_at
        assert run_all() == [Outcome.DONE] * 2
        result.refresh()
        assert result.enqueued_at < result.started_at < result.finished_at <= timezone.now()
        assert timezone.now() - result.enqueued_at < timedelta(minutes=1)
        record = get_result(result.id)
        assert record.enqueued_at is not None
        assert record.enqueued_at.utcoffset() == timedelta(0)
        assert list(prune()) == []


def test_a_result_is_found_in_each_process(results_env: Environment) -> None:
    assert backend().supports_get_result is True
    result = add.enqueue(1, 2)
    assert add.get_result(result.id).status == "READY"
    assert run_all() == [Outcome.DONE]
    found = add.get_result(result.id)
    assert (found.return_value, found.args, found.backend) == (3, [], "default")
    result.refresh()
    assert result.return_value == 3
    results_env(DISPATCH_TASKS=None, DISPATCH_TABLE=None)  # as a web process has it
    assert asyncio.run(add.aget_result(result.id)).return_value == 3


def test_arguments_are_kept_if_asked(results_env: Environment) -> None:
    results_env(DISPATCH_RESULT_ARGUMENTS=True)
    result = echo.enqueue(1, x=2)
    assert run_all() == [Outcome.DONE]
    found = echo.get_result(result.id)
    assert (found.args, found.kwargs) == ([1], {"x": 2})


def test_unknown_results_are_refused(results_env: Environment) -> None:
    with pytest.raises(TaskResultDoesNotExist, match="no result is kept under the id 'none'"):
        add.get_result("none")
    task_id = schedule_function("jobs", "record")
    with pytest.raises(TaskResultDoesNotExist, match="'record' is not a task of this process"):
        add.get_result(task_id)
    results_env(DISPATCH_TASKS=None, DISPATCH_TABLE=None)
    task_id = schedule_function("jobs", "gone.module.function")
    with pytest.raises(TaskResultDoesNotExist):
        add.get_result(task_id)


def test_the_settings_of_the_environment_make_the_backend() -> None:
    assert isinstance(backend(), SQSBackend)
    assert list(from_environment()) == ["default"]
    assert django_tasks.add.get_backend() is backend()


def test_a_periodic_task_may_be_a_django_task(tasks_env: Environment, sent: Sent) -> None:
    tasks_env(DISPATCH_PERIODIC_TASKS="tests.django_tasks.coroutine")
    tasks_env(DISPATCH_ON_FAILURE="acknowledge")
    name = "tests.django_tasks.coroutine"
    result = deliver(b"", Delivery(queue="q", message_id="id-1", task_name=name))
    assert result.outcome is Outcome.FAILED  # it needs an argument, and cron.yaml has none
    assert [name for name, *_ in sent] == ["started", "finished"]
