"""The resolved configuration, for people as a table and for programs as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Setting
from beanstalk_dispatch.conf.queue_address import QueueAddress, endpoint_host
from beanstalk_dispatch.conf.variables import (
    CREATE_QUEUES,
    EXECUTE_SYNCHRONOUSLY,
    QUEUES,
    SQS_ENDPOINT_URL,
    SQS_REGION,
)
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import table

from .listed_tasks import ListedTask, listed_tasks
from .properties import MAX_BYTES, properties_in_effect, string_of, total_size

MASK: Final = "********"
"""The string that is shown in place of a secret."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable: its value, its source, and its problem."""

    name: str
    value: str
    """The value as a string; MASK in place of a secret, and empty if there is no value."""
    source: str
    """``settings``, ``environment``, ``file`` or ``default``."""
    problem: str = ""


def variables() -> list[Variable]:
    """Return every variable, those of imported contrib rooms included."""
    return [
        _describe_variable(setting, conf.values_of(group))
        for group in conf.registered_groups()
        for setting in group.settings
    ]


def _describe_variable(setting: Setting[Any], values: conf.Values) -> Variable:
    value, source = values[setting], values.sources[setting.variable]
    starts = (f"{setting.variable}:", f"{setting.variable}_FILE:")
    problem = next((each for each in values.problems if each.startswith(starts)), "")
    is_empty = value is None or value in ((), {})
    shown = "" if is_empty else MASK if setting.secret else string_of(setting, value)
    return Variable(name=setting.variable, value=shown, source=source, problem=problem)


def problems(found: Sequence[Variable]) -> list[str]:
    """Return the problems that make the configuration unusable."""
    return [each.problem for each in found if each.problem] + conf.contradictions()


def warnings() -> Iterator[str]:
    """Yield the settings that are accepted and are probably not meant for Elastic Beanstalk."""
    for name, closest in conf.unknown_variables().items():
        meant = f"; did you mean {closest}?" if closest else ""
        if advice := conf.replacement_of(name):
            meant = f". {advice}"
        yield f"{name} is set, but beanstalk_dispatch has no variable of that name{meant}"
    for name in conf.empty_variables():
        yield f"{name} is empty, which counts as not set; 'eb setenv {name}=' removes the property"
    values = conf.values_of(conf.CORE)
    for setting in (CREATE_QUEUES, EXECUTE_SYNCHRONOUSLY):
        if values[setting]:
            yield f"{setting.variable} is for local use; remove it on Elastic Beanstalk"
    if endpoint_host(values[SQS_ENDPOINT_URL] or "") in _LOOPBACK:
        yield f"{SQS_ENDPOINT_URL.variable} is an address of this machine"


def size_warning(*, worker: bool) -> Iterator[str]:
    """Yield at most one line: that the properties do not fit."""
    used = total_size(properties_in_effect(worker=worker))
    if used > MAX_BYTES:
        yield (
            f"the properties have {used:,} bytes, but Elastic Beanstalk accepts {MAX_BYTES:,} for "
            "all of an environment; add --files DIRECTORY to a format, which moves the largest "
            "into files"
        )


def _list_tasks() -> list[ListedTask]:
    try:
        return listed_tasks(conf.get_config())
    except ConfigurationError:  # the problems say why
        return []


def _queue_region(queue: QueueAddress) -> str | None:
    """Return the region in which a queue is looked for.

    None: boto3 finds one when it makes a client.
    """
    configured: str | None = conf.values_of(conf.CORE)[SQS_REGION]
    return queue.region or configured or conf.default_region()


def _configured_queues() -> Mapping[str, QueueAddress]:
    return conf.values_of(conf.CORE)[QUEUES]


# --- for programs ----------------------------------------------------------------------------


def as_dict(*, worker: bool) -> dict[str, Any]:
    """Return the overview as JSON values. Secrets are masked."""
    found = variables()
    return {
        "variables": [dataclasses.asdict(each) for each in found],
        "tasks": [dataclasses.asdict(each) for each in _list_tasks()],
        "queues": [
            {"alias": alias, "name": each.name, "url": each.url, "region": _queue_region(each),
             "fifo": each.is_fifo}
            for alias, each in _configured_queues().items()
        ],
        "bytes": total_size(properties_in_effect(worker=worker)),
        "max_bytes": MAX_BYTES,
        "problems": problems(found),
        "warnings": [*warnings(), *size_warning(worker=worker)],
    }  # fmt: skip


# --- for people ------------------------------------------------------------------------------


def as_table(*, worker: bool) -> Iterator[str]:
    """Yield the overview, line by line. Secrets are masked."""
    found, tasks, queues = variables(), _list_tasks(), _configured_queues()
    settings = (setting for group in conf.registered_groups() for setting in group.settings)
    tables: Mapping[Sequence[str], Sequence[Sequence[str]]] = {
        ("Variable", "From", "Value"): [
            (each.name, each.source, _shown_value(each, setting))
            for each, setting in zip(found, settings, strict=True)
        ],
        ("Task", "Time limit", "Max retries", "Path"): [_task_row(task) for task in tasks],
        ("Option of", "Option", "Value", "From"): [
            (task.name, keyword, *value) for task in tasks for keyword, value in task.policy.items()
        ],
        ("Queue", "Region", "URL"): [_queue_row(*each) for each in queues.items()],
    }
    for headings, rows in tables.items():
        if rows:
            yield from table(headings, rows, is_cut=False)
            yield ""
    used = total_size(properties_in_effect(worker=worker))
    yield (
        f"{used:,} of {MAX_BYTES:,} bytes that Elastic Beanstalk accepts; your project's other "
        "properties count, too"
    )
    yield from (f"problem: {each}" for each in problems(found))
    yield from (f"warning: {each}" for each in warnings())
    yield from (f"warning: {each}" for each in size_warning(worker=worker))


def _shown_value(variable: Variable, setting: Setting[Any]) -> str:
    """Return the value, or the default in words.

    The pairs of table and queues have rows of their own.
    """
    if isinstance(setting.default, Mapping) and variable.value:
        return "see below"
    return variable.value or setting.default_text


def _task_row(task: ListedTask) -> tuple[str, ...]:
    if task.problem:
        return task.name, "-", "-", f"{task.path}: {task.problem}"
    limit = "-" if task.time_limit is None else f"{task.time_limit:g} s"
    retries = "left to SQS" if task.max_retries is None else str(task.max_retries)
    return (
        task.name,
        f"{limit} ({task.time_limit_from})",
        f"{retries} ({task.max_retries_from})",
        task.path,
    )


def _queue_row(alias: str, queue: QueueAddress) -> tuple[str, ...]:
    return (
        alias,
        _queue_region(queue) or "boto3's own",
        queue.url or f"{queue.name} (looked up by name)",
    )
