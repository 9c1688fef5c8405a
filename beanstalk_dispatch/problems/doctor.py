"""The findings that a running project shows of its configuration without AWS.

The system checks are run, and the findings of a request, a cache and files are added.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import INFO, CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import PERIODIC_TASKS
from beanstalk_dispatch.deploying.application import find_application
from beanstalk_dispatch.deploying.dispatcher_path import (
    PATH,
    dispatcher_path,
    has_urls,
    leads_to_the_dispatcher,
)
from beanstalk_dispatch.deploying.listed_tasks import listed_tasks
from beanstalk_dispatch.deploying.settings_module import settings_module
from beanstalk_dispatch.deploying.sqsd_options import http_path, options
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.definitions.declared_tasks import is_listed
from beanstalk_dispatch.running.definitions.parameters import explain_mismatch, read_parameters

from . import daemon_request
from .findings import ID, ok, problem, safely
from .machine_doctor import own_queue

_SHOWN_BY_THE_POST: Final = frozenset(
    f"{ID}.{each}" for each in ("E014", "E015", "E016", "E017", "W003", "W014")
)
"""The ids of checks that can only guess, and are wrong if the POST reaches the dispatcher."""
_GUESSES: Final = {f"{ID}.E118": f"{ID}.W003", f"{ID}.E119": f"{ID}.W014"}
"""The id of an answer to the POST → the id of the check that says the same."""


def examine(*, path: str | None = None, cron_file: Path | None = None) -> Iterator[CheckMessage]:
    """Yield the findings that need no AWS. ``path`` is the daemon's HttpPath, if it is known."""
    try:
        config = conf.get_config()
    except ConfigurationError as exc:
        yield problem("E001", "configuration", exc=exc)
        return
    yield ok("configuration", _describe_config(config))
    yield from safely("settings", _settings_of_the_server())
    answers = list(safely(daemon_request.TOPIC, _daemons_post(path))) if has_urls() else []
    yield from safely("system checks", _system_checks(answers))
    yield from safely("variables", _contrib_rooms())
    yield from safely("tasks", _examine_tasks(config))
    yield from safely("cron.yaml", _periodic_tasks(config, cron_file))
    yield from safely("lease", _examine_lease(config))
    yield from safely("draining", _drain_file(config))
    yield from safely("queues", own_queue("queues", options(Path()).get("WorkerQueueURL", "")))
    yield from answers


def _describe_config(config: Config) -> str:
    return (
        f"worker={config.worker} functions={joined([*config.table, *config.tasks])} "
        f"queues={joined(config.queues)} "
        f"signed={'yes' if config.signing_keys else 'no'} settings={settings_module() or 'none'}"
    )


def _settings_of_the_server() -> Iterator[CheckMessage]:
    """Yield a finding if the server's module has another settings module as its default."""
    used, server = settings_module(), find_application(Path())
    if server.settings != used:
        yield problem("W131", "settings", used=used, module=server.module, settings=server.settings)


def _system_checks(answers: Sequence[CheckMessage]) -> Iterator[CheckMessage]:
    """Yield the findings of the package's checks, without those that the POST shows more surely.

    A POST that is refused shows one reason, and the checks guess the others.
    """
    ids = {each.id for each in answers if each.id}
    if any(each.obj == daemon_request.TOPIC and each.level == INFO for each in answers):
        ids |= _SHOWN_BY_THE_POST
    ids |= {guess for seen, guess in _GUESSES.items() if seen in ids}
    found = [
        message
        for message in checks.run_checks(tags=["beanstalk_dispatch"])
        if not (message.is_silenced() or message.id in ids)
    ]
    if not found:
        yield ok("system checks", "nothing to report")
    yield from found


def _contrib_rooms() -> Iterator[CheckMessage]:
    """Yield the settings of each contrib room in use. Wrong values are a system check."""
    for group in conf.registered_groups():
        if group is not conf.CORE:
            sources = conf.values_of(group).sources
            given = [name for name, source in sources.items() if source != "default"]
            yield ok(f"{group.prefix}*", f"variables that are set: {joined(given)}")


def _examine_tasks(config: Config) -> Iterator[CheckMessage]:
    """Yield a finding for the whole table if no task has a problem, which is a system check."""
    tasks = listed_tasks(config)
    limits = [task.time_limit for task in tasks if task.time_limit is not None]
    if limits and not any(task.problem for task in tasks):
        yield ok("tasks", f"{len(tasks)} can run; the longest time limit is {max(limits):g} s")


