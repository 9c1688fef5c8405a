"""The problems of a SafeTask subclass, in words, before it runs for the first time."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.safe_task import SafeTask

from .options import problems_of_options
from .signature import signature_of

_METHODS: Final = ("run", "process", "on_error", "on_success", "on_completion", "ready")
_EXCEPTION_LISTS: Final = ("retry_on", "dont_retry_on")


def problems_of(task_class: type[SafeTask]) -> list[str]:
    """Return every reason why the tasks of this class would fail, or not do their work."""
    return [
        *_problems_of_construction(task_class),
        *_problems_of_run(task_class),
        *_problems_of_methods(task_class),
        *_problems_of_attributes(task_class),
        *problems_of_options(task_class),
    ]


def _problems_of_construction(task_class: type[SafeTask]) -> Iterator[str]:
    try:
        parameters = _signature_of(task_class)
    except Exception as exc:  # of an annotation, from Python 3.14 on
        yield f"its parameters cannot be read: {exc}"
        return
    for parameter in parameters:
        is_required = parameter.default is inspect.Parameter.empty
        if is_required and parameter.kind not in {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }:
            yield (
                f"__init__() needs the argument {parameter.name!r}; a worker makes the task "
                "without any, so give it a default"
            )


def _problems_of_run(task_class: type[SafeTask]) -> Iterator[str]:
    has_own_process = task_class.process is not SafeTask.process
    if task_class.run is SafeTask.run:
        if not has_own_process:
            yield "it has no run() of its own; write 'def run(self, …)' with the task's work"
        return
    run = inspect.getattr_static(task_class, "run")
    if inspect.isfunction(run) and not _signature_of(run):
        yield "run() takes no argument; write 'def run(self, …)', or make it a staticmethod"


def _problems_of_methods(task_class: type[SafeTask]) -> Iterator[str]:
    for name in _METHODS:
        value = inspect.getattr_static(task_class, name)
        if not (callable(value) or isinstance(value, staticmethod | classmethod)):
            yield f"{name} is {_kind_of(value)}, but SafeTask calls it; choose another name"


def _problems_of_attributes(task_class: type[SafeTask]) -> Iterator[str]:
    delivery = inspect.getattr_static(task_class, "delivery")
    if isinstance(delivery, property):
        if delivery.fset is None:
            yield "delivery is a read-only property, but SafeTask sets it; choose another name"
    elif delivery is not None:
        yield f"delivery is {_kind_of(delivery)}, but SafeTask sets it; choose another name"
    if not _is_list_of_observers(task_class.observers):
        yield (
            "observers is not a tuple of Observer instances; write 'observers = (MyObserver(),)', "
            "or choose another name"
        )
    for name in _EXCEPTION_LISTS:
        if not _is_list_of_exceptions(getattr(task_class, name)):
            yield f"{name} is not a tuple of exception classes"


def _is_list_of_observers(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(each, Observer) for each in value)


def _is_list_of_exceptions(value: Any) -> bool:
    if isinstance(value, property):
        return True  # known only when a task has failed
    return isinstance(value, tuple | list) and all(
        inspect.isclass(each) and issubclass(each, BaseException) for each in value
    )


def _signature_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(signature_of(function).parameters.values())


def _kind_of(value: object) -> str:
    return f"a {type(value).__name__}"
