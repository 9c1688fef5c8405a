from __future__ import annotations

from typing import Any

import pytest

from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running.definitions.problems import problems_of
from beanstalk_dispatch.safe_task import SafeTask
from tests import jobs


class Works(SafeTask):
    max_retries = 3
    observers = [Observer()]  # noqa: RUF012 - as a project may write it

    def __init__(self, extra: int = 1, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra

    def run(self) -> None:
        pass


class WorksWithProcess(SafeTask):
    def process(self, *args: Any, **kwargs: Any) -> None:
        pass


class WorksWithProperties(Works):
    @staticmethod
    def run() -> None:
        """Needs no self."""

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:  # type: ignore[override]
        return (OSError,)

    @property
    def delivery(self) -> Any:
        return self._delivery

    @delivery.setter
    def delivery(self, value: Any) -> None:
        self._delivery = value


@pytest.mark.parametrize(
    "task_class", [Works, WorksWithProcess, WorksWithProperties, jobs.Recorder, jobs.Choosy]
)
def test_a_class_that_works(task_class: type[SafeTask]) -> None:
    assert problems_of(task_class) == []


def test_the_classes_of_this_test_do_work() -> None:
    task = WorksWithProperties(2)
    task.delivery = "set"
    assert (task.delivery, task.extra, task.retry_on) == ("set", 2, (OSError,))
    task.run()
    Works().run()
    jobs.NoLimit().run()
    WorksWithProcess().process()


NO_OBSERVERS = (
    "observers is not a tuple of Observer instances; write 'observers = (MyObserver(),)', or "
    "choose another name"
)


def run(self: Any) -> None:
    """A run like any other."""


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({}, "it has no run() of its own; write 'def run(self, …)' with the task's work"),
        ({"Run": run}, "it has no run() of its own; write 'def run(self, …)' with the task's work"),
        (
            {"run": lambda: None},
            "run() takes no argument; write 'def run(self, …)', or make it a staticmethod",
        ),
        ({"run": 5}, "run is a int, but SafeTask calls it; choose another name"),
        ({"run": run, "on_error": "mail"}, ("on_error is a str, but SafeTask calls it; choose "
         "another name")),
        ({"run": run, "delivery": "today"}, ("delivery is a str, but SafeTask sets it; choose "
         "another name")),
        ({"run": run, "delivery": property(run)}, ("delivery is a read-only property, but SafeTask "
         "sets it; choose another name")),
        ({"run": run, "retry_on": OSError}, "retry_on is not a tuple of exception classes"),
        ({"run": run, "observers": None}, NO_OBSERVERS),
        ({"run": run, "observers": property(run)}, NO_OBSERVERS),
        ({"run": run, "observers": (Observer,)}, NO_OBSERVERS),
        ({"run": run, "observers": "mail"}, NO_OBSERVERS),
        ({"run": run, "on_success": property(run)}, ("on_success is a property, but SafeTask calls "
         "it; choose another name")),
        ({"run": run, "on_completion": None}, ("on_completion is a NoneType, but SafeTask calls "
         "it; choose another name")),
        ({"run": run, "verbose": "no"}, "verbose: 'no' is not true or false"),
        ({"run": run, "dont_retry_on": (1,)}, "dont_retry_on is not a tuple of exception classes"),
        ({"run": run, "max_retries": "3"}, "max_retries: '3' is not a count"),
        (
            {"run": run, "timeout_timedelta": "30s"},
            "timeout_timedelta: '30s' is a string; write a timedelta or seconds",
        ),
        (
            {"run": run, "__init__": lambda self, needed: None},
            ("__init__() needs the argument 'needed'; a worker makes the task without any, so give "
            "it a default"),
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(attributes: dict[str, Any], problem: str) -> None:
    assert problems_of(type("Wrong", (SafeTask,), attributes)) == [problem]
