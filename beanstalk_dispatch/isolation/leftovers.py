"""The traces of a task after which a child is not used again."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading

# The functions of ``signal`` convert each value to an enum, which takes longer than all checks.
from _signal import getsignal as _handler_of  # type: ignore[import-not-found]
from _signal import pthread_sigmask as _change_mask
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from asgiref.sync import SyncToAsync

from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.process.service_thread import join_within
from beanstalk_dispatch.running.leases.held_leases import HELD
from beanstalk_dispatch.running.left_behind.threads import (
    ENDING_SECONDS,
    LEFT,
    is_ending,
    owner_of,
    serves_all_tasks,
)
from beanstalk_dispatch.running.limits.time_limit import interrupts

MAX_LEFT_FILES: Final = 16
"""The number of files that the tasks of a child may leave open.

Connections to databases, caches and AWS stay open for the next task.
"""
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_NO_TIMERS: Final = [(0.0, 0.0)] * len(_TIMERS)
_SIGNALS: Final = (
    signal.SIGALRM, signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGUSR1,
)  # fmt: skip
"""The signals whose handlers a library is most likely to set."""
_RESOURCES: Final = (
    resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE,
)  # fmt: skip
"""The resources of which a task may leave too little to those after it."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Leftovers:
    """The state of a child before its first task, to compare with."""

    def __init__(self, descriptor: int, *, max_memory: int | None) -> None:
        """``descriptor``: one that stays open. ``max_memory`` is in bytes of resident memory.

        The child ends when half of what its tasks may take is left in use, because a task that
        takes the rest would be ended in the middle of its work.
        """
        self._descriptor = descriptor
        self._max_memory = max_memory and (resident_memory("self") + max_memory) // 2
        self._files = self._lowest_free_file()
        self._handlers = [*map(_handler_of, _SIGNALS)]
        self._blocked = _change_mask(signal.SIG_BLOCK, ())
        self._interrupts = interrupts()
        self._resources = [*map(resource.getrlimit, _RESOURCES)]

    def why_to_end(self, left_behind: Sequence[str]) -> str:
        """Return why the child is to end after a task; the empty string if it continues.

        ``left_behind``: traces of the task that were put right already.
        """
        if HELD.was_unanswered:
            # The next delivery replaces an entry of a process that has ended, and waits for others.
            return "the lease's cache has not answered it"
        return next(self._reasons(left_behind), "")

    def _reasons(self, left_behind: Sequence[str]) -> Iterator[str]:
        if left_behind:
            yield f"it has left {joined(left_behind)}"
        if interrupts() != self._interrupts:  # in the middle of an import, for example
            yield "its time limit has interrupted it"
        if threads := _left_threads():
            yield f"it has left threads: {joined(threads)}"
        if self._lowest_free_file() > self._files + MAX_LEFT_FILES:
            yield f"its tasks have left more than {MAX_LEFT_FILES} files open"
        if [*map(signal.getitimer, _TIMERS)] != _NO_TIMERS:
            yield "it has left a timer running"
        if self._handlers != [*map(_handler_of, _SIGNALS)]:
            yield "it has left another signal handler"
        if self._blocked != _change_mask(signal.SIG_BLOCK, ()):
            yield "it has left signals blocked"
        if self._resources != [*map(resource.getrlimit, _RESOURCES)]:
            yield "it has left another resource limit"
        if self._max_memory and (used := resident_memory("self")) > self._max_memory:
            memory = in_mebibytes(used)
            yield f"it uses {memory} of memory, which leaves too little to the next task"

    def _lowest_free_file(self) -> int:
        """Return the number of the next file to be opened, which rises as files are left open."""
        try:
            descriptor = os.dup(self._descriptor)
        except OSError:  # no more may be open
            return sys.maxsize
        os.close(descriptor)
        return descriptor


def _left_threads() -> list[str]:
    """Return the names of the threads that tasks have left, but for those that serve all tasks.

    Wait for those of a pool that nobody has any more, which end at once unless they are busy.
    """
    left = [each for each in LEFT.left() if each.is_alive() and not _may_stay(each)]
    join_within(ENDING_SECONDS, [each for each in left if is_ending(each)])
    return [each.name for each in left if each.is_alive()]


def _may_stay(thread: threading.Thread) -> bool:
    is_shared = owner_of(thread) is SyncToAsync.single_thread_executor
    return is_shared or serves_all_tasks(thread)


def resident_memory(process: int | str) -> int:
    """Return the bytes of memory that a process uses; 0 where the system does not say so."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def in_mebibytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / 2**20:.0f} MiB"
