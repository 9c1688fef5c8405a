"""Checks that the listed tasks can run, and that their observers can watch."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final

from django.conf import settings
from django.core.checks import WARNING, CheckMessage

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.environment import is_given
from beanstalk_dispatch.conf.policies import tasks_named
from beanstalk_dispatch.conf.variables import (
    EXECUTE_SYNCHRONOUSLY,
    ISOLATION,
    OBSERVERS,
)
from beanstalk_dispatch.exceptions import ConfigurationError, UnknownFunction
from beanstalk_dispatch.isolation.server_process import why_impossible
from beanstalk_dispatch.logging.log_lines import failed_line, joined
from beanstalk_dispatch.problems.findings import problem
from beanstalk_dispatch.running.definitions import configured, dispatch_table
from beanstalk_dispatch.running.definitions.declared_tasks import is_listed
from beanstalk_dispatch.running.definitions.problems import problems_of
from beanstalk_dispatch.running.definitions.typed_arguments import (
    problems as problems_of_annotations,
)
from beanstalk_dispatch.safe_task import POLICY, SafeTask

from . import contrib_rooms  # noqa: F401 - its checks are first: they import rooms with tasks
from .registry import on_every_machine, on_workers

_BOTO3SQS: Final = "opentelemetry.instrumentation.boto3sqs"
_TASKS: Final = "beanstalk_dispatch.contrib.tasks"
_SENTRY: Final = "beanstalk_dispatch.contrib.sentry"
_only_warns: Final = ContextVar("beanstalk_dispatch.only_warns", default=False)
"""True if a problem that keeps one task from running is a warning here."""


@contextmanager
def warning_of_one_task() -> Iterator[None]:
    """Report a problem of one task as a warning only, because a worker runs the others."""
    token = _only_warns.set(True)
    try:
        yield
    finally:
        _only_warns.reset(token)


def _of_one_task(number: str, **facts: object) -> CheckMessage:
    """Return the finding for a problem that keeps one task from running, and no other."""
    finding = problem(number, **facts)
    if _only_warns.get():
        finding.level = WARNING
    return finding


@on_every_machine
def _table_entries(config: Config) -> Iterator[CheckMessage]:
    for name in config.table:
        try:
            dispatch_table.resolve_early(name, config)
        except UnknownFunction as exc:
            cause = exc.__cause__
            why = f": {cause}{failed_line(cause)}" if cause else ""
            yield _of_one_task(
                "E002", name=name, exc=exc, why=why, hint=_hint_for(config.table[name], why)
            )


def _hint_for(path: str, why: str) -> str:
    module = path.rpartition(".")[0]
    if why and module:
        return f"Correct the path, or what \"manage.py shell -c 'import {module}'\" shows."
    return "Write name=package.module.function, or a SafeTask subclass."


@on_every_machine
def _safe_task(config: Config) -> Iterator[CheckMessage]:
    try:
        configured.safe_task_class(config)
    except ConfigurationError as exc:
        yield problem("E003", exc=exc)


@on_workers
def _unlisted_periodic_tasks(config: Config) -> Iterator[CheckMessage]:
    for name in config.periodic_tasks:
        if not is_listed(name, config):
            yield _of_one_task("E005", name=name)


@on_every_machine
def _listed_classes(config: Config) -> Iterator[CheckMessage]:
    for name, task_class in _task_classes(config):
        for reason in problems_of(task_class):
            yield _of_one_task("E007", name=name, reason=reason, path=config.table.get(name, name))


@on_every_machine
def _listed_tasks(config: Config) -> Iterator[CheckMessage]:
    for reason in dispatch_table.declared_tasks(config).problems:
        yield _of_one_task("E011", reason=reason)


@on_workers
def _empty_table(config: Config) -> Iterator[CheckMessage]:
    if not (config.table or config.tasks):
        yield problem("E018")


@on_every_machine
def _time_limit_of_none(config: Config) -> Iterator[CheckMessage]:
    for name, task_class in _task_classes(config):
        if (
            dispatch_table.defines(task_class, "timeout_timedelta")
            and task_class.timeout_timedelta is None
        ):
            yield problem("W016", name=name)


@on_every_machine
def _observers(config: Config) -> Iterator[CheckMessage]:
    for path, reason in configured.named_observers(config).problems.items():
        yield problem("W021", path=path, reason=reason, example=OBSERVERS.example)


@on_workers
def _sentry_without_tasks(config: Config) -> Iterator[CheckMessage]:
    """Look after the tasks are imported: the project, or a listed class, may set the SDK up."""
    sdk: Any = sys.modules.get("sentry_sdk")
    is_used = _SENTRY in sys.modules or (sdk is not None and sdk.get_client().is_active())
    if is_given("SENTRY_DSN") and not is_used:
        yield problem("W023")


@on_every_machine
def _isolation_without_effect(config: Config) -> Iterator[CheckMessage]:
    if not (reason := _why_in_threads(config)):
        return
    asked = [(ISOLATION.variable, config.isolation), *_own_isolations(config)]
    if ignored := [f"{name}={value}" for name, value in asked if value != "thread"]:
        yield problem("W024", names=joined(ignored), reason=reason)


def _own_isolations(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the listed names whose code or policy sets an isolation, each with that."""
    failed = dispatch_table.not_importable(config)  # E002 reports it, and has tried the import
    for name in (each for each in dispatch_table.listed_names(config) if each not in failed):
        with suppress(UnknownFunction, ConfigurationError):  # E002 and E003 report them
            if own := dispatch_table.entry(name, config).isolation:
                yield name, own


