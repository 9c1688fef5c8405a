"""The dispatch table: the function or SafeTask subclass of each name, imported once."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import TABLE, TASKS
from beanstalk_dispatch.exceptions import (
    NotImportable,
    TaskTimeout,
    UnknownFunction,
)
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running.limits.outer_limit import (
    IMPORT_SECONDS,
    OuterLimit,
    call_within_outer_limit,
)
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded
from beanstalk_dispatch.safe_task import POLICY, SafeTask, attributes_of

from .configured import configured_observers, safe_task_class
from .declared_tasks import (
    NO_BACKEND,
    declared_in,
    find_declared,
    import_dotted_path,
    is_task_of_django,
    why_no_task,
)
from .entries import Entry, entries_by_name

logger = logging.getLogger("beanstalk_dispatch")

P = ParamSpec("P")
T = TypeVar("T")

_DECORATORS: Final[Sequence[Any]] = (contextmanager, asynccontextmanager)
_CONTEXT_MANAGERS: Final = {each(iter).__code__ for each in _DECORATORS}
"""The code that every function has which one of these decorators has decorated."""
_NOT_INHERITED: Final = frozenset({"delivery", "observers", "schedule"})


class TaskSource(Protocol):
    """The tasks of another library, such as django.tasks. A contrib room registers one.

    The core knows nothing of that library. A source names the objects that are tasks of it, and
    their entries. A task has its dotted path as ``module_path``.
    """

    def is_task(self, listed_object: object) -> bool:
        """Return True if an object is a task of this library. It may be a lazy one."""

    def make_entry(self, name: str, task: Any, config: Config) -> Entry:
        """Return the entry that runs a task of this library."""


_task_sources: Final[list[TaskSource]] = []


def register_tasks(source: TaskSource) -> None:
    """Register the tasks of another library, so that they can run.

    A contrib room calls it when it is imported.
    """
    _task_sources.append(source)
    declared_tasks.cache_clear()
    _resolved_names.cache_clear()
    entries_by_name.cache_clear()


def _is_task(listed_object: object) -> bool:
    """Return True for a task of another library."""
    return any(source.is_task(listed_object) for source in _task_sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """The tasks that BEANSTALK_DISPATCH_TASKS stands for."""

    names: Sequence[str]
    problems: Sequence[str]
    """The reasons why items of the list stand for no task."""


@functools.lru_cache(maxsize=1)
def declared_tasks(config: Config) -> Declared:
    """Import all modules of BEANSTALK_DISPATCH_TASKS, once.

    One that cannot be imported is a problem in the result.
    """
    names: dict[str, None] = {}
    problems = []
    for item in config.tasks:
        try:
            found = import_early(item, declared_in, item, config, _is_task)
        except Exception as exc:
            problems.append(f"{item!r} cannot be imported: {exc}")
            continue
        if not found:
            problems.append(why_no_task(item))
        for name, each in found.items():
            if reason := _why_not_a_task(each, name):
                problems.append(f"{name!r} {reason}")
            else:
                names[name] = None
    return Declared(names=tuple(names), problems=tuple(problems))


def listed_names(config: Config) -> Sequence[str]:
    """Return the names of all tasks that may run. Import the modules that list them."""
    return tuple(dict.fromkeys((*config.table, *declared_tasks(config).names)))


@functools.lru_cache(maxsize=1)
def _resolved_names(config: Config) -> dict[str, Any]:
    """Return a dictionary of the imported objects by their names. It has no limit."""
    return {}


@functools.lru_cache(maxsize=1)
def _not_importable(config: Config) -> dict[str, float]:
    """Return the listed names and modules that failed, with the time of their first failure."""
    return {}


def not_importable(config: Config) -> Mapping[str, float]:
    """Return the listed names and modules that cannot be imported, by name.

    The value is the time of the first failure, in Unix seconds. A name stays here until a message
    or a check has had it imported.
    """
    return {**_not_importable(config)}


def not_importable_since(name: str, config: Config) -> float | None:
    """Return the time of the first failed import of a name or its module, in Unix seconds.

    Return None if no import has failed.
    """
    found = _not_importable(config)
    return found.get(name, found.get(name.rpartition(".")[0]))


def resolve(name: str, config: Config) -> Any:
    """Return the function or SafeTask subclass that a table name stands for, imported once.

    Raise UnknownFunction if there is none, with the message of beanstalk-dispatch 0.1. A
    NotImportable is remembered until the import succeeds.
    """
    resolved = _resolved_names(config)
    if name not in resolved:
        try:
            resolved[name] = _resolve_name(name, config)
        except (NotImportable, SystemExit, TimeLimitExceeded):
            listed_as = name if name in config.table else name.rpartition(".")[0]
            _not_importable(config).setdefault(listed_as, time.time())
            raise
        _not_importable(config).pop(name, None)
    return resolved[name]


def resolve_early(name: str, config: Config) -> Any:
    """Return the same as ``resolve`` where no message has come. See ``import_early``."""
    try:
        return import_early(name, resolve, name, config)
    except ImportError as exc:
        path = config.table.get(name, name)
        raise NotImportable(f"Unable to locate function: {path}") from exc


def import_early(name: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that imports a listed module, where no message has come.

    It has the time that an import has for a message, or one module that hangs would stop all
    others. Raise ImportError if it takes longer, and for a SystemExit. While a message runs,
    SystemExit in the main thread is that of a server that stops.
    """
    try:
        with OuterLimit(IMPORT_SECONDS, lambda: f"import of {name}"):
            return call_within_outer_limit(function, *args, **kwargs)
    except (SystemExit, TaskTimeout) as exc:
        raise ImportError(f"its import raises {exc!r}") from exc


