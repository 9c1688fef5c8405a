"""The registered settings: the package's own, and those of contrib rooms."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any, Final

from beanstalk_dispatch.logging.log_lines import joined

from .environment import Values, is_empty, is_overruled, read_values
from .setting import Setting, SettingsGroup
from .variables import CORE

_groups: Final = [CORE]


def register(group: SettingsGroup) -> None:
    """Register the settings of a contrib room for checks, the log and "did you mean".

    The room calls this when it is imported, and reads its values with ``values_of``. Raise
    ValueError if a variable is registered already.
    """
    known = {setting.variable for each in _groups for setting in each.settings}
    if repeated := known & {setting.variable for setting in group.settings}:
        raise ValueError(f"registered twice: {joined(repeated)}")
    _groups.append(group)


def registered_groups() -> tuple[SettingsGroup, ...]:
    """Return the package's own group, then those of the contrib rooms that are imported."""
    return tuple(_groups)


@functools.cache
def values_of(group: SettingsGroup) -> Values:
    """Return the values of a group's settings, read once. Problems are in the result."""
    return read_values(group)


def empty_variables() -> list[str]:
    """Return the variables that are in the environment without a value.

    They count as not set.
    """
    return [each.variable for each in _settings() if is_empty(each.variable)]


def overruled_variables() -> list[str]:
    """Return the variables of the environment to which the Django settings give another value."""
    return [each.variable for each in _settings() if is_overruled(each)]


def _settings() -> Iterator[Setting[Any]]:
    for group in _groups:
        yield from group.settings


def import_rooms() -> list[str]:
    """Import the contrib room of each variable that is set. Return a line for each that fails."""
    sources, problems = values_of(CORE).sources, []
    for setting in CORE.settings:
        if setting.room and sources[setting.variable] != "default":
            try:
                importlib.import_module(setting.room)
            except Exception as exc:
                if setting.is_room_optional and isinstance(exc, ImportError):
                    continue
                problems.append(f"{setting.variable}: {exc}")
    return problems