# --- periodic tasks --------------------------------------------------------------------------


def _periodic_tasks(config: Config, given: Path | None) -> Iterator[CheckMessage]:
    file = given or Path("cron.yaml")
    if not file.exists():
        if given:
            yield problem("E102", "cron.yaml", file=file)
        elif config.periodic_tasks:
            yield problem("W103", "cron.yaml", file=file)
        return
    if config.sources["periodic_tasks"] != "default" and not config.periodic_tasks:
        yield ok("cron.yaml", f"another environment runs it: {PERIODIC_TASKS.variable} is off")
        return
    problems: list[ConfigurationError] = []
    tasks: list[cron.PeriodicTask] = []
    try:
        tasks = cron.load(file, on_problem=problems.append)
    except ConfigurationError as exc:
        problems.append(exc)
    for each in problems:
        message = str(each).removeprefix(f"{file}: ")
        hint = "the daemon refuses the file; correct the entry"
        if message == cron.MISSING_LIBRARY:
            hint = "the daemon itself needs neither"
        yield problem("E104", "cron.yaml", message=message, hint=hint)
    found = [finding for task in tasks for finding in _periodic_task(task, config)]
    yield from found
    if not (problems or found):
        yield ok("cron.yaml", f"{len(tasks)} periodic tasks can run")
    fifo = [alias for alias, address in config.queues.items() if address.is_fifo]
    if tasks and fifo:
        yield problem("W105", "cron.yaml", names=joined(fifo))


def _periodic_task(task: cron.PeriodicTask, config: Config) -> Iterator[CheckMessage]:
    if not is_listed(task.name, config):
        yield problem("E106", "cron.yaml", name=task.name)
    elif message := _why_not_without_arguments(task.name, config):
        yield problem("E124", "cron.yaml", message=message)
    elif config.worker and task.name not in config.periodic_tasks:
        names = " ".join([*config.periodic_tasks, task.name])
        yield problem("E107", "cron.yaml", name=task.name, names=names)
    if has_urls() and not leads_to_the_dispatcher(task.url):
        right = dispatcher_path() or PATH
        yield problem("E108", "cron.yaml", name=task.name, url=task.url, right=right)


def _why_not_without_arguments(name: str, config: Config) -> str:
    """Return why a listed task cannot run as a periodic task; empty if it can."""
    try:
        dispatch_table.resolve_early(name, config)
        parameters = read_parameters(dispatch_table.entry(name, config))
    except BeanstalkDispatchError as exc:
        return str(exc)
    return explain_mismatch(name, (), {}, parameters) if parameters else ""


# --- the rest --------------------------------------------------------------------------------


def _examine_lease(config: Config) -> Iterator[CheckMessage]:
    """Yield a finding: the lease's cache answers and keeps an entry for all, or it does not."""
    alias = config.lease_cache
    if alias is None or alias not in settings.CACHES:  # E006 reports it
        return
    key, value = f"beanstalk_dispatch.doctor.{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        cache = caches[alias]
        if isinstance(cache, DummyCache | FileBasedCache | LocMemCache):
            kind = type(cache).__name__
            yield problem("E109", "lease", alias=alias, kind=kind)
            return
        was_added, is_exclusive = cache.add(key, value, 60), not cache.add(key, "other", 60)
        is_kept = cache.get(key) == value
        cache.delete(key)
    except Exception as exc:
        hint = "start its server, and let its security group admit that of this environment"
        if isinstance(exc, ImportError):
            hint = f"pip install {exc.name}"
        yield problem("E110", "lease", alias=alias, kind=type(exc).__name__, exc=exc, hint=hint)
        return
    if was_added and is_exclusive and is_kept:
        yield ok("lease", f"the cache {alias!r} answers and keeps its entries")
    else:
        yield problem("E111", "lease", alias=alias)


def _drain_file(config: Config) -> Iterator[CheckMessage]:
    if config.drain_file and os.path.exists(config.drain_file):
        yield problem("W112", "draining", drain_file=config.drain_file)


def _daemons_post(path: str | None) -> Iterator[CheckMessage]:
    given = path or http_path(Path())
    right = dispatcher_path() or PATH
    used = given or right
    yield daemon_request.explain(daemon_request.post(used), used)
    if given is None:
        yield problem("W113", "HttpPath", right=right)
