"""Finds the name in the dispatch table of a function, a class or a task that is scheduled."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import TABLE, TASKS
from beanstalk_dispatch.exceptions import InvalidCall, UnknownFunction
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.messages.message import NAME_FORM, is_name
from beanstalk_dispatch.running.definitions.declared_tasks import is_listed
from beanstalk_dispatch.safe_task import SafeTask

from .call import Function, NamedByPath


def table_name(function: Function, config: Config) -> str:
    """Return the table name of ``function``. Raise UnknownFunction or InvalidCall."""
    if isinstance(function, str):
        is_known = function in config.table or not (config.table or config.tasks)
        if not is_known and not is_listed(function, config):
            raise _unlisted_error(function, config)
        if not is_name(function):
            raise InvalidCall(f"function {function[:100]!r} is not {NAME_FORM}")
        return function
    if isinstance(path := getattr(function, "module_path", None), str):  # a Task of django.tasks
        return table_name(_names_by_path(config).get(path, path), config)
    if not callable(function) and not isinstance(function, SafeTask):
        raise UnknownFunction(
            f"expected a function, or its name in {TABLE.variable}, not "
            f"{function!r:.100}; write schedule_function(queue, 'name', 1), and do not call it"
        )
    path = _dotted_path(function)
    name = _names_by_path(config).get(path)
    if name is None and _is_declared(function, path, config):
        return path
    if name is None:
        raise UnknownFunction(
            f"no name in {TABLE.variable} stands for {path}; known: "
            f"{joined([f'{name}={path}' for name, path in config.table.items()])}"
            f"{_advice_on(function, path, config)}"
        )
    return name


def _is_declared(function: object, path: str, config: Config) -> bool:
    """Return True if BEANSTALK_DISPATCH_TASKS lists a path; for a class, its module suffices."""
    is_class = isinstance(function, type) or (
        isinstance(function, SafeTask) and "run" not in vars(function)
    )
    return path in config.tasks or (is_class and path.rpartition(".")[0] in config.tasks)


def _advice_on(function: object, path: str, config: Config) -> str:
    """Say how to have a function listed."""
    is_found_by_path = isinstance(function, SafeTask | type) or inspect.isfunction(function)
    if not is_found_by_path or "<" in path:
        return "; a worker finds a function by its dotted path, so write one in a module"
    if path.rpartition(".")[0] in config.tasks:
        return (
            f"; a module in {TASKS.variable} stands for its SafeTask subclasses and its @task "
            f"functions: add {path} to it"
        )
    if config.table:
        return ""
    return f"; add {path} to {TASKS.variable} here and on the worker, or pass the function's name"


def _unlisted_error(name: str, config: Config) -> UnknownFunction:
    table, tasks = TABLE.variable, TASKS.variable
    if name in config.queues:
        return UnknownFunction(
            f"{name!r} is a queue, and not in {table}; write schedule_function(queue, function, …)"
        )
    if known := _names_by_path(config).get(name):
        return UnknownFunction(f"{name!r} is a path in {table}; write its name there, {known!r}")
    module = name.rpartition(".")[0]
    advice = f"; add {module} to {tasks} here and on the worker" if module else ""
    if not config.tasks:
        known = joined(config.table)
        return UnknownFunction(f"{name!r} is not in {table}; known: {known}{advice}")
    return UnknownFunction(
        f"{name!r} is neither in {table} nor, by itself or by its module, in {tasks}; known: "
        f"{joined([*config.table, *config.tasks])}{advice}"
    )


@functools.lru_cache(maxsize=1)
def _names_by_path(config: Config) -> dict[str, str]:
    return {path: name for name, path in config.table.items()}


def _dotted_path(function: Callable[..., Any] | SafeTask | NamedByPath) -> str:
    target: Any = (
        vars(function).get("run", type(function)) if isinstance(function, SafeTask) else function
    )
    if isinstance(path := getattr(target, "module_path", None), str):  # a Task of django.tasks
        return path
    target = inspect.unwrap(target)
    name = getattr(target, "__qualname__", None)
    return f"{target.__module__}.{name}" if name else f"a {type(target).__name__}"
