"""What observes a task or a message may fail, and must change nothing by it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar

logger = logging.getLogger("beanstalk_dispatch.task.hooks")

_T = TypeVar("_T")


def log_hook(task: str, name: str, exception: BaseException) -> None:
    """Log what a task's hook has raised; not as a failure of the task, which it is not."""
    logger.error("%s failed in its hook %s", task, name, exc_info=exception)


class quietly(Generic[_T]):  # noqa: N801 - a context manager, named like one
    """Context manager that enters and leaves ``manager``, and logs what that raises.

    The block runs in any case, with ``default`` if there was nothing to enter. What the block
    itself raises is shown to ``manager`` and then raised, whatever ``manager`` thinks of it.
    """

    def __init__(self, manager: AbstractContextManager[_T], default: _T) -> None:
        self._manager = manager
        self._default = default
        self._is_entered = False

    def __enter__(self) -> _T:
        try:
            entered = self._manager.__enter__()
        except Exception:
            logger.exception("not observed")
            return self._default
        self._is_entered = True
        return entered

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_entered:
            return
        try:
            self._manager.__exit__(exc_type, exc, traceback)
        except Exception as own:
            if own is not exc:
                logger.exception("not observed to its end")
