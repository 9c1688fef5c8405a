"""State that belongs to this process: a forked child forgets it, and tests reset it.

A module that keeps something for the whole process declares here how it is forgotten. This module
has the only hook of the package for forks.

A process must not fork while another of its threads imports a module or writes to stderr: the child
would have a lock of that import, or of that file, that no thread releases. ``no_fork`` is for that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from typing import Final, TypeAlias

FORK_WAIT_SECONDS: Final = 10.0
"""The longest wait of a fork, for example because the thread that forks is importing, too."""

Forget: TypeAlias = Callable[[], object]
"""A function that brings a piece of state back to its start in a new process, with new locks."""

_in_child: Final[list[Forget]] = []
_in_tests: Final[list[Forget]] = []


def declare(forget: Forget, *, in_child: bool = True, in_tests: bool = True) -> None:
    """Declare ``forget``, which is called in each forked child and by ``reset``.

    A child has no thread of its parent and must use no lock of it, but it inherits caches of the
    environment: ``in_child=False``. A test still has the threads of the test before it:
    ``in_tests=False``.

    The functions are called in the order in which they are declared. That is the order of imports,
    so the state that a function uses has been renewed before the function is called.
    """
    if in_child:
        _in_child.append(forget)
    if in_tests:
        _in_tests.append(forget)


def reset() -> None:
    """Forget the state of this process between two tests."""
    _call_all(_in_tests)


def _call_all(functions: Sequence[Forget]) -> None:
    """Call each function, also after one that raises."""
    with ExitStack() as stack:
        for each in reversed(functions):
            stack.callback(each)


class _Forks:
    """The forks of this process, and the lock that is held during one."""

    def __init__(self) -> None:
        self.count = 0
        """The number of forks from the first process to this one.

        A process id would be a system call.
        """
        self.lock = threading.Lock()
        self.held_signals: Sequence[int] = ()
        """The signals that are held back during a fork.

        Python drops a signal that comes to the new process before ``after_in_child``.
        """
        self._blocked: set[int] = set()
        self._is_held = False

    def before(self) -> None:
        if self.held_signals:
            self._blocked = pthread_sigmask(SIG_BLOCK, self.held_signals)
        self._is_held = self.lock.acquire(timeout=FORK_WAIT_SECONDS)

    def after_in_parent(self) -> None:
        if self._is_held:
            self._is_held = False
            self.lock.release()
        self._release_signals()

    def after_in_child(self) -> None:
        self.count += 1
        self.lock = threading.Lock()  # its holder may not exist in the child
        self._is_held = False
        _call_all(_in_child)
        self._release_signals()

    def _release_signals(self) -> None:
        if self.held_signals:
            pthread_sigmask(SIG_SETMASK, self._blocked)


FORKS: Final = _Forks()
os.register_at_fork(
    before=FORKS.before,
    after_in_parent=FORKS.after_in_parent,
    after_in_child=FORKS.after_in_child,
)


def no_fork() -> AbstractContextManager[object]:
    """Return a lock to hold while no thread may fork.

    A fork waits FORK_WAIT_SECONDS for it at most.
    """
    return FORKS.lock
