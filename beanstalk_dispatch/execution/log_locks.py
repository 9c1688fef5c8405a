"""Locks of log handlers that a task leaves locked.

An interrupt can strike right after a thread got such a lock. Every other thread of the process
would then wait for ever at its next log line, and its task would never be acknowledged.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from beanstalk_dispatch.exceptions import listed

_LOCK_TYPE: Final = type(threading.RLock())
"""The type of a handler's lock, unless the project gives it another one."""


def release_left_locked() -> str:
    """Release every lock of a log handler that this thread holds.

    Returns the names of their handlers, or the empty string. A thread of a consumer holds none
    between two tasks.
    """
    left = []
    # The public names lead only to handlers of loggers, not to those within another handler.
    for reference in logging._handlerList:  # type: ignore[attr-defined] # noqa: SLF001
        lock = getattr(handler := reference(), "lock", None)
        if isinstance(lock, _LOCK_TYPE) and lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001
            left.append(handler.name or type(handler).__name__)
            while lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001
                lock.release()  # it may have been taken more than once
    return listed(left) if left else ""
