"""Entry: a task of the dispatch table, ready to be run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.safe_task import ISOLATIONS, POLICY, SafeTask

from .options import is_positive_duration, seconds_of
from .signature import signature_of


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
    is_plain: bool = field(init=False)
    """True if making a task runs no code of the project, so that it needs no time limit."""
    isolation: str | None = field(init=False)
    """The ``isolation`` that the task sets. None leaves it to the configuration."""
    expires: float | None = field(init=False)
    """The seconds after which a message of the task is worthless; None means never."""

    def __post_init__(self) -> None:
        """Decide once what all deliveries of the task ask for."""
        classes = filter(None, (self.task_class, self.configured_class))
        isolation, expires = self.option("isolation"), self.option("expires")
        object.__setattr__(self, "is_plain", all(map(_is_plain, classes)))
        object.__setattr__(self, "isolation", isolation if isolation in ISOLATIONS else None)
        # A wrong value, or 0, would delete every message.
        seconds = seconds_of(expires) if is_positive_duration(expires) else None
        object.__setattr__(self, "expires", seconds)

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


def arguments_of(task: Entry, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call by their names, defaults included.

    If they do not fit the task, only the keyword arguments are known.
    """
    function, skipped = task.signed
    try:
        bound = signature_of(function).bind(*[None] * skipped, *args, **kwargs)
    except (TypeError, ValueError):
        return kwargs
    bound.apply_defaults()
    return {**bound.arguments, **kwargs}


@functools.lru_cache(maxsize=1)
def entries_by_name(config: Config) -> dict[str, Entry]:
    """Return the dictionary of the entries that were made, by their names. It has no limit."""
    return {}
