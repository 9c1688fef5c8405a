"""The declaration of a variable: as a Setting, in the SettingsGroup of its room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import casts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting(Generic[T]):
    """The declaration of one variable for the package, its checks and its documentation."""

    variable: str
    """The name of the environment variable, and of the Django setting."""
    form: str
    """The accepted values, in the words of the documentation."""
    cast: Callable[[object], T]
    """A function that takes a string, or the Python value of a Django setting.

    It raises ValueError if that is wrong.
    """
    meaning: str
    """The effect of the variable, in one or two sentences."""
    default: T = None  # type: ignore[assignment]
    """The value if the variable is not set."""
    default_text: str = ""
    """The default, in the words of the documentation. Without it, those of the value itself."""
    example: str = ""
    """A value for ``.env.example``. Without it, that is the default."""
    cast_file: Callable[[str], T] | None = None
    """A function that takes the content of a file.

    None if that is written like a variable.
    """
    secret: bool = False
    """True if the value is never shown: not in a repr, a log line or an error."""
    room: str | None = None
    """The contrib room that gives the variable its effect.

    It is imported at start if the variable is set, and not otherwise.
    """
    is_room_optional: bool = False
    """True if the variable has an effect without the library that the room needs, too."""

    def __post_init__(self) -> None:
        text = self.default_text or _in_words(self.default)
        object.__setattr__(self, "default_text", text)
        object.__setattr__(self, "example", self.example or text)


def _in_words(default: object) -> str:
    if default is None:
        return "none"
    return "empty" if default in ((), {}) else str(default)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SettingsGroup:
    """The settings of one room."""

    prefix: str
    """The prefix of each variable's name."""
    settings: tuple[Setting[Any], ...]
    """The settings in the order of the documentation."""
    is_prefix_shared: bool = False
    """True if other software reads variables with this prefix, too.

    An unknown name is then reported only if it differs from a known one by a letter or two.
    """


def flag(variable: str, meaning: str) -> Setting[bool]:
    """Declare a variable that is True or False, and False by default."""
    return Setting(
        variable=variable,
        form="bool",
        cast=casts.boolean,
        default=False,
        meaning=meaning,
        example="True",
    )
