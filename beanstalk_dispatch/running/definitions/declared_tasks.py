"""The tasks that BEANSTALK_DISPATCH_TASKS lists: those a module defines, or one by its dotted path.

A message's function is looked up in a list of names. It causes the import of no other module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, Final, TypeGuard, cast

from django.utils.module_loading import import_string

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import NotImportable
from beanstalk_dispatch.safe_task import SafeTask

NO_BACKEND: Final = (
    "write TASKS = {'default': {'BACKEND': 'beanstalk_dispatch.contrib.tasks.SQSBackend'}}"
)
IsTask = Callable[[object], bool]
"""A function that returns True for a task of another library, which has a ``module_path``."""


def is_listed(name: str, config: Config) -> bool:
    """Return True if a name is in the table, or in BEANSTALK_DISPATCH_TASKS.

    The latter lists the path of a task or its module.
    """
    return name in config.table or name in config.tasks or name.rpartition(".")[0] in config.tasks


def find_declared(name: str, config: Config, is_task: IsTask) -> object | None:
    """Import the item that lists a task, and return the task. Return None if no item lists it.

    The other items are not imported, so that none of them delays a message or stops it. Raise
    NotImportable if the import fails.
    """
    for item in (name, name.rpartition(".")[0]):
        if item in config.tasks:
            try:
                found = declared_in(item, config, is_task)
            except Exception as exc:
                raise NotImportable(f"Unable to locate function: {name}") from exc
            if name in found:
                return found[name]
    return None


def declared_in(item: str, config: Config, is_task: IsTask) -> dict[str, object]:
    """Return the tasks of a module, or the object of a dotted path, by their names."""
    try:
        found: object = import_module(item)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{item}.".startswith(f"{exc.name}.") or "." not in item:
            raise  # the module is there, and what it imports is not
        found = import_dotted_path(item)
    if isinstance(found, ModuleType):
        return dict(_defined_in(found, config, is_task))
    return {item: found}


def _defined_in(
    module: ModuleType, config: Config, is_task: IsTask
) -> Iterator[tuple[str, object]]:
    """Yield the tasks that a module defines. One that it imports belongs to another module."""
    for each in [*vars(module).values()]:
        path = ""
        if _is_safe_task(each):
            path = "" if _is_base(each, config) else f"{each.__module__}.{each.__qualname__}"
        elif is_task(each):
            path = each.module_path
        if path.rpartition(".")[0] == module.__name__:
            yield path, each


def _is_safe_task(listed: object) -> TypeGuard[type[SafeTask]]:
    # isinstance() would evaluate a lazy object of the project's.
    return issubclass(type(listed), type) and issubclass(cast("type", listed), SafeTask)


def _is_base(task_class: type[SafeTask], config: Config) -> bool:
    """Return True if a class without ``run`` is there for others to inherit from it."""
    if task_class.run is not SafeTask.run:
        return False
    path = f"{task_class.__module__}.{task_class.__qualname__}"
    return bool(task_class.__subclasses__()) or path == config.safe_task


def is_task_of_django(listed: object) -> bool:
    """Return True for a ``@task`` of Django or of its backport, of any backend."""
    modules = {each.__module__ for each in type(listed).__mro__}
    is_theirs = not modules.isdisjoint({"django.tasks.base", "django_tasks.base"})
    return is_theirs and hasattr(listed, "module_path")


def why_no_task(item: str) -> str:
    """Return the problem of an imported module that defines no task, with the remedy."""
    module = vars(import_module(item)).items()
    homes = [each.module_path.rpartition(".")[0] for _, each in module if is_task_of_django(each)]
    if item in homes:
        return f"{item!r} has tasks of another backend; {NO_BACKEND}"
    functions = [
        name for name, each in module if type(each) is FunctionType and each.__module__ == item
    ]
    homes += [
        each.__module__
        for _, each in module
        if _is_safe_task(each) and each.run is not SafeTask.run
    ]
    remedy = ""
    if functions:
        remedy = f"; list a function by its path, such as {item}.{functions[0]}"
    elif homes:
        remedy = f", it only imports them; write {' '.join(dict.fromkeys(homes))}"
    return f"{item!r} defines no SafeTask subclass and no @task{remedy}"


def import_dotted_path(path: str) -> Any:
    """Import ``package.module.attribute``.

    The attribute may itself be dotted (a static method).
    """
    try:
        return import_string(path)
    except ModuleNotFoundError as exc:
        parent, _, attribute = path.rpartition(".")
        if exc.name != parent or "." not in parent:
            raise
        try:
            return getattr(import_dotted_path(parent), attribute)
        except (ImportError, AttributeError):
            raise exc from None
