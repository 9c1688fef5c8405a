"""Write the stacks of all threads to stderr while no Python code can run.

A C call that keeps the interpreter's lock, such as the match of a regular expression that
backtracks, stops every thread of the process, the watchdog of the time limits included. But the
kernel still keeps time: a timer of the process sends a signal, and the signal's handler is
faulthandler's, which needs no lock.

faulthandler.dump_traceback_later() would do this too, but a process has only one such timer, which
may be the project's, or pytest's. This timer and this signal are nobody else's.

https://man7.org/linux/man-pages/man2/timer_create.2.html
https://docs.python.org/3/library/faulthandler.html#faulthandler.register
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import signal
import sys
import time
from typing import Final

_SIGNALS_BELOW_LAST: Final = 5
"""The place of the signal among the real-time signals, from the last.

Those at the ends are in use.
"""


class _SignalEvent(ctypes.Structure):
    """The C struct sigevent. Zero in ``notify`` is SIGEV_SIGNAL."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class _TimerTimes(ctypes.Structure):
    """The C struct itimerspec. Without an interval the timer fires once."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class StackDump:
    """A timer that writes the stacks of all threads unless it is postponed again and again.

    On a system without such timers, without a stderr, or where the signal has a handler already, it
    does nothing. A forked child has no timer and makes its own StackDump.
    """

    def __init__(self) -> None:
        self._timer: ctypes.c_void_p | None = None
        self._is_tried = False

    def postpone(self, seconds: float) -> None:
        """Write the stacks after this number of seconds, unless this is called again before."""
        if not self._is_tried:
            self._is_tried = True
            self._make_timer()
        self._set_timer(seconds)

    def cancel(self) -> None:
        """Write nothing until ``postpone`` is called."""
        self._set_timer(0.0)

    def _make_timer(self) -> None:
        try:
            number = signal.SIGRTMAX - _SIGNALS_BELOW_LAST
            libc = _load_libc()
            create, self._settime, self._delete = (
                libc.timer_create, libc.timer_settime, libc.timer_delete,
            )  # fmt: skip
            if signal.getsignal(number) is not signal.SIG_DFL:
                return
            faulthandler.register(number, file=sys.__stderr__ or sys.stderr, all_threads=True)
        except (AttributeError, OSError, ValueError, RuntimeError):  # macOS; no stderr
            return
        timer = ctypes.c_void_p()
        event = _SignalEvent(signal=number)
        if create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
            self._timer = timer
            atexit.register(self._delete_timer)

    def _delete_timer(self) -> None:
        """Delete the timer before the interpreter ends and takes the signal's handler away.

        The default of the signal is to end the process.
        """
        timer, self._timer = self._timer, None
        self._delete(timer)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            times = _TimerTimes(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
            self._settime(self._timer, 0, ctypes.byref(times), None)


def _load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
