from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.deploying.listed_tasks import listed_tasks, longest_time_limit
from beanstalk_dispatch.safe_task import SafeTask
from tests import jobs
from tests.conftest import Environment


class Slow(SafeTask):
    timeout_timedelta = timedelta(minutes=7)
    max_retries = 4

    def run(self) -> None:
        raise NotImplementedError  # pragma: no cover - only looked at


class Company(SafeTask):
    """As BEANSTALK_DISPATCH_SAFE_TASK may name it."""

    timeout_timedelta = timedelta(seconds=30)
    max_retries = 2


class Decided(SafeTask):
    @property
    def timeout_timedelta(self) -> timedelta:  # type: ignore[override]
        raise NotImplementedError  # pragma: no cover - only looked at


HERE = __name__


def rows(env: Environment, **variables: str) -> list[tuple[object, ...]]:
    env(**variables)
    return [
        (t.name, t.time_limit, t.time_limit_from, t.max_retries, t.max_retries_from)
        for t in listed_tasks(get_config())
    ]


def test_each_limit_is_shown_with_its_place(env: Environment) -> None:
    table = f"record=tests.jobs.record slow={HERE}.Slow decided={HERE}.Decided"
    decided = (
        "decided", None, "a property of the class, known when the task runs", None, "default",
    )  # fmt: skip
    assert rows(env, DISPATCH_TABLE=table) == [
        ("record", 120, "default", None, "default"),
        ("slow", 420, "Slow", 4, "Slow"),
        decided,
    ]
    assert rows(env, DISPATCH_TASK_TIMEOUT="90")[0][1:3] == (90, "BEANSTALK_DISPATCH_TASK_TIMEOUT")


def test_the_configured_class_sets_limits_of_functions_and_of_other_classes(
    env: Environment,
) -> None:
    variable = "BEANSTALK_DISPATCH_SAFE_TASK"
    table = f"record=tests.jobs.record slow={HERE}.Slow recorder=tests.jobs.Recorder"
    assert rows(env, DISPATCH_TABLE=table, DISPATCH_SAFE_TASK=f"{HERE}.Company") == [
        ("record", 30, variable, 2, variable),
        ("slow", 420, "Slow", 4, "Slow"),
        ("recorder", 30, variable, 2, variable),
    ]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("tests.nowhere.f", "Unable to locate function: tests.nowhere.f: No module named"),
        ("tests.jobs.NotATask", "Requested task is not a SafeTask subclass: a"),
        ("tests.jobs.WrongLimit", "could not convert string to float: 'five minutes'"),
    ],
)
def test_a_task_that_cannot_run_has_a_problem(env: Environment, path: str, problem: str) -> None:
    env(DISPATCH_TABLE=f"a={path}")
    (task,) = listed_tasks(get_config())
    assert task.problem.startswith(problem)
    assert task.path == path
    assert task.time_limit is None


def test_a_module_that_ends_the_process_is_a_problem(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another_script.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TABLE="a=another_script.main")
    (task,) = listed_tasks(get_config())
    assert task.problem == "its import raises SystemExit(3)"


def test_the_tasks_of_django_have_the_limits_of_their_policy(env: Environment) -> None:
    importlib.import_module("beanstalk_dispatch.contrib.tasks")  # as a process does at its start
    table = "sum=tests.django_tasks.add"
    found = {
        row[0]: row[1:]
        for row in rows(env, DISPATCH_TASKS="tests.django_tasks", DISPATCH_TABLE=table)
    }
    assert found["sum"] == (120, "default", 0, "the task itself")
    assert found["tests.django_tasks.too_slow"] == (0.2, "the task itself", 0, "the task itself")
    assert found["tests.django_tasks.flaky"][2:] == (2, "the task itself")


def test_the_longest_limit_counts_the_default_too(env: Environment) -> None:
    jobs.calls.clear()
    env(DISPATCH_TABLE=f"slow={HERE}.Slow decided={HERE}.Decided")
    assert longest_time_limit(get_config()) == 420
    env(DISPATCH_TASK_TIMEOUT="1h")
    assert longest_time_limit(get_config()) == 3600
    env(DISPATCH_TABLE=None)
    assert longest_time_limit(get_config()) == 3600
    assert jobs.calls == []
