"""time_limit(): end a block of Python code that runs too long, in any thread.

A signal can only be handled in the main thread, and web servers run views in others, so one
watchdog thread per process watches all limits. In the main thread it sends SIGALRM, which also
ends a blocking system call. In another thread it sets an asynchronous exception, which Python
raises between two bytecodes. A thread in a C call (a driver, ``time.sleep``) sees it when that
call returns; until then the log says that it is *stuck*. Some code is not interrupted, see
``thread_frames``. A C call that keeps the interpreter's lock stops the watchdog too.

https://docs.python.org/3/c-api/threads.html#c.PyThreadState_SetAsyncExc
"""

from __future__ import annotations

import ctypes
import logging
import math
import signal
import threading

# Those of ``signal`` convert each value to an enum, which takes longer than the system call.
from _signal import getsignal as _get_handler  # type: ignore[import-not-found]
from _signal import signal as _set_handler
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from types import FrameType, TracebackType
from typing import Final, Self

from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.process import clock, state
from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.running.process_exceptions import is_for_the_process

from .thread_frames import is_interruptible

logger = logging.getLogger("beanstalk_dispatch.task.time_limit")

GRACE: Final = 5.0
"""The seconds after its limit at which a running block is reported as stuck.

Also the seconds between two interrupts of it.
"""
RETRY_PAUSE: Final = 0.05
"""The seconds between two checks of a thread that is due but not interruptible."""
PULSE: Final = 10.0
"""The seconds after which the watchdog wakes at the latest."""

_SIGALRM, _SIG_DFL = int(signal.SIGALRM), int(signal.SIG_DFL)
_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)


class TimeLimitExceeded(BaseException):
    """The interrupt of a block. It is not an Exception, so that ``except Exception`` lets it pass.

    Code that catches BaseException can swallow it, and so does Python itself where it strikes in a
    ``__del__``. A block that swallows it is interrupted again every GRACE seconds and reported as
    stuck, and when it ends, it has timed out.
    """


