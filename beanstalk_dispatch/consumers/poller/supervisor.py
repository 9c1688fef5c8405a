"""The parent of the processes of ``--processes``: starts them, replaces them, and ends them.

It has no thread and no client of SQS, so that it can fork at any time. The health port is answered
by a further child.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from django.core.cache import caches
from django.db import connections

from .health import ProbeServer
from .process_reports import ProcessReports, report_once_a_second
from .threads import every
from .worker import EXIT_NO_QUEUE, EXIT_STUCK, Tick, Worker

logger = logging.getLogger("beanstalk_dispatch.worker")

STOP_MARGIN_SECONDS: Final = 30.0
"""Seconds for a stop beyond ``--grace`` and ``--wait``: docs/worker.md lists its parts."""
EXIT_CODES_OF_AN_END: Final = frozenset({0, EXIT_NO_QUEUE})
"""A process that stops by itself, because of ``--burst`` or ``--max-tasks``, has one of these."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorTimes:
    """The seconds that a supervisor waits. Tests pass shorter times."""

    check_interval: float = 0.1
    """Seconds between two checks of the processes."""
    first_restart: float = 1.0
    """Before a process that has crashed is replaced."""
    longest_restart: float = 30.0
    """Before a process is replaced whose predecessors have crashed again and again."""
    healthy_after: float = 60.0
    """A process that has run for this long is the first to crash."""
    silence: float = 60.0
    """A process that has not reported for this long is killed. It reports once a second, unless a C
    call keeps its interpreter's lock."""
    silence_check_interval: float = 1.0
    """Seconds between two checks of the reports."""
    stop: float = STOP_MARGIN_SECONDS
    """Seconds from a signal until the processes that still run are killed."""


@dataclass(slots=True, eq=False)
class _ChildProcess:
    """A worker process, and after its end the one that replaces it."""

    run: Callable[[], None]
    """The function that the process runs."""
    pid: int | None = None
    """The id of the process; None while there is none."""
    started_at: float = 0.0
    restart_at: float = 0.0
    crashes: int = 0
    """The number of crashes in a row."""
    exit_code: int | None = None
    """Once it has ended and is not to be replaced."""


