"""The tasks that may run, with their limits and the place where each limit is set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.policies import OPTIONS
from beanstalk_dispatch.conf.variables import POLICIES, SAFE_TASK, TASK_TIMEOUT
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.definitions.entries import Entry
from beanstalk_dispatch.running.definitions.options import seconds_of
from beanstalk_dispatch.safe_task import POLICY, SafeTask

_AT_RUN_TIME = "a property of the class, known when the task runs"
_ITSELF = "the task itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """One name of the dispatch table, or of BEANSTALK_DISPATCH_TASKS."""

    name: str
    path: str
    """The dotted path of the function or class."""
    problem: str = ""
    """The reason why the task cannot run. The other fields have no meaning then."""
    time_limit: float | None = None
    """Seconds that ``run`` may take. None: known when the task runs."""
    time_limit_from: str = ""
    """The class or the variable that sets it."""
    max_retries: int | None = None
    """The number of times that a failed run is repeated. None: left to SQS."""
    max_retries_from: str = ""
    """The class that sets it, or ``default``."""
    policy: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The option that is set, by its keyword → its value in words, and the place that sets it."""
    schedule: str = ""
    """The schedule of a periodic task; empty if the task is not one."""


def listed_tasks(config: Config) -> list[ListedTask]:
    """Return every task of the table, then of BEANSTALK_DISPATCH_TASKS. Import their modules."""
    names = dispatch_table.listed_names(config)
    return [_listed_task(name, config.table.get(name, name), config) for name in names]


def longest_time_limit(config: Config) -> float:
    """Return the longest time limit that a task of this table can have, in seconds.

    The limit of BEANSTALK_DISPATCH_TASK_TIMEOUT counts too.
    """
    limits = [task.time_limit or 0.0 for task in listed_tasks(config)]
    return max([config.task_timeout.total_seconds(), *limits])


def _listed_task(name: str, path: str, config: Config) -> ListedTask:
    try:
        entry = dispatch_table.entry(name, config)
        task, _ = entry.make_task()
        time_limit, time_limit_from = _time_limit(entry, task, config)
        max_retries, max_retries_from = _option_and_source(entry, task, "max_retries")
    except SystemExit as exc:
        return ListedTask(name=name, path=path, problem=f"its import raises {exc!r}")
    except Exception as exc:  # of an import, of an __init__, or of a wrong value
        cause = f": {exc.__cause__}" if exc.__cause__ else ""
        return ListedTask(name=name, path=path, problem=f"{exc}{cause}")
    return ListedTask(
        name=name,
        path=path,
        time_limit=time_limit,
        time_limit_from=time_limit_from,
        max_retries=max_retries,
        max_retries_from=max_retries_from,
        policy=_policy(entry, task, name, config),
        schedule=_own_schedule(entry),
    )


def _policy(entry: Entry, task: SafeTask, name: str, config: Config) -> dict[str, tuple[str, str]]:
    """Return each option that is set for the task, in words, and the place that sets it."""
    by_environment = config.policy(name)
    found = {}
    for keyword in OPTIONS:
        if keyword in POLICY:
            value, source = _option_and_source(entry, task, POLICY[keyword])
            value = value + 1 if keyword == "max_attempts" and value is not None else value
        else:
            value, source = by_environment.get(keyword), POLICIES.variable
        if value is not None and source != "default":
            found[keyword] = (getattr(value, "__qualname__", str(value)), source)
    return found


def _own_schedule(entry: Entry) -> str:
    """Return the schedule that stands at the task itself: at its class, or at its function."""
    listed = entry.task_class if entry.function is None else entry.function
    schedule = getattr(listed, "schedule", None)
    return schedule if isinstance(schedule, str) else ""


def _time_limit(entry: Entry, task: SafeTask, config: Config) -> tuple[float | None, str]:
    value, source = _option_and_source(entry, task, "timeout_timedelta")
    if source == _AT_RUN_TIME:
        return None, source
    if value is None:
        is_default = config.sources["task_timeout"] == "default"
        return (
            config.task_timeout.total_seconds(),
            "default" if is_default else TASK_TIMEOUT.variable,
        )
    return seconds_of(value), source


def _option_and_source(entry: Entry, task: SafeTask, name: str) -> tuple[Any, str]:
    """Return the value of a task's option, and the place where it is set."""
    if isinstance(getattr(entry.task_class, name), property):
        return None, _AT_RUN_TIME
    value = getattr(task, name)
    if name in entry.policy:
        return value, POLICIES.variable
    if name in entry.inherited:
        return value, SAFE_TASK.variable
    if name in vars(task):
        return value, _ITSELF
    if dispatch_table.defines(entry.task_class, name):
        is_listed = entry.function is None
        return value, entry.task_class.__qualname__ if is_listed else SAFE_TASK.variable
    return value, "default"
