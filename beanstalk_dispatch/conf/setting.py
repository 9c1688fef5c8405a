"""The declaration of a variable: as a Setting, in the SettingsGroup of its room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import casts

T = TypeVar("T")


# These are not dataclasses: every start of a project would pay for the making of such a class.


class Setting(Generic[T]):
    """The declaration of one variable for the package, its checks and its documentation."""

    def __init__(
        self, *, variable: str, form: str, cast: Callable[[object], T], meaning: str,
        default: T = None,  # type: ignore[assignment]
        default_text: str = "", example: str = "", cast_file: Callable[[str], T] | None = None,
        secret: bool = False, room: str | None = None, is_room_optional: bool = False,
    ) -> None:  # fmt: skip
        self.variable = variable
        """The name of the environment variable, and of the Django setting."""
        self.form = form
        """The accepted values, in the words of the documentation."""
        self.cast = cast
        """A function that takes a string, or the Python value of a Django setting.

        It raises ValueError if that is wrong.
        """
        self.meaning = meaning
        """The effect of the variable, in one or two sentences."""
        self.default = default
        """The value if the variable is not set."""
        self.default_text = default_text or _in_words(default)
        """The default, in the words of the documentation. Without it, those of the value itself."""
        self.example = example or self.default_text
        """A value for ``.env.example``. Without it, that is the default."""
        self.cast_file = cast_file
        """A function that takes the content of a file.

        None if that is written like a variable.
        """
        self.secret = secret
        """True if the value is never shown: not in a repr, a log line or an error."""
        self.room = room
        """The contrib room that gives the variable its effect.

        It is imported at start if the variable is set, and not otherwise.
        """
        self.is_room_optional = is_room_optional
        """True if the variable has an effect without the library that the room needs, too."""


def _in_words(default: object) -> str:
    if default is None:
        return "none"
    return "empty" if default in ((), {}) else str(default)


class SettingsGroup:
    """The settings of one room."""

    def __init__(
        self, *, prefix: str, settings: tuple[Setting[Any], ...], is_prefix_shared: bool = False
    ) -> None:
        self.prefix = prefix
        """The prefix of each variable's name."""
        self.settings = settings
        """The settings in the order of the documentation."""
        self.is_prefix_shared = is_prefix_shared
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
