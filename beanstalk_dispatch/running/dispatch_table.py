"""The dispatch table: the function or SafeTask subclass of each name, imported once."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from django.utils.module_loading import import_string

from beanstalk_dispatch.conf import CORE, Config, values_of
from beanstalk_dispatch.conf.variables import SAFE_TASK, TABLE, TASKS
from beanstalk_dispatch.exceptions import (
    ConfigurationError,
    NotImportable,
    TaskTimeout,
    UnknownFunction,
)
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.safe_task import ISOLATIONS, POLICY, SafeTask, attributes_of

from .declared_tasks import (
    NO_BACKEND,
    declared_in,
    find_declared,
    import_dotted_path,
    is_task_of_django,
    why_no_task,
)
from .outer_limit import IMPORT_SECONDS, OuterLimit, call_within
from .task_options import is_duration, seconds_of
from .time_limit import TimeLimitExceeded

logger = logging.getLogger("beanstalk_dispatch")

P = ParamSpec("P")
T = TypeVar("T")

_DECORATORS: Final[Sequence[Any]] = (contextmanager, asynccontextmanager)
_CONTEXT_MANAGERS: Final = {each(iter).__code__ for each in _DECORATORS}
"""The code that every function has which one of these decorators has decorated."""
_NOT_INHERITED: Final = frozenset({"delivery", "observers", "schedule"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the table, ready to be run."""

    task_class: type[SafeTask]
    """The class that runs it: the listed one, or the configured one around a plain function."""
    function: Any = None
    """The plain function that is listed; None for a class."""
    configured_class: type[SafeTask] | None = None
    """The configured class, if the listed class does not inherit from it: its hooks run as well."""
    inherited: Mapping[str, Any] = field(default_factory=dict)
    """Attributes such as ``max_retries`` that only the configured class sets."""
    observers: Sequence[Observer]
    """The observers of its attempts."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of BEANSTALK_DISPATCH_POLICIES, such as ``limit``."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The attributes that they set."""
    is_plain: bool = field(init=False, default=False)
    """True if making a task runs no code of the project, so that it needs no time limit."""

    @property
    def isolation(self) -> str | None:
        """Return the ``isolation`` that the task sets. None leaves it to the configuration."""
        own = self.option("isolation")
        return own if own in ISOLATIONS else None

    @property
    def expires(self) -> float | None:
        """Return the seconds after which a message of the task is worthless; None means never."""
        own = self.option("expires")
        return seconds_of(own) if is_duration(own) else None

    @property
    def signed(self) -> tuple[Callable[..., Any], int]:
        """Return the function with the task's parameters, and how many a call does not give."""
        if self.function is not None:
            return self.function, 0
        return inspect.getattr_static(self.task_class, "run"), 1

    def option(self, name: str) -> Any:
        """Return the value of a keyword of POLICY that is needed before the task is made."""
        own = self.policy.get(POLICY[name])
        return self.own_option(name) if own is None else own

    def own_option(self, name: str) -> Any:
        """Return the value that the project's code gives to a keyword of POLICY."""
        attribute = POLICY[name]
        return self.inherited.get(attribute, getattr(self.task_class, attribute))

    def __post_init__(self) -> None:
        """Set ``is_plain`` once."""
        classes = filter(None, (self.task_class, self.configured_class))
        object.__setattr__(self, "is_plain", all(map(_is_plain, classes)))

    def make_task(self) -> tuple[SafeTask, SafeTask | None]:
        """Return a new task, and a new instance of the configured class if its hooks run, too.

        Raise any exception of their ``__init__``.
        """
        task, configured = self.new_task()
        for name, value in self.policy.items():
            with suppress(AttributeError):  # a property of the class, which knows better
                setattr(task, name, value)
        return task, configured

    def new_task(self) -> tuple[SafeTask, SafeTask | None]:
        """Do as ``make_task``, without the policy of the environment."""
        task = self.task_class()
        if self.function is not None:
            task.run = self.function  # type: ignore[method-assign]
        for name, value in self.inherited.items():
            if name not in vars(task):
                setattr(task, name, value)
        return task, self.configured_class() if self.configured_class else None


_PLAIN: Final = {
    name: getattr(SafeTask, name)
    for name in ("__init__", "__new__", "__setattr__", "__getattribute__")
}


def _is_plain(task_class: type[SafeTask]) -> bool:
    """Return True if making and asking an instance is left to SafeTask."""
    if type(task_class) is not type or hasattr(task_class, "__getattr__"):
        return False
    limit = inspect.getattr_static(task_class, "timeout_timedelta")
    return not hasattr(limit, "__get__") and all(
        getattr(task_class, name) is method for name, method in _PLAIN.items()
    )


class TaskSource(Protocol):
    """The tasks of another library, such as django.tasks. A contrib room registers one.

    The core knows nothing of that library. A source names the objects that are tasks of it, and
    their entries. A task has its dotted path as ``module_path``.
    """

    def is_task(self, listed_object: object) -> bool:
        """Return True if an object is a task of this library. It may be a lazy one."""

    def make_entry(self, name: str, task: Any, config: Config) -> Entry:
        """Return the entry that runs a task of this library."""


