"""The class and the observers of all tasks, which the configuration names."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from django.utils.module_loading import import_string

from beanstalk_dispatch.conf import CORE, Config, values_of
from beanstalk_dispatch.conf.variables import SAFE_TASK
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import quoted_error
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.safe_task import SafeTask

from .declared_tasks import import_dotted_path
from .entries import entries_by_name

logger = logging.getLogger("beanstalk_dispatch")

ObserverSource = Callable[[Config], Sequence[Observer]]
"""A function that returns the observers of a contrib room.

It returns none if the configuration does not turn the room on.
"""

_observer_sources: Final[list[ObserverSource]] = []


def register_observers(source: ObserverSource) -> None:
    """Register the observers of a contrib room, for every task of the process.

    The room calls this when it is imported.
    """
    _observer_sources.append(source)
    forget_observers()


def forget_observers() -> None:
    """Ask the rooms for their observers again, because one of them has another answer now."""
    configured_observers.cache_clear()
    entries_by_name.cache_clear()


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
