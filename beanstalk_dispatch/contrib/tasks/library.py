"""Django's task framework: ``django.tasks``, or its backport ``django_tasks`` on Django 5.2.

The one module that knows how the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import django

if TYPE_CHECKING:
    from django.tasks import (
        DEFAULT_TASK_BACKEND_ALIAS,
        DEFAULT_TASK_QUEUE_NAME,
        Task,
        TaskContext,
        TaskResult,
        TaskResultStatus,
        task_backends,
    )
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.backends.dummy import DummyBackend
    from django.tasks.backends.immediate import ImmediateBackend
    from django.tasks.base import TaskError
    from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist, TaskResultMismatch
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json

    AnyTask: TypeAlias = Task[..., Any]
    AnyResult: TypeAlias = TaskResult[..., Any]
else:
    from importlib import import_module

    PACKAGE: Final = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
    try:
        _base = import_module(f"{PACKAGE}.base")
    except ModuleNotFoundError as exc:
        raise ImportError(
            "it needs Django 6, or the backport: pip install 'django-beanstalk-dispatch[tasks]'"
        ) from exc
    _exceptions = import_module(f"{PACKAGE}.exceptions")
    _signals = import_module(f"{PACKAGE}.signals")
    BaseTaskBackend = import_module(f"{PACKAGE}.backends.base").BaseTaskBackend
    DummyBackend = import_module(f"{PACKAGE}.backends.dummy").DummyBackend
    ImmediateBackend = import_module(f"{PACKAGE}.backends.immediate").ImmediateBackend
    task_backends = import_module(PACKAGE).task_backends
    DEFAULT_TASK_BACKEND_ALIAS = _base.DEFAULT_TASK_BACKEND_ALIAS
    DEFAULT_TASK_QUEUE_NAME = _base.DEFAULT_TASK_QUEUE_NAME
    Task, TaskContext, TaskError = _base.Task, _base.TaskContext, _base.TaskError
    TaskResult, TaskResultStatus = _base.TaskResult, _base.TaskResultStatus
    # The backport's name has another end.
    InvalidTask = getattr(_exceptions, "InvalidTask", None) or _exceptions.InvalidTaskError
    TaskResultDoesNotExist = _exceptions.TaskResultDoesNotExist
    TaskResultMismatch = _exceptions.TaskResultMismatch
    task_enqueued, task_started = _signals.task_enqueued, _signals.task_started
    task_finished = _signals.task_finished
    normalize_json = _base.normalize_json
    AnyTask, AnyResult = Task, TaskResult  # Django's own have no type parameters

_SCALARS: Final = frozenset({str, int, float, bool, NoneType})


def to_json(value: Any) -> Any:
    """Return the value as ``normalize_json`` does, in a tenth of its time for JSON's own types."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is list or kind is tuple:
        return [to_json(each) for each in value]
    if kind is dict:
        return {to_json(key): to_json(each) for key, each in value.items()}
    return normalize_json(value)


def ready_result(
    task: AnyTask,
    *,
    id: str,  # noqa: A002 - as the field of TaskResult
    enqueued_at: datetime | None,
    arguments: tuple[Sequence[Any], Mapping[str, Any]],
    backend: str,
) -> AnyResult:
    """Return the TaskResult of a task that has not started, with ``arguments``, which are JSON."""
    result: AnyResult = TaskResult(
        task=task,
        id=id,
        status=TaskResultStatus.READY,
        enqueued_at=enqueued_at,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=[],
        kwargs={},
        backend=backend,
        errors=[],
        worker_ids=[],
    )
    # TaskResult would normalize them again. It is frozen.
    object.__setattr__(result, "args", arguments[0])
    object.__setattr__(result, "kwargs", arguments[1])
    return result