ObserverSource = Callable[[Config], Sequence[Observer]]
"""A function that returns the observers of a contrib room.

It returns none if the configuration does not turn the room on.
"""

_task_sources: Final[list[TaskSource]] = []
_observer_sources: Final[list[ObserverSource]] = []


def register_tasks(source: TaskSource) -> None:
    """Register the tasks of another library, so that they can run.

    A contrib room calls it when it is imported.
    """
    _task_sources.append(source)
    declared_tasks.cache_clear()
    _resolved_names.cache_clear()
    _entries_by_name.cache_clear()


def register_observers(source: ObserverSource) -> None:
    """Register the observers of a contrib room, for every task of the process.

    The room calls this when it is imported.
    """
    _observer_sources.append(source)
    forget_observers()


def forget_observers() -> None:
    """Ask the rooms for their observers again, because one of them has another answer now."""
    configured_observers.cache_clear()
    _entries_by_name.cache_clear()


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
            return call_within(function, *args, **kwargs)
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


@functools.lru_cache(maxsize=1)
def safe_task_class(config: Config) -> type[SafeTask]:
    """Return the configured class, which wraps plain functions.

    Raise ConfigurationError if it cannot be imported or is another class.
    """
    return _import_safe_task_class(config.safe_task)


def _import_safe_task_class(path: str) -> type[SafeTask]:
    variable = SAFE_TASK.variable
    try:
        wrapper = import_string(path)
    except ImportError as exc:
        raise ConfigurationError(f"{variable}: cannot import {path}: {exc}") from exc
    if not (inspect.isclass(wrapper) and issubclass(wrapper, SafeTask)):
        raise ConfigurationError(f"{variable}: {path} is not a SafeTask subclass")
    return wrapper


@functools.lru_cache(maxsize=1)
def configured_observers(config: Config) -> Sequence[Observer]:
    """Return the observers of every task of this process.

    An observer that cannot be loaded is left out.
    """
    of_class = _observers_of_the_class(config)
    named = [each for each in named_observers(config).loaded if each not in of_class]
    rooms = (each for source in _observer_sources for each in source(config))
    return (*of_class, *named, *rooms)


def _observers_of_the_class(config: Config) -> Sequence[Observer]:
    if config.sources["safe_task"] == "default":
        return ()
    try:
        return cast("tuple[Observer, ...]", tuple(safe_task_class(config).observers))
    except Exception as exc:
        logger.error(
            "%s could not be loaded; tasks are not observed error=%s",
            SAFE_TASK.variable, quoted_error(exc),
        )  # fmt: skip
        return ()


class NamedObservers(NamedTuple):
    """The observers of BEANSTALK_DISPATCH_OBSERVERS."""

    loaded: Sequence[Observer]
    problems: Mapping[str, str]
    """The reason why a path has no observer, by the path, for the log and the checks."""


@functools.lru_cache(maxsize=1)
def named_observers(config: Config) -> NamedObservers:
    """Import the observers of BEANSTALK_DISPATCH_OBSERVERS, and make those that are classes."""
    loaded, problems = [], {}
    for path in dict.fromkeys(config.observers):
        try:
            loaded.append(_make_observer(path))
        except (Exception, SystemExit) as exc:
            problems[path] = quoted_error(exc, with_type=True)
    return NamedObservers(loaded, problems)


def _make_observer(path: str) -> Observer:
    found = import_dotted_path(path)
    observer = found() if inspect.isclass(found) and issubclass(found, Observer) else found
    if not isinstance(observer, Observer):
        kind = "class" if inspect.isclass(found) else type(found).__name__
        raise TypeError(f"it is a {kind}, not an Observer")
    return observer


@functools.lru_cache(maxsize=1)
def _entries_by_name(config: Config) -> dict[str, Entry]:
    """Return the dictionary of the used entries by their names. It has no limit."""
    return {}


def entry(name: str, config: Config) -> Entry:
    """Return the table's entry of that name, made once.

    Raise UnknownFunction if there is none, ConfigurationError if the configured class is wrong.
    """
    if (found := made_entry(name, config)) is None:
        found = _make_entry(name, config)
        if policy := config.policy(name):
            of_run = {option: value for option, value in policy.items() if option in POLICY}
            found = replace(found, options=policy, policy=attributes_of(of_run))
        _entries_by_name(config)[name] = found
    return found


def arguments_of(task: Entry, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call by their names, defaults included.

    If they do not fit the task, only the keyword arguments are known.
    """
    function, skipped = task.signed
    try:
        bound = inspect.signature(function).bind(*[None] * skipped, *args, **kwargs)
    except (TypeError, ValueError):
        return kwargs
    bound.apply_defaults()
    return {**bound.arguments, **kwargs}


def made_entry(name: str, config: Config) -> Entry | None:
    """Return the table's entry of that name if it was made before. Nothing is imported."""
    return _entries_by_name(config).get(name)


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


def start_configured_class() -> None:
    """Call ``ready`` of the configured class. A failure is logged, and the checks report it, too.

    It is called also if another variable has a wrong value: the class may report that.
    """
    try:
        _import_safe_task_class(values_of(CORE)[SAFE_TASK]).ready()
    except Exception as exc:
        logger.error(
            "%s could not start error=%s", SAFE_TASK.variable, quoted_error(exc),
        )  # fmt: skip
