"""A worker as a whole process: its signals, its display, and its exit."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final, TypeAlias

from beanstalk_dispatch.logging.log_lines import joined, quoted
from beanstalk_dispatch.process import state
from beanstalk_dispatch.process.service_thread import ServiceThread, join_within
from beanstalk_dispatch.running.leases.worker_entry import WORKER_ENTRY
from beanstalk_dispatch.running.left_behind.threads import LEFT
from beanstalk_dispatch.running.limits import time_limit
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.scheduling.outbox import OutboxRelay
from beanstalk_dispatch.signals import worker_stopped

from .status_line import StatusLine, log_progress
from .worker import EXIT_FAILED, Tick, Worker

logger = logging.getLogger("beanstalk_dispatch.worker")

_TIMERS: Final = {
    signal.SIGALRM: signal.ITIMER_REAL,
    signal.SIGVTALRM: signal.ITIMER_VIRTUAL,
    signal.SIGPROF: signal.ITIMER_PROF,
}
"""The signals of a process's timers, each of which ends the process by default."""


class WorkerProcess:
    """The process of a worker: runs it until it stops, and ends even if a task still runs then."""

    def __init__(self, worker: Worker, ticks: Sequence[Tick] = ()) -> None:
        """Take the ticks to call besides those of the display."""
        self._worker = worker
        self._ticks = ticks

    def run(self, *, sender: type) -> None:
        """Run the worker. Return only if no task still runs, and the exit code is 0 or 1.

        With 1 the command has something to say before it exits.

        ``sender`` is that of the signal ``worker_stopped``.
        """
        relays = [_start_relay(self._worker, self._worker.relay)] if self._worker.relay else []
        _stop_on_signals(self._worker)
        exit_code = self._run_and_display()
        WORKER_ENTRY.end()
        # What a relay has sent and not deleted would be sent again.
        join_within(self._worker.options.times.flush_timeout, relays)
        must_exit = (
            exit_code not in {0, EXIT_FAILED} or self._worker.counters.running or LEFT.delay_exit()
        )
        if must_exit:
            self._exit_later(exit_code)
            time_limit.wait_for_reports(self._worker.options.times.log_timeout)
        worker_stopped.send_robust(sender=sender, exit_code=exit_code)
        if must_exit:
            # The interpreter's own exit could wait for the thread of a task that still runs, or
            # that a task has left behind.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(exit_code)

    def _run_and_display(self) -> int:
        """Run the worker with a status line on a terminal, or else with progress in the log."""
        ticks = [*self._ticks, _survive_timers()]
        if not sys.stderr.isatty():
            return self._worker.run(*ticks, log_progress(self._worker))
        with StatusLine(self._worker, sys.stderr).attached() as status_line:
            return self._worker.run(*ticks, status_line.tick)

    def _exit_later(self, exit_code: int) -> None:
        """Exit even if a stuck task holds a lock that a log handler or a receiver waits for."""
        seconds = self._worker.options.times.exit_timeout
        timer = threading.Timer(seconds, os._exit, [exit_code])
        timer.daemon = True
        with suppress(RuntimeError):  # tasks have used up all threads
            timer.start()


def _start_relay(worker: Worker, relay: OutboxRelay) -> ServiceThread:
    loop = functools.partial(relay.run, worker.is_stopping)
    thread = ServiceThread(loop, name="outbox")
    thread.start()
    return thread


def _stop_on_signals(worker: Worker) -> None:
    """Have the first SIGTERM or Ctrl-C stop the worker, and the second end the process at once.

    Without a terminal nobody presses Ctrl-C, and a task may have called
    ``_thread.interrupt_main()``. A terminal that is closed sends SIGHUP, as does its shell, so any
    number of them is one. nohup has it ignored.
    """
    received = []
    has_terminal = any(map(os.isatty, range(3)))

    def on_signal(signum: int, frame: FrameType | None) -> None:
        worker.stop()
        if signum == signal.SIGTERM or (has_terminal and signum == signal.SIGINT):
            received.append(signum)
        if len(received) > 1:
            os._exit(128 + signum)

    HANDLERS.set(on_signal, (signal.SIGTERM, signal.SIGINT))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        HANDLERS.set(on_signal, (signal.SIGHUP,))


def _survive_timers() -> Tick:
    """Have no timer that a task has set end the process. The tick logs which tasks run then.

    Tasks run in threads, which cannot handle signals, so no task has a use for such a timer.
    """
    struck: set[int] = set()

    def on_timer(signum: int, frame: FrameType | None) -> None:
        signal.setitimer(_TIMERS[signal.Signals(signum)], 0)
        struck.add(signum)

    def log_struck() -> None:
        while struck:
            functions = sorted({each.message.function for each in RUNNING.now()})
            name = signal.Signals(struck.pop()).name
            logger.error("timer ended signal=%s running=%s", name, quoted(joined(functions)))

    HANDLERS.set(on_timer, [each for each in _TIMERS if signal.getsignal(each) is signal.SIG_DFL])
    return log_struck


Handler: TypeAlias = Callable[[int, "FrameType | None"], None]


class _SignalHandlers:
    """The signals that this process handles. They are to end a process that a task forks."""

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}

    def set(self, handler: Handler, numbers: Sequence[int]) -> None:
        for number in numbers:
            signal.signal(number, handler)
            self._handlers[number] = handler

    def forget(self) -> None:
        """Leave the signals to the kernel again, but for those that somebody else handles now."""
        while self._handlers:
            number, handler = self._handlers.popitem()
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)


HANDLERS: Final = _SignalHandlers()
state.declare(HANDLERS.forget, in_tests=False)
