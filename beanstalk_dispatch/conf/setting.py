"""How a variable is declared: as a Setting, in the SettingsGroup of its room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import casts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting(Generic[T]):
    """One variable: all that the package, its checks and its documentation know of it."""

    variable: str
    """The name of the environment variable, and of the Django setting."""
    form: str
    """What is accepted, in the words of the documentation."""
    cast: Callable[[object], T]
    """Takes a string, or the Python value of a Django setting. Raises ValueError."""
    default: T
    """The value where the variable is not set."""
    default_text: str
    """The default, in the words of the documentation."""
    meaning: str
    """What the variable does, in one or two sentences."""
    example: str
    """A value for ``.env.example``."""
    cast_file: Callable[[str], T] | None = None
    """Takes the content of a file, where that is not written like a variable."""
    secret: bool = False
    """The value is never shown: not in a repr, a log line or an error."""
    room: str | None = None
    """The contrib room that gives the variable its effect. It is imported at start if the variable
    is set, and not otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SettingsGroup:
    """The settings of one room."""

    prefix: str
    """What the name of each variable starts with."""
    settings: tuple[Setting[Any], ...]
    """In the order of the documentation."""
    is_prefix_shared: bool = False
    """Other software reads variables with this prefix too. An unknown name is then reported only if
    it differs from a known one by a letter or two."""


def flag(variable: str, meaning: str) -> Setting[bool]:
    """Declare a variable that is True or False, and False by default."""
    return Setting(
        variable=variable,
        form="bool",
        cast=casts.boolean,
        default=False,
        default_text="False",
        meaning=meaning,
        example="True",
    )