def _resolve_name(name: str, config: Config) -> Any:
    path = config.table.get(name)
    if path is None:
        path, runnable = name, find_declared(name, config, _is_task)
        if runnable is None:
            raise _unknown(name, config)
    else:
        try:
            runnable = import_dotted_path(path)
        except Exception as exc:
            raise NotImportable(f"Unable to locate function: {path}") from exc
    if reason := _why_not_a_task(runnable, path):
        raise UnknownFunction(f"Requested task {reason}: {name}")
    return runnable


def _unknown(name: str, config: Config) -> UnknownFunction:
    if not (config.table or config.tasks):
        return UnknownFunction("No beanstalk dispatch table configured")
    module = name.rpartition(".")[0]
    if module in config.tasks:
        advice = f"{module} defines no such task; list a plain function by its own path"
    else:
        variable = (TASKS if module else TABLE).variable
        advice = f"add it to {variable} on this worker, after a renaming under its old name, too"
    return UnknownFunction(f"Requested function not found: {name}; {advice}")


def _why_not_a_task(runnable: object, path: str) -> str | None:
    """Return the reason why what stands at a path cannot run, or None."""
    if _is_task(runnable):
        return None
    if inspect.isclass(runnable) and not issubclass(runnable, SafeTask):
        return "is not a SafeTask subclass"
    return _why_not_runnable(runnable) or _why_not_callable_alone(path)


def _why_not_runnable(runnable: Any) -> str | None:
    if isinstance(runnable, SafeTask):
        return "is a SafeTask instance; list its class or its function"
    if is_task_of_django(runnable):
        return f"is a task of another backend; {NO_BACKEND}"
    if not callable(runnable):
        return f"is a {type(runnable).__name__}, not a function"
    run: Any = getattr(runnable, "run", None) if inspect.isclass(runnable) else runnable
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        return "is a generator function, which would never run"
    if getattr(run, "__code__", None) in _CONTEXT_MANAGERS:
        return "is a @contextmanager, which would never run; list a function that enters it"
    return None


def _why_not_callable_alone(path: str) -> str | None:
    """Return the problem of a path whose attribute is a method, which needs an instance."""
    parent, _, name = path.rpartition(".")
    owner = None if parent in sys.modules else import_dotted_path(parent)
    if not inspect.isclass(owner):
        return None
    attribute = inspect.getattr_static(owner, name, None)
    if isinstance(attribute, staticmethod | classmethod) or not hasattr(attribute, "__get__"):
        return None
    if issubclass(owner, SafeTask):
        return f"is a method of a SafeTask subclass; list {parent}"
    return (
        "is a method, whose first argument would be taken for self; list a function, or make it a "
        "@staticmethod or a @classmethod"
    )


def entry(name: str, config: Config) -> Entry:
    """Return the table's entry of that name, made once.

    Raise UnknownFunction if there is none, ConfigurationError if the configured class is wrong.
    """
    if (found := entries_by_name(config).get(name)) is None:
        found = _make_entry(name, config)
        if policy := config.policy(name):
            of_run = {option: value for option, value in policy.items() if option in POLICY}
            found = replace(found, options=policy, policy=attributes_of(of_run))
        entries_by_name(config)[name] = found
    return found


def _make_entry(name: str, config: Config) -> Entry:
    listed = resolve(name, config)
    for source in _task_sources:
        if source.is_task(listed):
            return source.make_entry(name, listed, config)
    configured = safe_task_class(config)
    observers = configured_observers(config)
    if not inspect.isclass(listed):
        return Entry(task_class=configured, function=listed, observers=observers)
    runnable: type[SafeTask] = cast("type[SafeTask]", listed)
    own = [each for each in _own_observers(runnable, name) if each not in observers]
    if configured is SafeTask or issubclass(runnable, configured):
        return Entry(task_class=runnable, observers=(*observers, *own))
    if issubclass(configured, runnable):  # a base of the configured class
        return Entry(task_class=configured, observers=(*observers, *own))
    return Entry(
        task_class=runnable,
        configured_class=configured,
        inherited={
            name: value
            for name, value in _plain_attributes(configured).items()
            if not defines(runnable, name)
        },
        observers=(*observers, *own),
    )


def _own_observers(task_class: type[SafeTask], name: str) -> Sequence[Observer]:
    """Return the observers of a listed class.

    Log an error and return none if it has no list of them.
    """
    try:
        return tuple(cast("Sequence[Observer]", task_class.observers))
    except Exception as exc:  # the project's own attribute of this name
        logger.error(
            "observers could not be loaded; the task is not observed function=%s error=%s",
            quoted(name), quoted_error(exc),
        )  # fmt: skip
        return ()


def defines(task_class: type[SafeTask], name: str) -> bool:
    """Return True if the class or a base other than SafeTask has an attribute of that name."""
    return any(name in vars(base) for base in task_class.__mro__ if base not in {SafeTask, object})


def _plain_attributes(task_class: type[SafeTask]) -> dict[str, Any]:
    """Return the public attributes, without methods, of a class and its bases below SafeTask."""
    found: dict[str, Any] = {}
    for base in reversed(task_class.__mro__):
        if base not in {SafeTask, object}:
            found |= {
                name: value
                for name, value in vars(base).items()
                if not name.startswith("_") and name not in _NOT_INHERITED
                and not (callable(value) or hasattr(value, "__get__"))
            }  # fmt: skip
    return found