def _why_in_threads(config: Config) -> str:
    """Return why the tasks of this process cannot have one of their own; empty if they can."""
    if config.execute_synchronously:
        return f"{EXECUTE_SYNCHRONOUSLY.variable} runs them in the calling process"
    return why_impossible() if config.worker else ""


@on_workers
def _policies_of_no_task(config: Config) -> Iterator[CheckMessage]:
    names = [*config.tasks, *dispatch_table.listed_names(config)]
    paths = [config.table.get(each, each) for each in names]
    known = {*names, *paths, *(each.rpartition(".")[0] for each in paths)}
    for name in tasks_named(config.policies):
        if name not in known:
            yield problem("W025", name=name)


@on_workers
def _instrumented_receives(config: Config) -> Iterator[CheckMessage]:
    """Look after the tasks are imported, as ``_sentry_without_tasks`` does."""
    library: Any = sys.modules.get(_BOTO3SQS)
    if library is not None and library.Boto3SQSInstrumentor().is_instrumented_by_opentelemetry:
        yield problem("W026")


@on_every_machine
def _annotations(config: Config) -> Iterator[CheckMessage]:
    for name, listed in _importable(config):
        function, skipped = (getattr(listed, "run", listed), int(inspect.isclass(listed)))
        if hasattr(listed, "module_path"):  # a Task of django.tasks
            function, skipped = listed.func, int(listed.takes_context)
        for reason in problems_of_annotations(function, skipped=skipped):
            yield problem("W027", name=name, reason=reason)


@on_every_machine
def _tasks_of_another_backend(config: Config) -> Iterator[CheckMessage]:
    # mypy's plugin does not know the method.
    is_set = settings.is_overridden("TASKS")  # type: ignore[misc]
    if config.execute_synchronously or (is_set and not config.worker):
        return  # a machine that is to have another one, such as that of a developer
    for name, listed in _importable(config):
        if not hasattr(listed, "module_path"):
            continue
        backend = type(listed.get_backend())
        if not any(each.__module__.startswith(_TASKS) for each in backend.__mro__):
            yield problem("W029", name=name, kind=backend.__name__, backend=listed.backend)


@on_every_machine
def _attributes_without_effect(config: Config) -> Iterator[CheckMessage]:
    for name, task_class in _task_classes(config):
        for keyword in (each for each in POLICY if each != POLICY[each]):
            if dispatch_table.defines(task_class, keyword):
                yield problem(
                    "W030",
                    name=name,
                    keyword=keyword,
                    kind=task_class.__name__,
                    attribute=POLICY[keyword],
                )


def _task_classes(config: Config) -> Iterator[tuple[str, type[SafeTask]]]:
    """Yield the listed names that stand for a class, each with the class."""
    for name, listed in _importable(config):
        if isinstance(listed, type):
            yield name, listed


def _importable(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield the listed names, each with the function, class or task that it stands for."""
    names = dispatch_table.listed_names(config)
    failed = dispatch_table.not_importable(config)  # E002 reports it, and has tried the import
    for name in (each for each in names if each not in failed):
        with suppress(UnknownFunction):  # E002 reports it, too
            yield name, dispatch_table.resolve_early(name, config)
