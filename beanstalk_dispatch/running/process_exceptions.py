"""The exceptions that end the process, apart from the failures of a task that raises them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_all_are_failures: Final = ContextVar("beanstalk_dispatch.all_are_failures", default=False)


def is_for_the_process(exc: BaseException | None) -> bool:
    """Return True if an exception ends the process rather than the task.

    Ctrl-C, and the SystemExit of a server that is stopped, arrive in the main thread. Every other
    exception of a task is a failure of the task.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    is_of_process = in_main_thread and isinstance(exc, KeyboardInterrupt | SystemExit)
    return is_of_process and not _all_are_failures.get()


@contextmanager
def all_are_failures() -> Iterator[None]:
    """Take each exception of a task in this block for a failure, also in the main thread.

    None of them ends the process.
    """
    token = _all_are_failures.set(True)
    try:
        yield
    finally:
        _all_are_failures.reset(token)