class time_limit:  # noqa: N801 - a context manager, named like one
    """A context manager that raises TaskTimeout if its block takes more than ``seconds``.

    Once the interrupt has struck the block, its end raises TaskTimeout, whether the block has let
    the interrupt pass, raised another exception, or swallowed it and returned. An interrupt that
    was still on its way when the block ended has not touched the block and raises nothing.

    Blocks may be nested. After the block has ended nothing is ever raised for it: neither later in
    this thread, nor in the next work of the thread. Only in the instant in which the block ends can
    TimeLimitExceeded itself come out; who enters a limit must then close it with ``end()``.
    """

    __slots__ = (
        "_has_ended",
        "_in_main_thread",
        "_passed_at",
        "_previous_handler",
        "deadline",
        "fires",
        "interrupts",
        "is_reported",
        "label",
        "leeway",
        "on_stuck",
        "owner",
        "seconds",
        "started",
        "struck",
        "stuck",
        "thread_id",
    )

    def __init__(
        self,
        seconds: float,
        label: Callable[[], str] = str,
        *,
        leeway: float = 0.0,
        on_stuck: Callable[[int], None] | None = None,
        interrupts: bool = True,
    ) -> None:
        """Keep the settings of the limit.

        ``label`` names the block in the log; another thread calls it if the block is stuck. That
        thread then calls ``on_stuck`` with the id of the block's thread.

        ``leeway``: seconds by which the interrupt comes later, for blocks that have a gentler limit
        of their own. ``interrupts``: if False, a block that takes too long is only reported as
        stuck.
        """
        self.seconds = seconds
        self.label = label
        self.leeway = leeway
        self.on_stuck = on_stuck
        self.interrupts = interrupts
        self.owner = threading.get_ident()  # may be entered in a thread that this one waits for
        self.fires = 0
        self.struck = False
        self.stuck = False
        self.is_reported = False
        self._in_main_thread = False
        self._has_ended = False
        self._passed_at: float | None = None

    def __enter__(self) -> Self:
        self.thread_id = threading.get_ident()
        self.started = clock.monotonic()
        self.deadline = self.started + self.seconds + self.leeway
        if self.interrupts and self.thread_id == threading.main_thread().ident:
            # Before the change: an alarm of an enclosing limit may come right after it.
            self._previous_handler = _get_handler(_SIGALRM)
            self._in_main_thread = True
        try:
            if self._in_main_thread:
                _set_handler(_SIGALRM, self._on_alarm)
            _watchdog.watch(self)
        except BaseException:  # an enclosing limit, or Ctrl-C: nobody would call __exit__
            self.end()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.end()
        except TimeLimitExceeded:  # raised here, after the block had ended
            self._has_ended = True
            self.end()
        if isinstance(exc, TimeLimitExceeded):
            if self.fires:
                raise self.timeout() from exc
        elif self.struck and not is_for_the_process(exc):
            raise self.timeout() from exc

    def timeout(self) -> TaskTimeout:
        return TaskTimeout(f"time limit of {self.seconds:g} s exceeded")

    def end(self) -> None:
        """Close the limit, and those within it. May be called twice."""
        _watchdog.forget(self)
        if self._in_main_thread:
            if self.fires:
                # An alarm on its way arrives with the end of any system call. Had the handler
                # gone before, and was there none, it would end the process.
                signal.sigpending()
            _set_handler(_SIGALRM, self._previous_handler or _SIG_DFL)
        elif self.fires and not self._has_ended:
            self._has_ended = True
            # If the interrupt is still on its way, it strikes here. Taking it back with a NULL
            # would leave the interpreter's eval breaker set for ever on Python 3.11 and 3.12.
            try:
                _let_interrupts_strike()
            except TimeLimitExceeded:
                # A second interrupt replaces one that has not struck yet, so after two of them
                # it is unknown whether the first has struck.
                self.struck = self.fires > 1
            else:
                self.struck = True
        if self.stuck:
            self.stuck = False
            logger.warning(
                "stuck task ended label=%s seconds=%.1f limit=%g",
                self.label(),
                clock.monotonic() - self.started,
                self.seconds,
            )

    def is_late(self, now: float) -> bool:
        """Return True if the block still runs GRACE after its limit.

        The time counts from the moment when the watchdog first finds the limit passed.
        """
        if self._passed_at is None:
            self._passed_at = now
        return now >= self._passed_at + GRACE

    def fire(self) -> None:
        """Interrupt the block's thread. The watchdog calls this, with its lock held."""
        self.fires += 1
        if self._in_main_thread:
            signal.pthread_kill(self.thread_id, signal.SIGALRM)
        else:
            _set_async_exc(self.thread_id, TimeLimitExceeded)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        if self.fires and _watchdog.is_watched(self):
            self.struck = True
            raise TimeLimitExceeded
        if callable(self._previous_handler):  # an enclosing limit's, or the project's own
            self._previous_handler(signum, frame)


def _let_interrupts_strike() -> None:
    """Let an interrupt strike that is on its way.

    Python looks for asynchronous exceptions at calls and at backward jumps.
    """
    for _ in range(3):
        pass


