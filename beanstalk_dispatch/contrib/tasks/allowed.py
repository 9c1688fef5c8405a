"""Finds the Django tasks of this process: the one of a name, and those of a backend."""

from __future__ import annotations

import sys

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.running import dispatch_table

from .library import AnyTask, Task


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
