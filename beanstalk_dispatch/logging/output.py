"""Shows the log of a command where the project shows none of it."""

from __future__ import annotations

import logging
from typing import Final, TypedDict

from beanstalk_dispatch.process import state

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_BY_VERBOSITY: Final = {0: "WARNING", 1: "INFO"}


class OutputOptions(TypedDict):
    """The arguments of ``show``, which JSON can carry to another process."""

    verbosity: int
    level: str | None


_shown: Final[list[OutputOptions]] = []
"""The arguments of the last call of ``show``, if there was one."""
state.declare(_shown.clear, in_child=False)


def show(*, verbosity: int, level: str | None) -> bool:
    """Write the package's log to stderr if it has no handler; return whether that was needed.

    ``level`` wins over Django's ``--verbosity``. If the project has a handler, its level is changed
    only by ``level``, or by another verbosity than Django's default of 1.
    """
    _shown[:] = [{"verbosity": verbosity, "level": level}]
    logger = logging.getLogger("beanstalk_dispatch")
    is_needed = not logger.hasHandlers()
    if is_needed:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(FORMAT))
        logger.addHandler(handler)
    if is_needed or level or verbosity != 1:
        logger.setLevel(level or _BY_VERBOSITY.get(verbosity, "DEBUG"))
    return is_needed


def shown() -> OutputOptions | None:
    """Return the arguments of the last ``show``; None if it was not called.

    A process that this one starts calls ``show`` with them to have the same output.
    """
    return _shown[0] if _shown else None
