from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from django.core import checks

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.problems import start_log
from beanstalk_dispatch.running.definitions import (
    configured,
    declared_tasks,
    dispatch_table,
    entries,
)
from beanstalk_dispatch.running.limits import outer_limit
from beanstalk_dispatch.safe_task import SafeTask
from tests import jobs
from tests.conftest import Environment
from tests.jobs import calls

COUNT = 2_000


def test_each_name_of_a_large_table_is_imported_once(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_TABLE=" ".join(f"name{n}=tests.jobs.record" for n in range(COUNT)))
    imported: list[str] = []
    real = declared_tasks.import_dotted_path

    def import_dotted_path(path: str) -> object:
        imported.append(path)
        return real(path)

    monkeypatch.setattr(dispatch_table, "import_dotted_path", import_dotted_path)
    config = get_config()
    first = [dispatch_table.entry(f"name{n}", config) for n in range(COUNT)]
    again = [dispatch_table.entry(f"name{n}", config) for n in range(COUNT)]
    assert len(imported) == COUNT
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_another_configuration_has_a_table_of_its_own(env: Environment) -> None:
    env(DISPATCH_TABLE="name=tests.jobs.record")
    assert dispatch_table.resolve("name", get_config()) is jobs.record
    env(DISPATCH_TABLE="name=tests.jobs.fail")
    assert dispatch_table.resolve("name", get_config()) is jobs.fail


def test_a_name_that_cannot_be_resolved_is_tried_again(env: Environment) -> None:
    env(DISPATCH_TABLE="name=tests.nowhere.f")
    for _ in range(2):
        with pytest.raises(UnknownFunction, match="Unable to locate function"):
            dispatch_table.resolve("name", get_config())


IS_METHOD = (
    "is a method, whose first argument would be taken for self; list a function, or make it a "
    "@staticmethod or a @classmethod"
)
IS_CONTEXT_MANAGER = "is a @contextmanager, which would never run; list a function that enters it"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("Holder.of_an_instance", IS_METHOD),
        ("Holder.cached_method", IS_METHOD),
        ("Recorder.run", "is a method of a SafeTask subclass; list tests.jobs.Recorder"),
        ("enters", IS_CONTEXT_MANAGER),
        ("enters_later", IS_CONTEXT_MANAGER),
        ("Enters", IS_CONTEXT_MANAGER),
    ],
)
def test_what_would_not_do_what_it_says_is_refused_before_it_runs(
    env: Environment, path: str, reason: str
) -> None:
    env(DISPATCH_TABLE=f"name=tests.jobs.{path}")
    with pytest.raises(UnknownFunction) as caught:
        dispatch_table.resolve("name", get_config())
    assert str(caught.value) == f"Requested task {reason}: name"
    (problem,) = [each for each in checks.run_checks() if each.id == "beanstalk_dispatch.E002"]
    assert reason in problem.msg


def test_what_is_refused_serves_those_who_use_it_as_what_it_is() -> None:
    async def enter_later() -> None:
        async with jobs.enters_later():
            calls.append(("entered later",))

    calls.clear()
    holder = jobs.Holder()
    with jobs.enters(), jobs.Enters().run():
        asyncio.run(enter_later())
    holder.of_an_instance()
    holder.cached_method()
    jobs.Holder.of_the_class()
    assert calls == [
        ("entered later",), ("of an instance", holder), ("of an instance", holder),
        ("of_the_class", jobs.Holder),
    ]  # fmt: skip
    assert jobs.ObserversOfItsOwn().observers == ["a customer"]


class Meta(type):
    """A metaclass of a project."""


class MadeByMeta(SafeTask, metaclass=Meta):
    pass


class LooksUp(SafeTask):
    __getattr__ = object.__getattribute__


@pytest.mark.parametrize(
    ("task_class", "is_plain"),
    [
        (SafeTask, True),
        (jobs.Recorder, True),
        (jobs.NeedsArgument, False),
        (jobs.LimitThatRaises, False),
        (MadeByMeta, False),
        (LooksUp, False),
    ],
)
def test_a_class_is_plain_if_making_a_task_runs_no_code_of_the_project(
    task_class: type[SafeTask], is_plain: bool
) -> None:
    entry = entries.Entry(task_class=task_class, observers=())
    assert entry.is_plain is is_plain


@pytest.mark.parametrize("path", ["Holder.method", "Holder.of_the_class"])
def test_a_method_that_needs_no_instance_runs(env: Environment, path: str) -> None:
    env(DISPATCH_TABLE=f"name=tests.jobs.{path}")
    assert callable(dispatch_table.resolve("name", get_config()))


@pytest.mark.parametrize("name", ["ObserversOfItsOwn", "ObserversOfNone"])
def test_observers_that_are_something_else_keep_no_task_from_running(
    env: Environment, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    env(DISPATCH_TABLE=f"name=tests.jobs.{name}")
    assert dispatch_table.entry("name", get_config()).observers == ()
    assert "observers could not be loaded; the task is not observed function=name" in caplog.text


def test_a_name_of_no_list_is_unknown(env: Environment) -> None:
    with pytest.raises(UnknownFunction, match="^No beanstalk dispatch table configured$"):
        dispatch_table.resolve("a", get_config())
    env(DISPATCH_TASKS="tests.django_tasks")
    with pytest.raises(
        UnknownFunction,
        match="^Requested function not found: a; add it to ",
    ):
        dispatch_table.resolve("a", get_config())


def test_a_room_watches_every_task(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configured, "_observer_sources", [])
    observer = Observer()

    def source(config: Config) -> Sequence[Observer]:
        return [observer] if config.worker else []

    env(DISPATCH_TABLE="record=tests.jobs.record")
    assert configured.configured_observers(get_config()) == ()
    configured.register_observers(source)
    assert configured.configured_observers(get_config()) == ()
    env(DISPATCH_TABLE="record=tests.jobs.record", WORKER=True)
    assert dispatch_table.entry("record", get_config()).observers == (observer,)


def test_a_module_that_hangs_keeps_no_other_from_the_checks(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once, however many checks look at it."""
    (tmp_path / "hanging_tasks.py").write_text("import time\ntime.sleep(30)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(outer_limit, "OUTER_SECONDS", 0.2)
    monkeypatch.setattr(dispatch_table, "IMPORT_SECONDS", 0.3)
    env(DISPATCH_TABLE="a=hanging_tasks.task b=tests.nowhere.task c=tests.jobs.NotATask")
    began = time.monotonic()
    found = [each.msg for each in checks.run_checks() if each.id == "beanstalk_dispatch.E002"]
    assert time.monotonic() - began < 10
    assert len(found) == 3
    assert "its import raises TaskTimeout('time limit of 0.5 s exceeded')" in found[0]
    assert list(dispatch_table.not_importable(get_config())) == ["a", "b"]


def test_a_variable_whose_room_is_missing_is_logged(
    env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for room in ("tasks", "results"):
        monkeypatch.setitem(sys.modules, f"beanstalk_dispatch.contrib.{room}", None)
    env(DISPATCH_TASKS="shop.tasks", DISPATCH_RESULTS="default")
    with caplog.at_level(logging.ERROR):
        start_log.log_rooms()
    (line,) = caplog.messages  # SafeTask subclasses and functions need no room
    assert line.startswith("variable without effect error=BEANSTALK_DISPATCH_RESULTS: import of")
