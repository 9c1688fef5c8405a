"""A queue, a cache for results, and what Django's signals have said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.contrib.tasks import library
from tests.conftest import Environment
from tests.jobs import calls

SIGNALS = {
    "enqueued": library.task_enqueued,
    "started": library.task_started,
    "finished": library.task_finished,
}


@pytest.fixture
def tasks_env(worker_env: Environment) -> Environment:
    """A worker that runs the tasks of tests/django_tasks.py."""
    worker_env(DISPATCH_TASKS="tests.django_tasks")
    calls.clear()
    return worker_env


@pytest.fixture
def results_env(tasks_env: Environment) -> Iterator[Environment]:
    """The same, with results in a cache."""
    caches["default"].clear()
    tasks_env(DISPATCH_RESULTS="default")
    yield tasks_env
    caches["default"].clear()


@pytest.fixture
def sent() -> Iterator[list[tuple[Any, ...]]]:
    """Each signal with the status and the attempts at its time."""
    found: list[tuple[Any, ...]] = []

    def receiver(name: str) -> Callable[..., None]:
        def receive(sender: type, task_result: Any, **kwargs: Any) -> None:
            assert sender.__name__ == "SQSBackend"
            found.append((name, str(task_result.status), task_result.attempts))

        return receive

    receivers = {name: receiver(name) for name in SIGNALS}
    for name, signal in SIGNALS.items():
        signal.connect(receivers[name])
    yield found
    for name, signal in SIGNALS.items():
        signal.disconnect(receivers[name])
