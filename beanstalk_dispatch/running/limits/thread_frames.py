"""Finds the code that other threads run, and decides whether one may be interrupted there.

An interrupt raises an exception between two bytecodes. Most code of a task loses nothing but its
own work. The code listed here changes something that all tasks share, and cannot undo half of it.
"""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Final

_GARBAGE_COLLECTION_STOPS_THREADS: Final = sys.version_info < (3, 11, 9)
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
_OURS: Final = "beanstalk_dispatch."
_WITHOUT_LOCKS: Final = ("beanstalk_dispatch.running.", "beanstalk_dispatch.process.clock")
"""The parts of this package that call tasks, or wait in one, and take no lock meanwhile."""


def is_interruptible(thread_id: int, *, is_late: bool) -> bool:
    """Return True if a thread may be interrupted now.

    ``is_late``: it was not interruptible for a while, so code that should be brief is not.
    """
    modules = _WAITING if is_late else _BRIEF | _WAITING
    innermost = frame = frame_of(thread_id)
    if innermost is not None and not is_late and _may_take_lock(innermost):
        return False
    while frame is not None:
        if frame.f_globals.get("__name__") in modules:
            return False
        frame = frame.f_back
    return True


def _may_take_lock(frame: FrameType | None) -> bool:
    """Return True if this package's own code runs, which may be about to enter a ``with``.

    Since Python 3.14 an interrupt may strike between the call of a lock's ``__enter__`` and the
    block. Nobody would release that lock, and every task that sends or logs would wait for it.
    """
    while frame is not None and frame.f_globals.get("__name__") == "threading":
        frame = frame.f_back  # a Condition enters its lock there
    name = str(frame.f_globals.get("__name__")) if frame is not None else ""
    return name.startswith(_OURS) and not name.startswith(_WITHOUT_LOCKS)


def frame_of(thread_id: int) -> FrameType | None:
    """Return the innermost frame of a thread, or None if it has ended."""
    return _frames().get(thread_id)


def threads_within(module: str, function: str) -> set[int]:
    """Return the ids of the threads that run a function or method of a module."""
    return {
        thread_id for thread_id, frame in _frames().items() if _is_within(frame, module, function)
    }


def _is_within(innermost: FrameType, module: str, function: str) -> bool:
    frame: FrameType | None = innermost
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False


def _frames() -> dict[int, FrameType]:
    """Return the innermost frame of each thread.

    Before Python 3.11.9, all threads of a process can stop for ever if a garbage collection starts
    inside of ``sys._current_frames()``. https://github.com/python/cpython/issues/106883
    """
    if not (_GARBAGE_COLLECTION_STOPS_THREADS and gc.isenabled()):
        return sys._current_frames()  # noqa: SLF001 - sys documents it
    gc.disable()
    try:
        return sys._current_frames()  # noqa: SLF001
    finally:
        gc.enable()
