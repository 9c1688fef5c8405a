"""The system checks of an entry of TASKS, which Django asks of its backend."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator

from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import ON_COMMIT as ON_COMMIT_VARIABLE
from beanstalk_dispatch.conf.variables import QUEUES, RESULTS, TASKS
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.running.definitions.declared_tasks import is_listed

from .library import AnyTask, BaseTaskBackend, Task
from .options import ON_COMMIT, on_commit_option, waits_for_commits

ID = "beanstalk_dispatch.tasks"


def check_entry(
    backend: BaseTaskBackend, queues: Collection[str], known: set[str], config: Config | None
) -> list[CheckMessage]:
    """Return the problems of an entry with these ``queues``, of which ``known`` exist.

    ``config`` is None if it is wrong, which the checks of the core report.
    """
    found = [*_queues(backend, set(queues), known), *_options(backend)]
    if config is not None and not found:
        found += [*_commits(backend, config), *_unlisted_tasks(backend, config)]
    return found


def _queues(backend: BaseTaskBackend, queues: set[str], known: set[str]) -> Iterator[CheckMessage]:
    if known and (unknown := queues - known):
        yield checks.Error(
            f"TASKS[{backend.alias!r}] has the queues {joined(unknown)}, which "
            f"{QUEUES.variable} does not list.",
            hint="Remove QUEUES: the queues are then the aliases of that variable.",
            id=f"{ID}.E001",
        )


def _options(backend: BaseTaskBackend) -> Iterator[CheckMessage]:
    hint = f"The one option is {ON_COMMIT}, which is True or False."
    try:
        on_commit_option(backend)
    except ConfigurationError as exc:
        yield checks.Error(f"{exc}.", hint=hint, id=f"{ID}.E002")
    if unknown := backend.options.keys() - {ON_COMMIT}:
        yield checks.Error(
            f"TASKS[{backend.alias!r}] has unknown OPTIONS: {joined(unknown)}.",
            hint=hint,
            id=f"{ID}.E002",
        )


def _commits(backend: BaseTaskBackend, config: Config) -> Iterator[CheckMessage]:
    waits = waits_for_commits(on_commit_option(backend), config) or config.outbox == "always"
    if config.results and not waits:
        yield checks.Warning(
            f"TASKS[{backend.alias!r}] sends tasks before the transaction that enqueues them "
            "commits. A worker that is faster does not find its rows. The task then fails, and "
            f"since {RESULTS.variable} is set, it does not run again.",
            hint=f"Remove {ON_COMMIT} from OPTIONS, and unset {ON_COMMIT_VARIABLE.variable}.",
            id=f"{ID}.W003",
        )


def _unlisted_tasks(backend: BaseTaskBackend, config: Config) -> Iterator[CheckMessage]:
    if not (config.worker or config.table or config.tasks):
        return  # such a process sends any task
    unlisted = [each for each in _imported_tasks(backend.alias) if not _is_listed(each, config)]
    if unlisted:
        modules = sorted({each.func.__module__ for each in unlisted})
        items = " ".join(dict.fromkeys([*config.tasks, *modules]))
        yield checks.Warning(
            f"{TASKS.variable} does not list these tasks of TASKS[{backend.alias!r}], so this "
            f"process neither sends nor runs them: "
            f"{joined([each.module_path for each in unlisted])}.",
            hint=f"eb setenv '{TASKS.variable}={items}'",
            id=f"{ID}.W004",
        )


def _is_listed(task: AnyTask, config: Config) -> bool:
    return task.module_path in config.table.values() or is_listed(task.module_path, config)


def _imported_tasks(backend: str) -> list[AnyTask]:
    """Return the tasks of a backend that the modules of this process define, without an import."""
    found: list[AnyTask] = []
    for name, module in sorted(sys.modules.items()):
        for each in [*getattr(module, "__dict__", {}).values()]:
            # isinstance() would evaluate a lazy object of the project's.
            if issubclass(type(each), Task) and each.func.__module__ == name:
                found += [each] if each.backend == backend else []
    return found
