"""A supervisor of real processes, whose children are functions of the tests."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller import supervisor as module
from beanstalk_dispatch.consumers.poller.health import ProbeServer, touch_while_healthy
from beanstalk_dispatch.consumers.poller.process_reports import ProcessReports, read
from beanstalk_dispatch.consumers.poller.supervisor import (
    EXIT_CODES_OF_AN_END,
    Supervisor,
    SupervisorTimes,
    answer_probes,
    worker_ticks,
)
from beanstalk_dispatch.consumers.poller.worker import EXIT_NO_QUEUE, EXIT_STUCK
from tests.workers import Recording, make_worker, until

# The threads of pytest-xdist and of coverage do not run in the children.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

TIMES = SupervisorTimes(check_interval=0.01, first_restart=0.02, longest_restart=0.04, stop=20)


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "beanstalk_dispatch.worker")


@pytest.fixture
def reports(tmp_path: Path) -> ProcessReports:
    return ProcessReports(tmp_path, processes=2)


class Children:
    """What the children do: each ends with the exit codes that ``ends`` lists, then with 0."""

    def __init__(self, directory: Path, *ends: int) -> None:
        self._starts = directory / "starts"
        self._ends = ends
        self._starts.touch()

    def starts(self, index: int) -> int:
        """How often the process with this index was started."""
        return self._starts.read_text().split().count(str(index))

    def __call__(self, index: int) -> None:
        start = self.starts(index)
        with self._starts.open("a") as file:
            file.write(f"{index}\n")
        code = self._ends[start] if start < len(self._ends) else 0
        if code < 0:
            os.kill(os.getpid(), -code)  # pragma: no cover - runs in the child
        os._exit(code)


def make(run_worker: Callable[[int], None], reports: ProcessReports, **options: Any) -> Supervisor:
    given: dict[str, Any] = {"processes": 2, "end_codes": EXIT_CODES_OF_AN_END, "times": TIMES}
    return Supervisor(run_worker, reports, **(given | options))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log lines without process ids."""
    return sorted(
        " ".join(word for word in message.split() if not word.startswith("pid="))
        for message in caplog.messages
    )


# --- ends and restarts ---