class _WatchdogThread:
    """The daemon thread that sleeps until the earliest deadline it knows of.

    It wakes after PULSE at the latest. So a limit of more than that does not wake it, and tasks
    that end in time cost one set entry and no thread switch.
    """

    def __init__(self) -> None:
        self.when_stuck: list[Callable[[], None]] = []
        self.interrupts = 0
        self.forget_all()

    def forget_all(self) -> None:
        """Start again. A forked child has no watchdog thread, and cannot trust the lock."""
        # An interrupt may strike a thread that has just taken the lock, before a with statement
        # knows that (from Python 3.14 on). So the lock is taken inside of a try, and it is an
        # RLock, which knows its owner.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._limits: set[time_limit] = set()
        self._stuck: set[time_limit] = set()
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def watch(self, limit: time_limit) -> None:
        try:
            self._lock.acquire()
            self._limits.add(limit)
            if self._thread is None:
                thread = ServiceThread(self._watch_deadlines, name="watchdog")
                # In an empty context: Sentry's SDK would give the thread a copy of the tags and
                # the trace of the task that happens to be the first. It may fail, without memory
                # or threads.
                Context().run(thread.start)
                self._thread = thread
            if limit.deadline < self._wakes_at:
                self._changed.notify()
                self._wakes_at = limit.deadline
        finally:
            try:  # noqa: SIM105 - suppress() would be struck before the lock is released
                self._lock.release()
            except RuntimeError:  # it was struck before it had the lock
                pass

    def forget(self, limit: time_limit) -> None:
        try:
            self._lock.acquire()
            self._limits.discard(limit)
            self._stuck.discard(limit)
            if limit.fires:  # the interrupt may have kept one within it from being closed
                for other in [*self._limits]:
                    if other.owner == limit.owner and other.started >= limit.started:
                        self._limits.discard(other)
                        self._stuck.discard(other)
        finally:
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                pass

    def is_watched(self, limit: time_limit) -> bool:
        return limit in self._limits

    def stuck(self) -> list[time_limit]:
        if not self._stuck:
            return []
        with self._lock:
            return list(self._stuck)

    def stop(self) -> None:
        """End the thread, until there is another limit."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._wakes_at = math.inf
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _watch_deadlines(self) -> None:
        while True:
            with self._lock:
                if self._thread is not threading.current_thread():
                    return
                reports = self._fire_due()
                if not reports:
                    self._changed.wait(max(self._wakes_at - clock.monotonic(), 0.0))
            for report in reports:
                # In a thread of its own: the stuck task may hold a logging handler's lock,
                # and no other limit may wait for that.
                with suppress(RuntimeError):  # without a thread, stuck() still reports it
                    threading.Thread(target=report, daemon=True).start()

    def _fire_due(self) -> list[Callable[[], None]]:
        now = clock.monotonic()
        self._wakes_at = now + PULSE
        newly_stuck: list[Callable[[], None]] = []
        for limit in self._limits:
            if limit.deadline <= now:
                is_late = limit.is_late(now)
                # Of the limits around one another, one is reported.
                if is_late and limit.owner not in {each.owner for each in self._stuck}:
                    limit.stuck = True
                    self._stuck.add(limit)
                    newly_stuck += [partial(_report_stuck, limit), *self.when_stuck]
                if not limit.interrupts:
                    limit.deadline = now + GRACE
                elif is_interruptible(limit.thread_id, is_late=is_late):
                    limit.fire()
                    self.interrupts += 1
                    limit.deadline = now + GRACE
                else:
                    limit.deadline = now + RETRY_PAUSE
            self._wakes_at = min(self._wakes_at, limit.deadline)
        return newly_stuck


def _report_stuck(limit: time_limit) -> None:
    logger.critical(
        "stuck task label=%s limit=%g thread=%s: the time limit passed %g s ago and the thread "
        "cannot be interrupted; it is most likely inside a blocking C call without a timeout",
        limit.label(),
        limit.seconds,
        limit.thread_id,
        GRACE,
    )
    try:
        if limit.on_stuck:
            limit.on_stuck(limit.thread_id)
    finally:
        limit.is_reported = True


_watchdog = _WatchdogThread()
state.declare(_watchdog.forget_all, in_tests=False)


def stop_watchdog() -> None:
    """End the watchdog's thread, in a process that is to fork."""
    _watchdog.stop()


def interrupts() -> int:
    """Return the number of interrupts that time limits have sent to threads of this process."""
    return _watchdog.interrupts


def stuck() -> list[time_limit]:
    """Return the limits whose blocks could not be interrupted and still run in this process."""
    return _watchdog.stuck()


def wait_for_reports(seconds: float) -> None:
    """Wait until every stuck block is reported, before the process ends. Wait ``seconds`` at most.

    A thread of its own reports each, because the block may hold a lock that a report needs.
    """
    until = clock.monotonic() + seconds
    while clock.monotonic() < until and not all(each.is_reported for each in stuck()):
        clock.sleep(RETRY_PAUSE)


def stuck_threads() -> set[int]:
    """Return the ids of the threads that a stuck block, or the wait for one, keeps."""
    return {each.owner for each in stuck()}


def call_when_stuck(function: Callable[[], None]) -> None:
    """Call ``function``, in a thread of its own, each time that a block becomes stuck.

    So a process whose threads all hang can be judged without any of them.
    """
    _watchdog.when_stuck.append(function)
