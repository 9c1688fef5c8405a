"""The Django tasks that may run: those that the table or BEANSTALK_DISPATCH_TASKS lists.

A message's function is looked up in a list of names. It never causes an import.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import TASKS
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.logging.log_lines import quoted_error
from beanstalk_dispatch.running import dispatch_table

from .library import AnyTask, Task

logger = logging.getLogger("beanstalk_dispatch.task")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedTasks:
    """The tasks that BEANSTALK_DISPATCH_TASKS stands for."""

    by_name: Mapping[str, AnyTask] = field(default_factory=dict)
    """Each task by its ``module_path``."""
    problems: tuple[str, ...] = ()
    """The reasons why items of the list stand for no task."""


@functools.lru_cache(maxsize=1)
def allowed_tasks(config: Config) -> AllowedTasks:
    """Import the listed tasks, once. A task that cannot be imported is a problem in the result."""
    by_name: dict[str, AnyTask] = {}
    problems: list[str] = []
    for item in config.tasks:
        try:
            found = dict(_tasks_of(item))
        except Exception as exc:
            problems.append(f"{item!r} cannot be imported: {exc}")
            continue
        except SystemExit as exc:
            problems.append(f"{item!r} cannot be imported: its import raises {exc!r}")
            continue
        if not found:
            problems.append(f"{item!r} is neither a @task nor a module that defines one")
        by_name |= found
    return AllowedTasks(by_name=by_name, problems=tuple(problems))


def log_problems(config: Config) -> None:
    """Import the listed tasks, and log each item that stands for no task."""
    for problem in allowed_tasks(config).problems:
        logger.error(
            "listed tasks not found variable=%s error=%s",
            TASKS.variable, quoted_error(problem),
        )  # fmt: skip


def _tasks_of(item: str) -> Iterator[tuple[str, AnyTask]]:
    """Yield the tasks of a module, or the one of a dotted path."""
    try:
        found: object = import_module(item)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{item}.".startswith(f"{exc.name}.") or "." not in item:
            raise  # the module is there, and what it imports is not
        found = dispatch_table.import_dotted_path(item)
    if isinstance(found, Task):
        yield item, found
    if isinstance(found, ModuleType):
        for each in vars(found).values():
            # A task that the module has imported belongs to another module.
            if isinstance(each, Task) and each.func.__module__ == item:
                yield each.module_path, each


def find_task(name: str, config: Config) -> AnyTask | None:
    """Return the task of a record's function. No name of a record causes an import.

    A web process may list no tasks. There the task is found if its module is imported already.
    """
    try:
        found = dispatch_table.resolve(name, config)
    except UnknownFunction:
        module, _, attribute = name.rpartition(".")
        found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, Task) else None
