"""The threads that tasks have started and left behind.

Each of them may keep a database connection, and those that are not daemons delay the end of the
process for as long as they run. A thread belongs to the task in whose thread it was started, or to
that of the thread which started it.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import weakref
from collections import Counter
from typing import Any, Final

from beanstalk_dispatch.logging.log_lines import joined, quoted
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.process import clock, state

logger = logging.getLogger("beanstalk_dispatch.task")

MAX_LEFT: Final = 64
"""The number of threads of ended tasks that a process may have.

With them and its own it stays below the 100 connections that PostgreSQL takes by default.
"""
ENDING_SECONDS: Final = 1.0
"""The seconds in which a thread may end after its task.

Later it counts as left behind in the log.
"""
_SHOWN: Final = 5
"""The number of names that a log line has."""
_LIBRARIES: Final = frozenset({"opentelemetry", "psycopg_pool", "sentry_sdk"})
"""The libraries whose threads serve all tasks of a process."""
_OURS: Final = ("beanstalk_dispatch-", "beanstalk-dispatch-")
"""The prefixes of the package's own threads, which serve all tasks."""


class _Starter:
    """A task that may start threads."""

    __slots__ = ("around", "ended", "is_reported", "message")

    def __init__(self, message: Message, *, around: _Starter | None) -> None:
        self.message = message
        self.around = around
        """The task within which it runs, in the same thread."""
        self.ended = math.inf  # by the monotonic clock; it runs
        self.is_reported = False


class LeftThreads:
    """The threads of this process that a task has started."""

    def __init__(self) -> None:
        self.forget_all()

    def forget_all(self) -> None:
        """Forget all threads: a forked child has one."""
        # Each access is one step of the interpreter's, so no lock is needed that an interrupt could
        # leave locked.
        self._starters: dict[threading.Thread, _Starter] = {}
        self._running: dict[int, _Starter] = {}

    def begin(self, message: Message) -> _Starter:
        """Note a task's threads: those that this thread starts, and the threads of those."""
        _note_starts()
        if len(self._starters) > MAX_LEFT:
            self.left()  # forgets those that have ended, where nobody reports them
        thread_id = threading.get_ident()
        starter = _Starter(message, around=self._running.get(thread_id))
        self._running[thread_id] = starter
        return starter

    def end(self, starter: _Starter) -> None:
        """Note that the task has ended, in the thread in which it began."""
        starter.ended = clock.monotonic()
        if starter.around is None:
            del self._running[threading.get_ident()]
        else:
            self._running[threading.get_ident()] = starter.around

    def note_start(self, thread: threading.Thread) -> None:
        """Note that this thread starts another."""
        starter = self._running.get(threading.get_ident())
        if starter is None and self._starters:
            starter = self._starters.get(threading.current_thread())
        if starter is not None and not thread.name.startswith(_OURS):
            self._starters[thread] = starter

    def forget(self, thread: threading.Thread) -> None:
        """Forget a thread that could not start."""
        self._starters.pop(thread, None)

    def left(self) -> dict[threading.Thread, _Starter]:
        """Return the threads that live on though their task has ended, with their tasks."""
        found = {}
        for thread, starter in list(self._starters.items()):
            if thread.ident is not None and not thread.is_alive():
                self.forget(thread)
            elif starter.ended < math.inf:
                found[thread] = starter
        return found

    def are_too_many(self) -> bool:
        """Return True if there are more than MAX_LEFT, so that the process is to be replaced.

        The threads of a pool count once: it has a bound of its own, and may serve every task.
        """
        if len(self._starters) <= MAX_LEFT:
            return False
        return len({id(owner_of(thread)) for thread in self.left()}) > MAX_LEFT

    def delay_exit(self) -> bool:
        """Return True if the interpreter's own exit would wait for one of these threads."""
        return any(not thread.daemon for thread in self.left())

    def summary(self) -> str:
        """Return the functions that have left the most threads, each with their number."""
        counts = Counter(starter.message.function for starter in self.left().values())
        return joined([f"{name} {count}" for name, count in counts.most_common(_SHOWN)])

    def report(self, *, waits: bool = True) -> None:
        """Log the threads that tasks have left: once a task, and once a minute for each function.

        ``waits``: if False, also those that may be about to end.
        """
        if not self._starters:
            return
        names: dict[_Starter, list[str]] = {}
        since = clock.monotonic() - (ENDING_SECONDS if waits else 0.0)
        for thread, starter in self.left().items():
            is_new = starter.ended <= since and not starter.is_reported
            if is_new and not serves_all_tasks(thread):
                names.setdefault(starter, []).append(thread.name)
        for starter, threads in names.items():
            starter.is_reported = True
            message = starter.message
            if (repeated := THROTTLE.repeated(f"threads-of-{message.function}")) is not None:
                logger.warning(
                    "threads left behind id=%s function=%s count=%d threads=%s%s",
                    quoted(message.id), quoted(message.function), len(threads),
                    quoted(joined(threads[:_SHOWN])), repeated,
                )  # fmt: skip


def owner_of(thread: threading.Thread) -> object:
    """Return the ThreadPoolExecutor of a thread, or the thread itself."""
    reference = _pool_of(thread)
    pool = reference() if reference else None
    return thread if pool is None else pool


def serves_all_tasks(thread: threading.Thread) -> bool:
    """Return True for a thread of a library that every task of the process uses."""
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None) or "")
    return not _LIBRARIES.isdisjoint(each.partition(".")[0] for each in modules)


def is_ending(thread: threading.Thread) -> bool:
    """Return True for the thread of a ThreadPoolExecutor that nobody has any more.

    Such a thread ends by itself once it is idle. asgiref has one for each coroutine.
    """
    reference = _pool_of(thread)
    return reference is not None and reference() is None


def _pool_of(thread: threading.Thread) -> weakref.ref[Any] | None:
    """Return the reference of a thread to its ThreadPoolExecutor; None if it is of no pool."""
    first = next(iter(getattr(thread, "_args", ())), None)
    return first if isinstance(first, weakref.ref) else None


LEFT: Final = LeftThreads()
state.declare(LEFT.forget_all)


@functools.cache
def _note_starts() -> None:
    """Note each start of a thread from now on. Python itself does not know who started a thread."""
    start = threading.Thread.start

    @functools.wraps(start)
    def start_and_note(thread: threading.Thread, *args: Any, **kwargs: Any) -> None:
        LEFT.note_start(thread)
        try:
            start(thread, *args, **kwargs)
        except BaseException:
            LEFT.forget(thread)
            raise

    threading.Thread.start = start_and_note  # type: ignore[method-assign,assignment]
