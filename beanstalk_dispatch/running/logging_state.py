"""State of logging that a task may change, and that would hide the log lines of all other tasks."""

from __future__ import annotations

import logging
from functools import cache
from typing import Final

from beanstalk_dispatch.logging.loggers import LOGGERS
from beanstalk_dispatch.process import state

_LOGGERS: Final = [logging.getLogger(name) for name in LOGGERS]


class LoggingState:
    """The state of logging before the first task, to restore if a task has changed it."""

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
            for logger in _LOGGERS:
                logger.disabled = False
            restored.append("disabled-loggers")
        return restored


@cache
def logging_state() -> LoggingState:
    """Return the state before the first task, which is noted by the first call."""
    return LoggingState()


state.declare(logging_state.cache_clear, in_child=False)
