"""The role of this process, and whether it is about to end."""

from __future__ import annotations

from typing import Final

from . import state


class _Process:
    """The facts of this process that others ask for. A forked one begins without them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.is_server = False
        """True in the server of isolation, which forks and runs no task."""
        self.is_ending = False
        """True if the process takes no new task. Long tasks ask for it."""


PROCESS: Final = _Process()
state.declare(PROCESS.forget)
