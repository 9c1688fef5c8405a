"""``manage.py beanstalk_worker jobs`` as a process of its own."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from django.core.management import call_command

from beanstalk_dispatch.client import Call, schedule_function, schedule_many
from beanstalk_dispatch.consumers.poller.worker import EXIT_STUCK
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.prepared import PreparedPopen
from tests.services import free_port
from tests.workers import restored_signal_handlers, until

ROOT: Final = Path(__file__).resolve().parents[3]
_MAIN: Final = """
from beanstalk_dispatch.running.limits import time_limit
from django.core.management import execute_from_command_line
time_limit.GRACE = 0.2
execute_from_command_line()
"""
"""manage.py, with a task reported as stuck soon after its limit."""


@contextmanager
def process(*arguments: str, log: Path = Path(os.devnull)) -> Iterator[PreparedPopen]:
    with log.open("w") as file:
        child = PreparedPopen(
            ["-c", _MAIN, "beanstalk_worker", "jobs", "--wait=1", *arguments],
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}, stderr=file.fileno(),
        )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def appending(path: Path) -> list[Call]:
    """Four tasks that each append their number to a file."""
    return [Call("append", [str(path), number]) for number in range(4)]


@pytest.fixture
def process_env(worker_env: Environment) -> Environment:
    names = ("append", "linger", "nap", "block")
    worker_env(DISPATCH_TABLE=" ".join(f"{name}=tests.jobs.{name}" for name in names))
    return worker_env


def test_a_burst_runs_all_and_ends(process_env: Environment, tmp_path: Path) -> None:
    schedule_many("jobs", appending(tmp_path / "out"))
    with process("--burst") as child:
        assert child.wait(30) == 0
    assert sorted((tmp_path / "out").read_text().split()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_when_its_tasks_are_done(
    process_env: Environment, tmp_path: Path, signum: signal.Signals
) -> None:
    out = tmp_path / "out"
    schedule_many("jobs", [Call("linger", [str(out), 0.5])])
    with restored_signal_handlers(), process() as child:
        until(out.exists)
        os.kill(child.pid, signum)
        assert child.wait(30) == 0
    assert out.read_text().split() == ["0", "1"]
    assert open_queue("jobs").depth() == 0


def test_a_stuck_task_ends_it_with_its_exit_code(process_env: Environment) -> None:
    process_env(DISPATCH_TASK_TIMEOUT="0.2s")
    schedule_many("jobs", [Call("block", [60])])
    with process("--grace=1") as child:
        assert child.wait(40) == EXIT_STUCK


def test_kill_9_loses_nothing(process_env: Environment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    schedule_many("jobs", [Call("nap", [0.3]), *appending(out), Call("nap", [60])])
    with process("--visibility-timeout=2", "--threads=1") as child:
        until(out.exists)
        child.kill()
        child.wait()
    with process("--visibility-timeout=2", "--threads=8"):
        until(lambda: {"0", "1", "2", "3"} <= set(out.read_text().split()), 30)


def test_what_kill_9_cut_off_is_logged_by_the_next_process(
    process_env: Environment, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (task_id,) = schedule_many("jobs", [Call("linger", [str(out), 60])])
    log = tmp_path / "log"
    with process():
        until(out.exists)
    with process(log=log):
        until(
            lambda: f"cut id={task_id} function=linger receive_count=1 seconds=" in log.read_text()
        )


def test_health_is_shown_on_a_port_and_in_a_file(
    worker_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    file, port = tmp_path / "health", free_port()
    worker_env(DISPATCH_TABLE="record=tests.jobs.record")
    schedule_function("jobs", "record")
    with restored_signal_handlers():
        call_command("beanstalk_worker", "jobs", "--wait=1", "--burst", f"--health-file={file}",
                     f"--health-port=127.0.0.1:{port}")  # fmt: skip
    assert file.exists()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
        assert response.read() == b"ok\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        ran = b'beanstalk_dispatch_deliveries_total{function="record",outcome="done"} 1.0'
        assert ran in response.read()
