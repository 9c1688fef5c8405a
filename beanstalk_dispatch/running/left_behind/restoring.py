"""Traces of a task in its process that would harm other tasks: removed, and logged.

An interrupt can strike right after a thread got the lock of a log handler. Every other thread of
the process would then wait for ever at its next log line, and its task would never be acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from beanstalk_dispatch.logging.log_lines import joined, quoted
from beanstalk_dispatch.logging.loggers import LOGGERS
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.process import state
from beanstalk_dispatch.running.running_tasks import RUNNING

from .threads import LEFT

logger = logging.getLogger("beanstalk_dispatch.task")

_LOGGERS: Final = [logging.getLogger(name) for name in LOGGERS]
_LOCK_TYPE: Final[Any] = type(threading.RLock())
"""The type of a handler's lock, unless the project gives it another one."""
_is_owned: Final = _LOCK_TYPE._is_owned  # noqa: SLF001 - as threading.Condition uses it


def put_right(message: Message, before: LoggingState) -> Sequence[str]:
    """Release the locks that the task holds, end its event loop, and restore logging.

    Return what was put right, in words. Django's ORM refuses to work in a thread in which an event
    loop runs.
    """
    found = []
    if handlers := release_left_locked():
        logger.error(
            "log lock left locked id=%s function=%s handlers=%s",
            quoted(message.id), quoted(message.function), quoted(handlers),
        )  # fmt: skip
        found.append("a locked log handler")
    # asyncio's own functions for those who write event loops; all versions of Python have them.
    if (loop := asyncio._get_running_loop()) is not None:  # noqa: SLF001
        asyncio._set_running_loop(None)  # noqa: SLF001
        logger.error(
            "event loop left running id=%s function=%s loop=%s: stop what the task has started",
            quoted(message.id), quoted(message.function), type(loop).__name__,
        )  # fmt: skip
        found.append("an event loop")
    LEFT.report()
    if restored := before.restore():
        beside = {each.message.function for each in RUNNING.now() if each.message is not message}
        logger.error(
            "process state restored id=%s function=%s changed=%s beside=%s",
            quoted(message.id), quoted(message.function), quoted(joined(restored)),
            quoted(joined(beside)),
        )  # fmt: skip
        found.append("logging turned off")
    return found


# --- locks -----------------------------------------------------------------------------------


def release_left_locked() -> str:
    """Release the locks of log handlers, logging and threading that this thread holds.

    Return the names of the handlers, or the empty string. A thread of a consumer holds none between
    two tasks. Without the lock of ``threading``, no other thread could start one.
    """
    locks: list[tuple[Any, Any]] = [
        ("logging", logging._lock),  # type: ignore[attr-defined] # noqa: SLF001
        ("threading", threading._active_limbo_lock),  # type: ignore[attr-defined] # noqa: SLF001
    ]
    # The public names lead only to handlers of loggers, not to those within another handler.
    for reference in logging._handlerList:  # type: ignore[attr-defined] # noqa: SLF001
        handler = reference()
        locks.append((handler, getattr(handler, "lock", None)))
    left = []
    for holder, lock in locks:
        if type(lock) is _LOCK_TYPE and _is_owned(lock):
            while _is_owned(lock):  # the thread may have taken it twice
                lock.release()
            is_name = type(holder) is str
            left.append(holder if is_name else holder.name or type(holder).__name__)
    return joined(left) if left else ""


# --- logging ---------------------------------------------------------------------------------


class LoggingState:
    """The state of logging before the first task, to restore if a task hides the log of others."""

    def __init__(self) -> None:
        self._disabled_level = logging.root.manager.disable
        self._is_logger_disabled = _LOGGERS[0].disabled

    def restore(self) -> list[str]:
        """Restore what a task has disabled. Return the names of the changes."""
        restored: list[str] = []
        if logging.root.manager.disable > self._disabled_level:
            logging.disable(self._disabled_level)
            restored.append("logging-level")
        if _LOGGERS[0].disabled and not self._is_logger_disabled:
            for each in _LOGGERS:
                each.disabled = False
            restored.append("disabled-loggers")
        return restored


@cache
def logging_state() -> LoggingState:
    """Return the state before the first task, which is noted by the first call."""
    return LoggingState()


state.declare(logging_state.cache_clear, in_child=False)
