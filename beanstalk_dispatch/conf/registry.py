"""Which settings there are: the package's own, and those that contrib rooms register."""

from __future__ import annotations

import functools
import importlib
from typing import Final

from beanstalk_dispatch.logging.log_lines import joined

from .environment import Values, is_empty, read_values
from .setting import SettingsGroup
from .variables import CORE

_groups: Final = [CORE]


def register(group: SettingsGroup) -> None:
    """Make the settings of a contrib room known: to checks, to the log and to "did you mean".

    The room calls it when it is imported, and reads its values with ``values_of``.
    """
    known = {setting.variable for each in _groups for setting in each.settings}
    if repeated := known & {setting.variable for setting in group.settings}:
        raise ValueError(f"registered twice: {joined(repeated)}")
    _groups.append(group)


def registered_groups() -> tuple[SettingsGroup, ...]:
    """The package's own group, then those of the contrib rooms that are imported."""
    return tuple(_groups)


@functools.cache
def values_of(group: SettingsGroup) -> Values:
    """The values of a group's settings, read once. Problems are in the result."""
    return read_values(group)


def empty_variables() -> list[str]:
    """The variables that are present in the environment without a value. They count as not set."""
    variables = [setting.variable for group in _groups for setting in group.settings]
    return [variable for variable in variables if is_empty(variable)]


def import_rooms() -> list[str]:
    """Import the contrib room of each variable that is set; why any could not be imported."""
    sources, problems = values_of(CORE).sources, []
    for setting in CORE.settings:
        if setting.room and sources[setting.variable] != "default":
            try:
                importlib.import_module(setting.room)
            except Exception as exc:
                problems.append(f"{setting.variable}: {exc}")
    return problems
