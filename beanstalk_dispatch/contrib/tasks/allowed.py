"""The Django tasks that may run: those that the table or BEANSTALK_DISPATCH_TASKS lists.

A message's function is looked up in a list of names. It causes the import of no other module.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import NotImportable, UnknownFunction
from beanstalk_dispatch.running import dispatch_table

from .library import AnyTask, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedTasks:
    """The tasks that BEANSTALK_DISPATCH_TASKS stands for."""

    by_name: dict[str, AnyTask] = field(default_factory=dict)
    """Each task by its ``module_path``."""
    problems: list[str] = field(default_factory=list)
    """The reasons why items of the list stand for no task."""


def allowed_tasks(config: Config) -> AllowedTasks:
    """Import all listed tasks. A task that cannot be imported is a problem in the result."""
    allowed = AllowedTasks()
    for item in config.tasks:
        try:
            found = dispatch_table.import_early(item, _tasks_of, item)
        except Exception as exc:
            allowed.problems.append(f"{item!r} cannot be imported: {exc}")
            continue
        if not found:
            allowed.problems.append(f"{item!r} is neither a @task nor a module that defines one")
        allowed.by_name.update(found)
    return allowed


def allowed_task(name: str, config: Config) -> AnyTask | None:
    """Import the item that lists a task, and return the task. Return None if no item lists it.

    The other items are not imported, so that none of them delays a message or stops it.

    Raise NotImportable if the import fails.
    """
    for item in (name, name.rpartition(".")[0]):
        if item in config.tasks:
            try:
                found = _tasks_of(item)
            except Exception as exc:
                raise NotImportable(f"Unable to locate function: {name}") from exc
            if name in found:
                return found[name]
    return None


def _tasks_of(item: str) -> dict[str, AnyTask]:
    """Return the tasks of a module, or the one of a dotted path, by their names."""
    try:
        found: object = import_module(item)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{item}.".startswith(f"{exc.name}.") or "." not in item:
            raise  # the module is there, and what it imports is not
        found = dispatch_table.import_dotted_path(item)
    if isinstance(found, Task):
        return {item: found}
    if not isinstance(found, ModuleType):
        return {}
    # A task that the module has imported belongs to another module.
    return {
        each.module_path: each
        for each in [*vars(found).values()]
        if isinstance(each, Task) and each.func.__module__ == item
    }


def find_task(name: str, config: Config) -> AnyTask | None:
    """Return the task of a record's function. Only a listed module is imported for it.

    A web process may list no tasks. There the task is found if its module is imported already.
    """
    try:
        found = dispatch_table.resolve(name, config)
    except UnknownFunction:
        module, _, attribute = name.rpartition(".")
        found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, Task) else None


def imported_tasks(backend: str) -> list[AnyTask]:
    """Return the tasks of a backend that the modules of this process define, without an import."""
    found: list[AnyTask] = []
    for name, module in sorted(sys.modules.items()):
        for each in [*getattr(module, "__dict__", {}).values()]:
            # isinstance() would evaluate a lazy object of the project's.
            if issubclass(type(each), Task) and each.func.__module__ == name:
                found += [each] if each.backend == backend else []
    return found
