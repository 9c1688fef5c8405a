"""Tasks that BEANSTALK_DISPATCH_TASKS lists by their module or by their path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core import checks

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.conf import get_config, import_rooms
from beanstalk_dispatch.deploying.listed_tasks import listed_tasks
from beanstalk_dispatch.exceptions import InvalidCall, UnknownFunction
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.safe_task import SafeTask
from tests import declared_jobs, django_tasks, jobs

Environment = Callable[..., None]

MODULE = "tests.declared_jobs"
DJANGO_TASKS = django_tasks.__name__  # imported before a test replaces the libraries of tasks
NO_TASK = f"{MODULE} defines no such task; list a plain function by its own path"


@pytest.fixture(autouse=True)
def no_calls() -> None:
    jobs.calls.clear()


def here(env: Environment, tasks: str, **variables: Any) -> None:
    env(DISPATCH_TASKS=tasks, DISPATCH_EXECUTE_SYNCHRONOUSLY=True, **variables)


@pytest.mark.parametrize(
    "variables",
    [{"DISPATCH_TASKS": DJANGO_TASKS}, {"DISPATCH_TABLE": "add=tests.django_tasks.add"}],
)
def test_tasks_of_a_project_without_our_backend_say_what_to_write(
    variables: dict[str, str], env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch_table, "_task_sources", [])  # as without contrib.tasks
    env(**variables)
    [found] = checks.run_checks(tags=["beanstalk_dispatch"])
    assert "of another backend; write TASKS = {'default': {'BACKEND': 'beanst" in found.msg


@pytest.mark.parametrize("name", ["Report", "add"])
def test_a_package_that_imports_its_tasks_says_which_module_defines_them(
    name: str, env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = {"Report": MODULE, "add": DJANGO_TASKS}[name]
    (tmp_path / f"all_{name}.py").write_text(
        f"from beanstalk_dispatch.safe_task import SafeTask\nfrom {home} import {name}\n"
        f"from {MODULE} import lazy\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TASKS=f"all_{name}")
    [found] = checks.run_checks(tags=["beanstalk_dispatch"])
    assert found.msg.endswith(f"and no @task, it only imports them; write {home}.")


def test_another_object_of_djangos_tasks_is_no_task(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_tasks.py").write_text(
        "from beanstalk_dispatch.contrib.tasks.library import TaskResultStatus\n"
        "FINISHED = TaskResultStatus.SUCCESSFUL\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TASKS="no_tasks")
    [found] = checks.run_checks(tags=["beanstalk_dispatch"])
    assert found.msg.endswith("'no_tasks' defines no SafeTask subclass and no @task.")


def test_a_module_lists_the_classes_that_it_defines(env: Environment) -> None:
    env(DISPATCH_TASKS=MODULE)
    assert dispatch_table.listed_names(get_config()) == (f"{MODULE}.Report", f"{MODULE}.Misspelt")
    found = dispatch_table.resolve(f"{MODULE}.Report", get_config())
    assert found is declared_jobs.Report


@pytest.mark.parametrize("name", ["Base", "plain", "Recorder", "record", "calls", "lazy"])
def test_a_module_lists_nothing_else(env: Environment, name: str) -> None:
    env(DISPATCH_TASKS=MODULE)
    expected = f"^Requested function not found: {MODULE}.{name}; {NO_TASK}$"
    with pytest.raises(UnknownFunction, match=expected):
        dispatch_table.resolve(f"{MODULE}.{name}", get_config())


def test_the_configured_class_is_no_task_of_its_module(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_class.py").write_text(
        "from beanstalk_dispatch.safe_task import SafeTask\nclass Ours(SafeTask): verbose = False\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TASKS="with_class", DISPATCH_SAFE_TASK="with_class.Ours")
    assert dispatch_table.listed_names(get_config()) == ()


def test_both_run_when_they_are_scheduled_by_themselves(env: Environment) -> None:
    here(env, f"{MODULE} {MODULE}.plain")
    schedule_function("jobs", declared_jobs.Report, 1)
    schedule_function("jobs", declared_jobs.plain, 2)
    schedule_function("jobs", f"{MODULE}.Report", 3)
    schedule_function("jobs", SafeTask(declared_jobs.plain), 4)
    assert jobs.calls == [("report", 1), ("plain", 2), ("report", 3), ("plain", 4)]


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (declared_jobs.plain, f"stands for its SafeTask .*: add {MODULE}.plain to it"),
        (SafeTask(declared_jobs.plain), f"add {MODULE}.plain to it"),
        (jobs.record, "add tests.jobs.record to BEANSTALK_DISPATCH_TASKS here and on the worker"),
        (f"{MODULE}.plain", NO_TASK),
        (f"{MODULE}.missing", NO_TASK),
        ("tests.jobs.record", f"by its module, in BEANSTALK_DISPATCH_TASKS; known: {MODULE}"),
    ],
)
def test_a_task_that_is_not_listed_is_refused_with_the_remedy(
    sqs_env: Environment, function: Any, error: str
) -> None:
    sqs_env(DISPATCH_TASKS=MODULE, DISPATCH_TABLE=None)
    with pytest.raises(UnknownFunction, match=error):
        schedule_function("jobs", function, 1)


def test_arguments_are_checked_as_those_of_the_table(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_TASKS=MODULE, DISPATCH_TABLE=None)
    misspelt: dict[str, Any] = {"nummer": 1}
    with pytest.raises(InvalidCall, match=r"it is tests.declared_jobs.Report\(number\)"):
        schedule_function("jobs", declared_jobs.Report, **misspelt)


def test_the_limits_and_the_schedule_are_those_of_the_class(env: Environment) -> None:
    env(DISPATCH_TASKS=f"{MODULE} {MODULE}.plain")
    report, misspelt, plain = listed_tasks(get_config())
    assert (report.path, report.time_limit, report.max_retries) == (report.name, 7.0, 2)
    assert (report.schedule, plain.schedule, misspelt.problem) == ("17 4 * * *", "", "")


def test_a_class_without_run_is_a_finding(env: Environment) -> None:
    env(DISPATCH_TASKS=MODULE)
    (finding,) = [each for each in checks.run_checks() if MODULE in each.msg]
    assert finding.msg.startswith(f"'{MODULE}.Misspelt' does not fit SafeTask: ")
    assert finding.hint == f"Correct the class {MODULE}.Misspelt."


def test_an_item_that_stands_for_no_task_is_a_problem(env: Environment) -> None:
    env(
        DISPATCH_TASKS="textwrap tests.asgi no.such.module tests.jobs.gone tests.jobs.calls "
        "tests.jobs.a_number tests.jobs.NotATask tests.broken_module nowhere tests.jobs.record"
    )
    no_task = "defines no SafeTask subclass and no @task"
    no_attribute = 'cannot be imported: Module "{}" does not define a "{}" attribute/class'
    assert list(dispatch_table.declared_tasks(get_config()).problems) == [
        f"'textwrap' {no_task}; list a function by its path, such as textwrap.wrap",
        f"'tests.asgi' {no_task}",
        "'no.such.module' cannot be imported: No module named 'no'",
        f"'tests.jobs.gone' {no_attribute.format('tests.jobs', 'gone')}",
        "'tests.jobs.calls' is a list, not a function",
        "'tests.jobs.a_number' is a int, not a function",
        "'tests.jobs.NotATask' is not a SafeTask subclass",
        f"'tests.broken_module' {no_attribute.format('tests', 'broken_module')}",
        "'nowhere' cannot be imported: No module named 'nowhere'",
    ]
    assert dispatch_table.listed_names(get_config()) == ("tests.jobs.record",)


def test_a_module_lists_the_django_tasks_that_it_defines(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_tasks.py").write_text(
        "from beanstalk_dispatch.contrib.tasks import task\n"
        "from tests.django_tasks import add, fail\n"
        "@task\ndef own() -> None: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "their_tasks", None)
    monkeypatch.delitem(sys.modules, "their_tasks")  # and again after the test
    env(DISPATCH_TASKS="their_tasks tests.django_tasks.add")
    assert import_rooms() == []
    config = get_config()
    assert dispatch_table.listed_names(config) == ("their_tasks.own", "tests.django_tasks.add")
    assert dispatch_table.resolve("tests.django_tasks.add", config).module_path.endswith(".add")
    with pytest.raises(UnknownFunction):
        dispatch_table.resolve("tests.django_tasks.fail", config)


def test_a_module_that_ends_the_process_is_a_problem(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit('usage: a_script FILE')\n")
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TASKS=f"a_script {MODULE}.plain", DISPATCH_TABLE="run=a_script.main")
    problem = "its import raises SystemExit('usage: a_script FILE')"
    found = [each.msg for each in checks.run_checks() if "a_script" in each.msg]
    assert [each.partition("a_script.main: ")[2] or each for each in found] == [
        problem, f"BEANSTALK_DISPATCH_TASKS: 'a_script' cannot be imported: {problem}.",
    ]  # fmt: skip


def test_a_module_is_tried_once_by_the_checks(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    (tmp_path / "costly_tasks.py").write_text(
        f"with open({str(marks)!r}, 'a') as f: f.write('x')\nraise RuntimeError('no database')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TASKS="costly_tasks", WORKER=True)
    found = [each.msg for each in checks.run_checks() if "costly_tasks" in each.msg]
    assert found == ["BEANSTALK_DISPATCH_TASKS: 'costly_tasks' cannot be imported: no database."]
    assert marks.read_text() == "x"
    assert "costly_tasks" not in sys.modules
