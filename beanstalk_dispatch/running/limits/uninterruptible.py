"""The places where a thread is not interrupted, because every task of the process would suffer.

An interrupt raises an exception between two bytecodes. Most code of a task loses nothing but its
own work. The code listed here changes something that all tasks share, and cannot undo half of it.
"""

from __future__ import annotations

from typing import Final

from .thread_frames import frame_of

_BRIEF: Final = frozenset({
    # A module that is imported only in part stays so: its submodules are never imported again.
    "importlib._bootstrap",
})  # fmt: skip
"""The modules whose code takes a moment. If it takes longer than usual, it is interrupted."""

_WAITING: Final = frozenset({
    # The pool hands out a connection just as the interrupt strikes, and never gets it back. Once
    # it has lost all of them, no task of the process reaches the database.
    "psycopg_pool.pool",
})  # fmt: skip
"""The modules whose code waits in a C call.

Nothing could interrupt them before that call returns.
"""


def is_interruptible(thread_id: int, *, is_late: bool) -> bool:
    """Return True if a thread may be interrupted now.

    ``is_late``: it was not interruptible for a while, so code that should be brief is not.
    """
    modules = _WAITING if is_late else _BRIEF | _WAITING
    frame = frame_of(thread_id)
    while frame is not None:
        if frame.f_globals.get("__name__") in modules:
            return False
        frame = frame.f_back
    return True