def test_it_ends_when_all_processes_have_ended(
    reports: ProcessReports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    children = Children(tmp_path)
    assert make(children, reports).run() == 0
    assert (children.starts(0), children.starts(1)) == (1, 1)
    assert lines(caplog) == ["worker process ended exit_code=0"] * 2
    assert reports.why_unhealthy() is None


def test_its_exit_code_is_the_worst(reports: ProcessReports) -> None:
    assert make(lambda index: os._exit(EXIT_NO_QUEUE * index), reports).run() == EXIT_NO_QUEUE


@pytest.mark.parametrize(
    ("started", "written", "is_killed"),
    [(100, None, True), (100, 70, True), (100, 5, False), (5, None, False), (5, 70, False)],
)
def test_a_process_that_has_not_reported_for_a_minute_is_killed(
    reports: ProcessReports, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    started: float, written: float | None, is_killed: bool,
) -> None:  # fmt: skip
    """The last report of its predecessor does not count."""
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr("os.kill", lambda *call: killed.append(call))
    supervisor = make(os._exit, reports)
    child, other = supervisor._workers
    child.pid, child.started_at = 4711, time.monotonic() - started
    assert other.pid is None
    if written is not None:
        at = time.monotonic() - written
        reports.file(0).write_text(f'{{"written_at": {at}, "unhealthy": null, "figures": []}}')
    for _ in range(2):
        for tick in supervisor._ticks:  # looks once a second
            tick()
    assert killed == ([(4711, signal.SIGKILL)] if is_killed else [])
    assert caplog.messages == ["worker process killed pid=4711 reason=no-report"] * is_killed


@pytest.mark.slow
def test_a_process_that_hangs_is_killed_and_replaced(
    reports: ProcessReports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hung = tmp_path / "hung"

    def hang_once(index: int) -> None:
        if index == 0 and not hung.exists():  # pragma: no cover - in the child, which is killed
            hung.touch()
            time.sleep(60)
        os._exit(0)

    # At the end of a long run, coverage needs a second to save what it has when a child ends.
    times = replace(TIMES, silence=4, silence_check_interval=0.05)
    assert make(hang_once, reports, times=times).run() == 0
    found = lines(caplog)
    assert "worker process killed reason=no-report" in found
    assert "worker process ended exit_code=-9 restart_in=0.02" in found


@pytest.mark.parametrize(("exit_code", "delay"), [(EXIT_STUCK, "0"), (1, "0.02"), (-9, "0.02")])
def test_a_process_that_ends_otherwise_is_replaced(
    reports: ProcessReports,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    exit_code: int,
    delay: str,
) -> None:
    children = Children(tmp_path, exit_code)
    assert make(children, reports, processes=1).run() == 0
    assert children.starts(0) == 2
    assert set(lines(caplog)) == {
        "worker process ended exit_code=0",
        f"worker process ended exit_code={exit_code} restart_in={delay}",
    }


@pytest.mark.parametrize(
    ("healthy_after", "delays"), [(60, ["0.02", "0.04", "0.04"]), (0, ["0.02"] * 3)]
)
def test_the_delay_doubles_until_a_process_has_run_for_a_while(
    reports: ProcessReports,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    healthy_after: float,
    delays: list[str],
) -> None:
    times = SupervisorTimes(
        check_interval=0.01, first_restart=0.02, longest_restart=0.04, healthy_after=healthy_after
    )
    make(Children(tmp_path, 1, 1, 1), reports, processes=1, times=times).run()
    assert [line.rpartition("restart_in=")[2] for line in caplog.messages[:3]] == delays


def test_without_burst_a_process_that_ends_with_0_is_replaced(
    reports: ProcessReports, tmp_path: Path
) -> None:
    children = Children(tmp_path)
    supervisor = make(children, reports, end_codes=frozenset({3}), processes=1)
    children._ends = (0, 3)
    assert supervisor.run() == 3
    assert children.starts(0) == 2


def test_a_report_that_cannot_be_written_ends_no_other_process(
    reports: ProcessReports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(self: ProcessReports, index: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(ProcessReports, "set_ended", disk_full)
    children = Children(tmp_path, 0)
    assert make(children, reports, end_codes=EXIT_CODES_OF_AN_END).run() == 0
    assert [children.starts(0), children.starts(1)] == [1, 1]


def test_a_process_that_returns_exits_as_usual(reports: ProcessReports) -> None:
    ran: list[int] = []
    supervisor = make(ran.append, reports)
    with pytest.raises(SystemExit) as exited:
        supervisor._run_in_child(supervisor._workers[1])
    assert (ran, exited.value.code) == ([1], 0)


# --- signals ---


def send_after(condition: Callable[[], object], *numbers: signal.Signals) -> threading.Thread:
    """A thread that sends signals to this process, each when ``condition`` holds."""

    def send() -> None:
        for number in numbers:
            until(condition)
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def signalled(
    supervisor: Supervisor, condition: Callable[[], object], *numbers: signal.Signals
) -> int:
    """Run a supervisor, send it signals, and return its exit code."""
    thread = send_after(condition, *numbers)
    exit_code = supervisor.run()
    thread.join()
    return exit_code


def waiting(directory: Path, *, ignores_signals: bool = False) -> Callable[[int], None]:
    """A child that shows that it has started, and ends with 0 at SIGTERM unless it ignores it."""

    def run_worker(index: int) -> None:
        handler: Any = signal.SIG_IGN if ignores_signals else lambda *args: os._exit(0)
        signal.signal(signal.SIGTERM, handler)
        (directory / f"started-{index}").touch()
        time.sleep(30)
        os._exit(1)  # pragma: no cover - runs in the child

    return run_worker


def both_started(directory: Path) -> Callable[[], bool]:
    return lambda: all((directory / f"started-{index}").exists() for index in range(2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_as_sigterm(
    reports: ProcessReports, tmp_path: Path, number: signal.Signals
) -> None:
    supervisor = make(waiting(tmp_path), reports)
    assert signalled(supervisor, both_started(tmp_path), number) == 0


def test_a_second_signal_kills(
    reports: ProcessReports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(waiting(tmp_path, ignores_signals=True), reports)
    numbers = (signal.SIGTERM, signal.SIGINT)
    assert signalled(supervisor, both_started(tmp_path), *numbers) == 128 + signal.SIGINT
    assert lines(caplog) == ["worker process killed reason=second-signal"] * 2


def test_a_process_that_does_not_stop_in_time_is_killed(
    reports: ProcessReports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(
        waiting(tmp_path, ignores_signals=True),
        reports,
        times=SupervisorTimes(check_interval=0.01, stop=0.1),
    )
    exit_code = signalled(supervisor, both_started(tmp_path), signal.SIGTERM)
    assert exit_code == 128 + signal.SIGKILL
    assert lines(caplog) == ["worker process killed reason=timeout"] * 2


def test_after_a_signal_no_process_is_replaced(
    reports: ProcessReports, caplog: pytest.LogCaptureFixture
) -> None:
    times = SupervisorTimes(check_interval=0.01, first_restart=60)
    supervisor = make(lambda index: os._exit(1), reports, times=times)
    assert signalled(supervisor, lambda: len(caplog.messages) == 2, signal.SIGTERM) == 0


def test_a_process_that_has_no_handler_yet_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    module._exit_at_once(signal.SIGTERM, None)
    assert codes == [0]


# --- what a worker's process does for its supervisor ---


def test_a_worker_reports_and_stops_without_its_supervisor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker, file = make_worker(Recording()), tmp_path / "1.json"
    for tick in worker_ticks(worker, report=file, supervisor=os.getppid()):
        tick()
    assert read(file) is not None
    assert not worker.is_stopping()
    for _ in range(2):
        for tick in worker_ticks(worker, report=file, supervisor=1 << 22):
            tick()
    assert worker.is_stopping()
    assert caplog.messages == ["stop reason=supervisor-ended pid=4194304"]


# --- health ---


def test_it_answers_probes_and_touches_a_file(reports: ProcessReports, tmp_path: Path) -> None:
    file = tmp_path / "health"
    server = ProbeServer("127.0.0.1", 0, find_reason=lambda: None, find_figures=list)
    reports.set_ended(0)
    reports.set_ended(1)
    tick = touch_while_healthy(reports.why_unhealthy, file)
    supervisor = make(waiting(tmp_path), reports, server=server, ticks=[tick])
    bodies: list[bytes] = []

    def is_answered() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            bodies.append(response.read())
        return both_started(tmp_path)() and file.exists()

    port = server.server_address[1]
    assert signalled(supervisor, is_answered, signal.SIGTERM) == 0
    assert set(bodies) == {b"ok\n"}
    assert server.socket.fileno() == -1


def test_a_health_file_that_cannot_be_touched_ends_nothing(
    reports: ProcessReports, tmp_path: Path
) -> None:
    for index in range(2):
        reports.set_ended(index)
    tick = touch_while_healthy(reports.why_unhealthy, tmp_path / "missing" / "health")
    supervisor = make(lambda index: os._exit(0), reports, ticks=[tick])
    assert supervisor.run() == 0


def test_only_the_process_that_answers_probes_keeps_the_port(reports: ProcessReports) -> None:
    server = ProbeServer("127.0.0.1", 0, find_reason=lambda: None, find_figures=list)
    supervisor = make(lambda index: None, reports, server=server)
    with pytest.raises(SystemExit):
        supervisor._run_in_child(supervisor._workers[0])
    assert server.socket.fileno() == -1


def test_probes_are_answered_until_the_supervisor_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ProbeServer("127.0.0.1", 0, find_reason=lambda: None, find_figures=list)
    handled: list[float | None] = []
    monkeypatch.setattr(server, "handle_request", lambda: handled.append(server.timeout))
    parents = iter([5, 5, 1])
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    answer_probes(server, supervisor=5)
    server.server_close()
    assert handled == [0.5, 0.5]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