class Supervisor:
    """A supervisor of worker processes: runs them until all have ended, or until a signal."""

    def __init__(
        self,
        run_worker: Callable[[int], None],
        reports: ProcessReports,
        *,
        processes: int,
        end_codes: frozenset[int] = frozenset(),
        server: ProbeServer | None = None,
        ticks: Sequence[Tick] = (),
        times: SupervisorTimes | None = None,
    ) -> None:
        """Take ``run_worker``, which gets the index of its process, from 0.

        A process that ends with one of ``end_codes`` is not replaced. A further process answers at
        ``server``, which listens.
        """
        self._times = times or SupervisorTimes()
        self._end_codes = end_codes
        self._reports = reports
        self._workers = [
            _ChildProcess(run=partial(run_worker, index)) for index in range(processes)
        ]
        self._server = server
        self._children = list(self._workers)
        if server:
            answer = partial(answer_probes, server, supervisor=os.getpid())
            self._children.append(_ChildProcess(run=answer))
        self._ticks = [*ticks, every(self._times.silence_check_interval, self._kill_silent)]
        self._signals: list[int] = []
        self._kill_at: float | None = None

    def run(self) -> int:
        """Run the processes, and return the worst of their exit codes.

        In each process that it forks, this raises the exception that ends that process.
        """
        pid = os.getpid()
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            while any(child.exit_code is None for child in self._workers):
                self._pass_signals_on()
                self._start_due()
                for tick in self._ticks:
                    with suppress(OSError):  # the age of the health file says so
                        tick()
                time.sleep(self._times.check_interval)
                self._note_ends()
        finally:
            if os.getpid() == pid:  # pragma: no branch - a child ends elsewhere
                self._kill_children(self._children)
                if self._server:
                    self._server.server_close()
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return max(_as_shell_code(child.exit_code or 0) for child in self._workers)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signals.append(signum)

    def _pass_signals_on(self) -> None:
        if not self._signals:
            return
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._times.stop
            for child in self._workers:
                if child.pid is None:  # it waits to be replaced
                    child.exit_code = child.exit_code or 0
                else:
                    os.kill(child.pid, signal.SIGTERM)
        is_late = time.monotonic() >= self._kill_at
        if is_late or len(self._signals) > 1:
            running = [child for child in self._workers if child.pid is not None]
            for child in running:
                logger.error(
                    "worker process killed pid=%d reason=%s",
                    child.pid, "timeout" if is_late else "second-signal",
                )  # fmt: skip
            self._kill_children(running)

    def _kill_silent(self) -> None:
        """Kill the processes that have not reported for long. They are replaced like others."""
        for index, child in enumerate(self._workers):
            if child.pid is None or self._signals:
                continue  # a stop has a time limit of its own
            heard_at = max(child.started_at, self._reports.written_at(index))
            if time.monotonic() - heard_at >= self._times.silence:
                logger.error("worker process killed pid=%d reason=%s", child.pid, "no-report")
                os.kill(child.pid, signal.SIGKILL)

    # --- the start of a process, and its end -------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            is_wanted = child.pid is None and child.exit_code is None and not self._signals
            if is_wanted and now >= child.restart_at:
                child.started_at = now
                child.pid = self._fork_child(child)

    def _fork_child(self, child: _ChildProcess) -> int:
        """Fork a child, and return its process id. In the child, end it when it has run."""
        # Two processes must not use one connection or write the same buffer.
        connections.close_all()
        caches.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        with _blocked_signals():
            pid = os.fork()
            # Until the child has handlers of its own, it has nothing to finish.
            for number in () if pid else _SIGNALS:
                signal.signal(number, _exit_at_once)
        if not pid:
            self._run_in_child(child)
        return pid

    def _run_in_child(self, child: _ChildProcess) -> NoReturn:
        if self._server and child in self._workers:
            self._server.socket.close()
        child.run()
        # An ordinary exit, so that what was registered with atexit runs.
        sys.exit(0)

    def _note_ends(self) -> None:
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._note_end(child, os.waitstatus_to_exitcode(status))

    def _note_end(self, child: _ChildProcess, exit_code: int) -> None:
        pid, child.pid = child.pid, None
        if self._signals or (exit_code in self._end_codes and child in self._workers):
            child.exit_code = exit_code
            logger.info("worker process ended pid=%d exit_code=%d", pid, exit_code)
            if child in self._workers:  # pragma: no branch - a helper ends after the workers
                with suppress(OSError):  # a full disk; its last report grows old then
                    self._reports.set_ended(self._workers.index(child))
            return
        delay = 0.0 if exit_code == EXIT_STUCK else self._restart_delay(child)
        child.restart_at = time.monotonic() + delay
        logger.error(
            "worker process ended pid=%d exit_code=%s restart_in=%g", pid, exit_code, delay
        )

    def _restart_delay(self, child: _ChildProcess) -> float:
        if time.monotonic() - child.started_at >= self._times.healthy_after:
            child.crashes = 0
        child.crashes += 1
        doubled: float = self._times.first_restart * 2 ** min(child.crashes - 1, 16)
        return min(doubled, self._times.longest_restart)

    def _kill_children(self, children: Sequence[_ChildProcess]) -> None:
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
                _, status = os.waitpid(child.pid, 0)
                child.exit_code = os.waitstatus_to_exitcode(status)
                child.pid = None


def worker_ticks(worker: Worker, *, report: Path, supervisor: int) -> list[Tick]:
    """Return the ticks of a worker's process that has a supervisor with this process id."""

    def stop_without_supervisor() -> None:
        if os.getppid() != supervisor and not worker.is_stopping():
            worker.stop()
            logger.error("stop reason=supervisor-ended pid=%d", supervisor)

    return [report_once_a_second(worker, report), stop_without_supervisor]


def answer_probes(server: ProbeServer, *, supervisor: int) -> None:
    """Answer at ``server`` as long as the process with the id ``supervisor`` is the parent.

    The supervisor kills this process after all others, so it ignores a signal that all get.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    server.timeout = 0.5
    while os.getppid() == supervisor:
        server.handle_request()


def _as_shell_code(exit_code: int) -> int:
    """Return the exit code as a shell shows it: 128 + signal if a signal has ended the process."""
    return exit_code if exit_code >= 0 else 128 - exit_code


def _exit_at_once(signum: int, frame: FrameType | None) -> None:
    os._exit(0)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Have signals wait until the end of the block, in the parent and in the child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
