"""The end of this process, which long tasks ask for."""

from __future__ import annotations

from typing import Final

from . import state


class _Ending:
    """The knowledge whether this process is about to end."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin again: a forked process ends by itself."""
        self.has_begun = False
        """True if the process takes no new task."""


ENDING: Final = _Ending()
state.declare(ENDING.forget)
