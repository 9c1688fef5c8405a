"""Locks of log handlers, and the one of starting threads, that a task leaves locked.

An interrupt can strike right after a thread got such a lock. Every other thread of the process
would then wait for ever at its next log line or at the start of a thread, and its task would never
be acknowledged.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from beanstalk_dispatch.logging.log_lines import joined

_LOCK_TYPE: Final[Any] = type(threading.RLock())
"""The type of a handler's lock, unless the project gives it another one."""
_is_owned: Final = _LOCK_TYPE._is_owned  # noqa: SLF001 - as threading.Condition uses it


def release_left_locked() -> str:
    """Release the locks of log handlers, logging and threading that this thread holds.

    Return the names of the handlers, or the empty string. A thread of a consumer holds none between
    two tasks.
    """
    left = ["logging"] if _release_lock(logging._lock) else []  # type: ignore[attr-defined] # noqa: SLF001
    if _release_lock(threading._active_limbo_lock):  # type: ignore[attr-defined] # noqa: SLF001
        left.append("threading")
    # The public names lead only to handlers of loggers, not to those within another handler.
    for reference in logging._handlerList:  # type: ignore[attr-defined] # noqa: SLF001
        handler = reference()
        if _release_lock(getattr(handler, "lock", None)):
            left.append(handler.name or type(handler).__name__)
    return joined(left) if left else ""


def _release_lock(lock: Any) -> bool:
    """Release the lock if this thread holds it. Return True if it did.

    The thread may have taken the lock twice.
    """
    if type(lock) is not _LOCK_TYPE or not _is_owned(lock):
        return False
    while _is_owned(lock):
        lock.release()
    return True
