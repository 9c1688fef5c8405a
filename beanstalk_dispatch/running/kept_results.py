"""The functions of contrib.results, which the core calls if that room is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from beanstalk_dispatch.conf import Config
    from beanstalk_dispatch.messages.message import Message

    from .run import Run, SharedResult


class KeptResults(NamedTuple):
    """The functions by which the core reaches the results of tasks."""

    of_run: Callable[[Run], SharedResult]
    """Makes the result of a run."""
    progress: Callable[[Config, Sequence[str]], Mapping[str, str]]
    """Returns the progress of tasks in words by their ids. It raises any error of the store."""
    note_superseded: Callable[[Config, str, Message, str], None]
    """Notes the id of the task that runs instead of a unique call to the queue of this name.

    The call has waited, and another message holds its key. Its caller has its id.
    """


KEPT_RESULTS: Final[list[KeptResults]] = []
"""The functions of contrib.results, if that is loaded."""
