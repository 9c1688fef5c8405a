"""Signals, display and exit of a worker's process, with a worker that returns at once."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.poller.options import WorkerTimes
from beanstalk_dispatch.consumers.poller.process import HANDLERS, WorkerProcess
from beanstalk_dispatch.consumers.poller.worker import EXIT_STUCK, Tick, Worker
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.limits import time_limit
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.signals import worker_stopped
from tests.runs import noted
from tests.workers import Recording, make_worker, restored_signal_handlers, until

TIMES = WorkerTimes(exit_timeout=0.01)


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    with restored_signal_handlers():
        yield


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes of the process, which does not end."""
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    return codes


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose ``run`` calls each tick once and returns ``exit_code``."""
    monkeypatch.setattr(Worker, "run", returning(0))
    return make_worker(Recording(), times=TIMES)


def returning(exit_code: int) -> Callable[..., int]:
    def run(self: Worker, *ticks: Tick) -> int:
        for tick in ticks:
            tick()
        return exit_code

    return run


# --- signals ---


def test_the_first_signal_stops_the_worker_and_the_second_ends_the_process(
    worker: Worker, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda number: True)
    WorkerProcess(worker).run(sender=Worker)
    signal.raise_signal(signal.SIGTERM)
    assert worker.is_stopping()
    assert exits == []
    signal.raise_signal(signal.SIGINT)
    assert exits == [128 + signal.SIGINT]


def test_without_a_terminal_a_task_that_interrupts_the_main_thread_ends_no_process(
    worker: Worker, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda number: False)
    WorkerProcess(worker).run(sender=Worker)
    for _ in range(2):
        _thread.interrupt_main()
        assert worker.is_stopping()
    signal.raise_signal(signal.SIGTERM)
    assert exits == []
    signal.raise_signal(signal.SIGTERM)
    assert exits == [128 + signal.SIGTERM]


def test_a_terminal_that_is_closed_stops_the_worker(worker: Worker, exits: list[int]) -> None:
    WorkerProcess(worker).run(sender=Worker)
    for _ in range(2):  # the kernel and the shell each send one
        signal.raise_signal(signal.SIGHUP)
        assert worker.is_stopping()
    assert exits == []
    signal.raise_signal(signal.SIGTERM)
    assert exits == []


def test_nohup_keeps_the_worker_running(worker: Worker, exits: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    WorkerProcess(worker).run(sender=Worker)
    signal.raise_signal(signal.SIGHUP)
    assert not worker.is_stopping()
    assert exits == []


def test_once_the_worker_is_stopping_by_itself_the_first_signal_changes_nothing(
    worker: Worker, exits: list[int]
) -> None:
    WorkerProcess(worker).run(sender=Worker)
    worker.stop(EXIT_STUCK)
    signal.raise_signal(signal.SIGTERM)
    assert exits == []
    assert worker._exit_code == EXIT_STUCK


def test_a_signal_ends_a_process_that_a_task_forks(worker: Worker) -> None:
    WorkerProcess(worker).run(sender=Worker)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child
        # It leaves the project's own handler alone.
        is_own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.raise_signal(signal.SIGTERM if is_own else signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    HANDLERS.forget()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("timer", "name"),
    [
        (signal.ITIMER_REAL, "SIGALRM"),
        (signal.ITIMER_VIRTUAL, "SIGVTALRM"),
        (signal.ITIMER_PROF, "SIGPROF"),
    ],
)
def test_a_timer_of_a_task_ends_and_not_the_process(
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    timer: int,
    name: str,
) -> None:
    def run(self: Worker, *ticks: Tick) -> int:
        with RUNNING.task(Message(function="culprit"), Delivery(queue="q"), get_config()):
            signal.setitimer(timer, 0.01, 0.01)
            # Two of the timers count the CPU time of the process.
            until(lambda: sum(range(100_000)) and signal.getitimer(timer) == (0, 0))
            for tick in ticks:
                tick()
        return 0

    monkeypatch.setattr(Worker, "run", run)
    WorkerProcess(worker).run(sender=Worker)
    assert caplog.text.count(f"timer ended signal={name} running=culprit") == 1


def test_a_timer_that_the_project_handles_is_its_own(worker: Worker) -> None:
    def handler(*args: object) -> None:
        """Do what the project needs."""

    signal.signal(signal.SIGALRM, handler)
    WorkerProcess(worker).run(sender=Worker)
    assert signal.getsignal(signal.SIGALRM) is handler


def test_its_own_ticks_are_called(worker: Worker) -> None:
    calls: list[str] = []
    WorkerProcess(worker, [lambda: calls.append("own")]).run(sender=Worker)
    assert calls == ["own"]


# --- the exit ---


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """The exit codes that receivers of ``worker_stopped`` from the sender have got."""
    codes: list[int] = []

    def receiver(exit_code: int, **kwargs: Any) -> None:
        codes.append(exit_code)

    worker_stopped.connect(receiver, sender=Worker)
    yield codes
    worker_stopped.disconnect(receiver, sender=Worker)


def test_without_a_task_that_runs_the_process_ends_by_itself(
    worker: Worker, exits: list[int], stopped: list[int]
) -> None:
    WorkerProcess(worker).run(sender=Worker)
    assert (stopped, exits) == ([0], [])


def test_the_process_ends_even_if_a_stuck_task_holds_what_the_exit_waits_for(
    worker: Worker, exits: list[int], stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """logging.shutdown() and the receivers may wait for such a lock."""
    monkeypatch.setattr(Worker, "run", returning(EXIT_STUCK))
    WorkerProcess(worker).run(sender=Worker)
    until(lambda: exits == [EXIT_STUCK] * 2)  # the second is the timer's
    assert stopped == [EXIT_STUCK]


def test_a_task_that_still_runs_does_not_keep_the_process(
    worker: Worker, exits: list[int], stopped: list[int]
) -> None:
    worker.counters.running = 1
    WorkerProcess(worker).run(sender=Worker)
    until(lambda: exits == [0, 0])
    assert stopped == [0]


def test_the_exit_does_not_wait_for_threads_that_a_task_has_left(
    worker: Worker, exits: list[int], stopped: list[int]
) -> None:
    release = threading.Event()
    with noted(Message(function="f")):
        thread = threading.Thread(target=release.wait, args=(20,))
        thread.start()
    WorkerProcess(worker).run(sender=Worker)
    release.set()
    thread.join()
    until(lambda: exits == [0, 0])


# --- what it shows ---


@pytest.mark.parametrize(
    ("is_terminal", "ticks"), [(True, ["StatusLine.tick"]), (False, ["log_progress"])]
)
def test_a_terminal_has_a_status_line_and_a_log_has_progress(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, is_terminal: bool, ticks: list[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    called: list[str] = []

    def run(self: Worker, *ticks: Any) -> int:
        called.extend(tick.__qualname__.partition(".<")[0] for tick in ticks)
        return 0

    monkeypatch.setattr(Worker, "run", run)
    WorkerProcess(worker).run(sender=Worker)
    assert called == ["_survive_timers", *ticks]


# --- the outbox ---


class OneRound:
    """A relay that is asked to stop, and takes a moment."""

    sent, waiting, oldest_seconds = 0, 0, 0.0
    has_ended = False

    def run(self, is_stopping: Callable[[], bool]) -> None:
        until(is_stopping)
        time.sleep(0.1)
        self.has_ended = True


def test_the_relay_of_the_outbox_ends_before_the_process(worker: Worker) -> None:
    worker.relay = relay = OneRound()
    worker.stop()
    WorkerProcess(worker).run(sender=Worker)
    assert relay.has_ended


@pytest.mark.parametrize(("takes", "is_reported"), [(0.2, True), (30, False)])
def test_a_stuck_task_is_reported_before_the_receivers_of_the_end(
    exits: list[int], monkeypatch: pytest.MonkeyPatch, takes: float, is_reported: bool
) -> None:
    """Such as Sentry's, which send what waits. A report that hangs keeps no process."""
    block = time_limit.time_limit(1)
    monkeypatch.setattr(time_limit._watchdog, "stuck", lambda: [block])
    monkeypatch.setattr(Worker, "run", returning(EXIT_STUCK))
    report = threading.Timer(takes, setattr, [block, "is_reported", True])
    report.start()
    seen: list[bool] = []

    def stopped(**_: object) -> None:
        seen.append(block.is_reported)

    worker_stopped.connect(stopped)
    times = WorkerTimes(exit_timeout=20, log_timeout=1.0)
    WorkerProcess(make_worker(Recording(), times=times)).run(sender=Worker)
    worker_stopped.disconnect(stopped)
    report.cancel()
    assert seen == [is_reported]
    assert exits == [EXIT_STUCK]


def test_a_process_exits_where_tasks_have_used_up_all_threads(
    worker: Worker, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "run", returning(EXIT_STUCK))
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError))
    WorkerProcess(worker).run(sender=Worker)
    assert exits == [EXIT_STUCK]
