"""The policy of a task: what is accepted, and with which backend it has an effect."""

from __future__ import annotations

import importlib
import pickle
import sys
from datetime import timedelta
from types import ModuleType
from typing import Any

import django
import pytest
from django.db import transaction
from django.test import override_settings

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.tasks import SQSTask, from_environment, library, task
from beanstalk_dispatch.contrib.tasks.library import InvalidTask, task_backends
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.running.definitions.entries import arguments_of
from beanstalk_dispatch.testing import capture_tasks
from tests import django_tasks
from tests.conftest import Environment
from tests.jobs import record

TESTING = "beanstalk_dispatch.contrib.tasks.testing"
any_task: Any = task
DJANGOS = f"{library.PACKAGE}.backends"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "policy",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": "3"},
        {"timeout": 0},
        {"timeout": "5m"},
        {"timeout": timedelta(0)},
        {"backoff": -1},
        {"backoff": True},
        {"retry_on": ValueError},
        {"retry_on": ("ValueError",)},
        {"retry_on": (5,)},
        {"isolation": "container"},
    ],
)
def test_what_cannot_be_meant_is_refused(policy: dict[str, Any]) -> None:
    ((name, value),) = policy.items()
    with pytest.raises(InvalidTask, match=f"^{name} is ") as caught:
        any_task(**policy)(record)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "policy",
    [
        {"max_attempts": 1, "backoff": 0, "timeout": 0.5},
        {"backoff": timedelta(0), "timeout": timedelta(seconds=1), "retry_on": ()},
        {"backoff": lambda exception, result: 5, "retry_on": (OSError, ValueError)},
    ],
)
def test_what_is_accepted(policy: dict[str, Any]) -> None:
    made = any_task(**policy)(record)
    assert isinstance(made, SQSTask)
    assert {name: getattr(made, name) for name in policy} == policy
    again: Any = made.using(queue_name="jobs")
    assert again.retry_on == made.retry_on


def test_a_queues_name_is_a_keyword() -> None:
    decorate: Any = task
    with pytest.raises(TypeError, match=r"write @task\(queue_name='mail'\)"):
        decorate("mail")


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown keyword 'max_retries'; known: max_attempts, ba"):
        any_task(max_retries=3)(record)


@pytest.mark.skipif(django.VERSION[:2] == (6, 0), reason="Django 6.0 passes no keywords on")
def test_djangos_own_decorator_takes_a_policy() -> None:
    made: Any = importlib.import_module(library.PACKAGE).task(max_attempts=3)(record)  # type: ignore[attr-defined]
    assert (type(made), made.max_attempts) == (SQSTask, 3)


@pytest.mark.parametrize("backend", [f"{TESTING}.ImmediateBackend", f"{TESTING}.DummyBackend"])
def test_the_backends_for_tests_accept_policies_and_queues(backend: str) -> None:
    with override_settings(TASKS={"default": {"BACKEND": backend}}):
        made: Any = task(queue_name="mail", max_attempts=3)(record)
        assert made.max_attempts == 3
        result = django_tasks.add.enqueue(1, 2)
        assert result.status == ("SUCCESSFUL" if "Immediate" in backend else "READY")
    entries = {"default": {"BACKEND": backend, "QUEUES": ["mail"]}}
    with override_settings(TASKS=entries), pytest.raises(InvalidTask):
        task(queue_name="other")(record)


def test_with_djangos_backend_the_policy_has_no_effect(tasks_env: Environment) -> None:
    entries = {"default": {"BACKEND": f"{DJANGOS}.immediate.ImmediateBackend"}}
    with override_settings(TASKS=entries):
        made = task(max_attempts=3)(django_tasks.add.func)
        assert type(made) is library.Task
        assert made.enqueue(1, 2).return_value == 3
    found: Any = entry("tests.django_tasks.add", get_config())
    safe_task, _ = type(found)(task_class=found.task_class, observers=(), task=made).make_task()
    assert safe_task.max_retries == 0


@pytest.mark.skipif(
    not hasattr(library.Task, "_reconstruct"), reason="Django's tasks can be pickled from 6.1 on"
)
def test_a_task_can_be_pickled() -> None:
    copied: Any = pickle.loads(pickle.dumps(django_tasks.patient))
    assert copied == django_tasks.patient
    assert copied.max_attempts == 2


@pytest.fixture
def library_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test import the module a second time; puts it back as it was."""
    room = importlib.import_module("beanstalk_dispatch.contrib.tasks")
    monkeypatch.setattr(room, "library", library)
    monkeypatch.delitem(sys.modules, library.__name__)


def test_a_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library_again: None
) -> None:
    package: str = library.PACKAGE  # type: ignore[attr-defined]
    empty = ModuleType(package)
    empty.__path__ = []
    monkeypatch.setitem(sys.modules, package, empty)
    monkeypatch.delitem(sys.modules, f"{package}.base")
    with pytest.raises(ImportError, match=r"pip install 'django-beanstalk-dispatch\[tasks\]'"):
        importlib.import_module(library.__name__)


def test_each_backend_is_its_own() -> None:
    assert task_backends["default"].supports_priority is False


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("value", "waits"), [("true", True), ("false", False)])
def test_the_environment_decides_whether_a_task_waits_for_a_commit(
    tasks_env: Environment, value: str, waits: bool
) -> None:
    tasks_env(DISPATCH_POLICIES=f"tests.django_tasks.on_commit={value}")
    options = {"ENQUEUE_ON_COMMIT": not waits}
    entry_ = {**from_environment()["default"], "OPTIONS": options}
    settings = override_settings(TASKS={"default": entry_})
    with settings, capture_tasks() as captured, transaction.atomic():
        django_tasks.add.enqueue(1, 2)
        assert len(captured) == (0 if waits else 1)


def test_the_environment_wins_over_the_policy_of_a_task(tasks_env: Environment) -> None:
    name = "tests.django_tasks.add"
    tasks_env(DISPATCH_POLICIES=f"{name}.max_attempts=3 {name}.isolation=fresh {name}.expires=9s")
    found = entry(name, get_config())
    safe_task, _ = found.make_task()
    assert (safe_task.max_retries, found.isolation, found.expires) == (2, "fresh", 9)
    other = entry("tests.django_tasks.fail", get_config())
    assert (other.isolation, other.expires, other.make_task()[0].max_retries) == (None, None, 0)


def test_the_arguments_of_a_task_are_those_of_its_function(tasks_env: Environment) -> None:
    found = arguments_of(entry("tests.django_tasks.add", get_config()), [1], {"b": 2})
    assert found == {"a": 1, "b": 2}
