"""Policies: the options of single tasks and of modules, from BEANSTALK_DISPATCH_POLICIES."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from . import casts

ISOLATIONS: Final = ("thread", "process", "fresh")
"""The values of ``isolation`` and of BEANSTALK_DISPATCH_ISOLATION."""


def _names(value: object) -> tuple[str, ...]:
    """Return names of arguments, joined by plus signs or as a list."""
    found = value.split("+") if isinstance(value, str) else value
    names = tuple(found) if isinstance(found, list | tuple) else ()
    if not (names and all(isinstance(each, str) and each.isidentifier() for each in names)):
        raise casts.InvalidValue("is not a name, or names such as account_id+month", value)
    return names


OPTIONS: Final[Mapping[str, Callable[[object], Any]]] = MappingProxyType(
    {
        "max_attempts": casts.integer(1, 1000),
        "backoff": casts.duration,
        "timeout": casts.duration,
        "isolation": casts.choice(*ISOLATIONS),
        "expires": casts.time_to_live,
        "on_commit": casts.boolean,
        "limit": casts.integer(1, 100),
        "limit_by": _names,
        "unique_by": _names,
        "unique_for": casts.time_to_live,
        "unique_until": casts.choice("start", "end"),
    }
)
"""The options of a task → the cast of each. They are keywords of ``@task`` and of SafeTask, too."""


def policies(value: object) -> Mapping[str, Any]:
    """Return a mapping ``task.option`` → value, from pairs, JSON, or a mapping of mappings.

    A task stands for itself by its name or its dotted path, or for all of its module by that. All
    wrong options are in one error.
    """
    found: dict[str, Any] = {}
    wrong = []
    for key, item in _flat(casts.mapping(value)):
        name, _, option = key.rpartition(".")
        try:
            if not name or option not in OPTIONS:
                known = ", ".join(OPTIONS)
                raise casts.InvalidValue(f"is not task.option; the options are {known}", key)
            if key in found:
                raise casts.InvalidValue("is given twice", key)
            found[key] = _cast(key, OPTIONS[option], item)
        except casts.InvalidValue as exc:
            wrong.append(exc)
    if wrong:
        raise casts.InvalidValue("; ".join(map(str, wrong)))
    return MappingProxyType(found)


def _flat(found: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, item in found.items():
        if isinstance(item, Mapping):
            yield from ((f"{name}.{option}", each) for option, each in item.items())
        else:
            yield str(name), item


def _cast(key: str, cast: Callable[[object], Any], item: object) -> Any:
    try:
        return cast(item)
    except casts.InvalidValue as exc:
        raise casts.InvalidValue(f"{key}: {exc}") from None


def policy_of(found: Mapping[str, Any], *, name: str, path: str) -> dict[str, Any]:
    """Return the options of the task with this name and dotted path, by their names.

    Those of its name win over those of its path, and these over those of its module.
    """
    prefixes = [f"{each}." for each in (path.rpartition(".")[0], path, name)]
    return {
        option: found[prefix + option]
        for prefix in prefixes
        for option in OPTIONS
        if prefix + option in found
    }


def tasks_named(found: Mapping[str, Any]) -> list[str]:
    """Return the names, paths and modules that have options, in order."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in found))
