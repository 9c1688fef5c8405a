"""A check that the process may still open the files and connections that a task needs."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from typing import Final

from beanstalk_dispatch.process import state

_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
_FILES_OF_A_TASK: Final = 16


class Files:
    """The doubt about the process's open files."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Trust the process again.

        A forked child has the files of its parent, and its doubt.
        """
        self.are_suspect = False
        """True if a task has failed since the last check, which is not free."""


FILES: Final = Files()
state.declare(FILES.forget, in_child=False)


def can_open_files() -> bool:
    """Return True if the process may open the files and connections that a task needs.

    The check is made only if a task has failed. The kernel gives the lowest free number, so the
    highest ones are in use only if all were, and those that a task keeps open are still there when
    others have been closed.
    """
    if not FILES.are_suspect:
        return True
    FILES.are_suspect = False
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return True
    try:
        os.close(fcntl.fcntl(0, fcntl.F_DUPFD, max(limit - _FILES_OF_A_TASK, 0)))
    except OSError as exc:
        if exc.errno in _NO_FILES:
            FILES.are_suspect = True
            return False
    return True
