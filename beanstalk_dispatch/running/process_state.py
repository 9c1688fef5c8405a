"""State of the process that a task may change, and on which all other tasks rely.

Only settings are here that (1) are cheap to read, (2) have one correct value, and (3) break other
tasks or hide them. The working directory and the sockets' default timeout are not here: a task that
changes them for a moment would lose them at the end of another task.
"""

from __future__ import annotations

import builtins
import gc
import logging
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import PathFinder
from typing import Any, Final

from beanstalk_dispatch.logging.loggers import LOGGERS
from beanstalk_dispatch.process import state

_DEFAULT_RECURSION_LIMIT: Final = 1000
"""The default of Python. A higher limit may be one that was raised for a moment."""
_LOGGERS: Final = [logging.getLogger(name) for name in LOGGERS]


class ProcessState:
    """The state of the process before its first task, to restore if a task has changed it."""

    def __init__(self) -> None:
        self._recursion_limit = min(sys.getrecursionlimit(), _DEFAULT_RECURSION_LIMIT)
        self._switch_interval = sys.getswitchinterval()
        self._collects_garbage = gc.isenabled()
        self._disabled_level = logging.root.manager.disable
        self._is_logger_disabled = _LOGGERS[0].disabled
        self._import = builtins.__import__
        self._import_path = [list(each) for each in _import_path()]

    def restore(self) -> list[str]:
        """Restore the settings that a task has changed. Return their names."""
        restored: list[str] = []
        # Deeper recursion than before harms nobody.
        if sys.getrecursionlimit() < self._recursion_limit:
            restored += _set_back("recursion-limit", sys.setrecursionlimit, self._recursion_limit)
        if sys.getswitchinterval() != self._switch_interval:
            restored += _set_back("switch-interval", sys.setswitchinterval, self._switch_interval)
        if self._collects_garbage and not gc.isenabled():
            gc.enable()
            restored.append("garbage-collection")
        if logging.root.manager.disable > self._disabled_level:
            restored += _set_back("logging-level", logging.disable, self._disabled_level)
        if _LOGGERS[0].disabled and not self._is_logger_disabled:
            for logger in _LOGGERS:
                logger.disabled = False
            restored.append("disabled-loggers")
        return restored + self._restore_imports()

    def _restore_imports(self) -> list[str]:
        """Restore the import function and the import path.

        Each request of botocore imports something, so the worker's own threads need them, too.
        """
        restored: list[str] = []
        if builtins.__import__ is not self._import:
            restored += _set_back("import", _set_import, self._import)
        if PathFinder not in sys.meta_path or not (sys.path and sys.path_hooks):
            for current, before in zip(_import_path(), self._import_path, strict=True):
                current[:] = [*before, *(each for each in current if each not in before)]
            restored.append("import-path")
        return restored


@cache
def process_state() -> ProcessState:
    """Return the state before the first task, which is noted by the first call."""
    return ProcessState()


state.declare(process_state.cache_clear, in_child=False)


def _import_path() -> tuple[list[Any], ...]:
    return sys.meta_path, sys.path_hooks, sys.path


def _set_import(function: Any) -> None:
    builtins.__import__ = function


def _set_back(name: str, restore: Callable[[Any], object], value: object) -> list[str]:
    restore(value)
    return [name]
