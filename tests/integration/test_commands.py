from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from beanstalk_dispatch.client import Call, schedule_many
from beanstalk_dispatch.management.commands import beanstalk_worker
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.worker.worker import EXIT_STUCK, Worker
from tests.conftest import Environment
from tests.unit.worker.test_runners import free_port

ROOT = Path(__file__).resolve().parents[2]


# --- beanstalk_schedule ---


def test_a_task_is_scheduled_by_hand(
    sqs_env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("beanstalk_schedule", "jobs", "record", "5", "text", '{"a": 1}', "key=[2]",
                 "not a key=3")  # fmt: skip
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=30)
    message = Message.decode(received.body, queue="jobs")
    assert message.id == capsys.readouterr().out.strip()
    assert message.args == [5, "text", {"a": 1}, "not a key=3"]
    assert message.kwargs == {"key": [2]}


def test_what_cannot_be_scheduled_is_a_command_error(sqs_env: Environment) -> None:
    with pytest.raises(CommandError, match="'unlisted' is not in BEANSTALK_DISPATCH_TABLE"):
        call_command("beanstalk_schedule", "jobs", "unlisted")


# --- beanstalk_worker ---


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Worker]]:
    """The workers the command would have run."""
    workers: list[Worker] = []

    def run(self: Worker, on_tick: Callable[[], None]) -> int:
        workers.append(self)
        on_tick()
        return 0

    monkeypatch.setattr(Worker, "run", run)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    yield workers
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_only_a_worker_runs_tasks(sqs_env: Environment) -> None:
    with pytest.raises(CommandError, match="set BEANSTALK_WORKER=True"):
        call_command("beanstalk_worker", "jobs")


def test_defaults_in_this_process(worker_env: Environment, made: list[Worker]) -> None:
    call_command("beanstalk_worker", "jobs")
    options = made[0].options
    assert (options.threads, options.visibility, options.heartbeat) == (10, 60, True)


def test_defaults_are_the_daemons_when_it_posts(sqs_env: Environment, made: list[Worker]) -> None:
    call_command("beanstalk_worker", "jobs", "--post-to", "http://127.0.0.1:9/x")
    options = made[0].options
    assert (options.threads, options.visibility, options.heartbeat) == (50, 300, False)


def test_options_are_passed_on(worker_env: Environment, made: list[Worker]) -> None:
    call_command("beanstalk_worker", "jobs", "--threads=3", "--wait=1", "--visibility-timeout=9",
                 "--grace=2", "--max-tasks=7", "--burst")  # fmt: skip
    options = made[0].options
    assert (options.threads, options.wait, options.visibility) == (3, 1, 9)
    assert (options.grace, options.max_tasks, options.burst) == (2.0, 7, True)


@pytest.mark.parametrize("option", ["--threads=0", "--wait=21", "--visibility-timeout=43201"])
def test_options_out_of_range_are_refused(worker_env: Environment, option: str) -> None:
    with pytest.raises(CommandError, match="is not within"):
        call_command("beanstalk_worker", "jobs", option)


@pytest.mark.parametrize("grace", ["nan", "inf", "-1"])
def test_a_grace_is_a_number_of_seconds(worker_env: Environment, grace: str) -> None:
    with pytest.raises(CommandError, match="is not a number of seconds"):
        call_command("beanstalk_worker", "jobs", f"--grace={grace}")


def test_a_wrong_queue_is_refused(worker_env: Environment) -> None:
    with pytest.raises(CommandError, match="'jbos' is not in BEANSTALK_DISPATCH_QUEUES; known"):
        call_command("beanstalk_worker", "jobs", "jbos")


def test_a_health_file_that_cannot_be_written_is_refused(
    worker_env: Environment, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="--health-file: .* No such file or directory"):
        call_command("beanstalk_worker", "jobs", f"--health-file={tmp_path}/missing/health")


def test_a_health_port_in_use_is_refused(worker_env: Environment) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match="--health-port: .*Address already in use"):
            call_command("beanstalk_worker", "jobs", f"--health-port=127.0.0.1:{port}")


def test_an_exit_waits_for_nobody(worker_env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stuck task may hold what logging.shutdown() or a receiver waits for."""
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    monkeypatch.setattr(beanstalk_worker, "_EXIT_WITHIN", 0.01)
    beanstalk_worker._exit_later(EXIT_STUCK)
    until(lambda: exits == [EXIT_STUCK])


def test_a_wrong_url_is_refused(sqs_env: Environment) -> None:
    with pytest.raises(CommandError, match="--post-to: 'localhost' is not an http"):
        call_command("beanstalk_worker", "jobs", "--post-to", "localhost")


def test_a_cron_yaml_is_scheduled(sqs_env: Environment, made: list[Worker], tmp_path: Path) -> None:
    file = tmp_path / "cron.yaml"
    file.write_text('version: 1\ncron: [{name: a, url: /x, schedule: "* * * * *"}]')
    call_command("beanstalk_worker", "jobs", "--post-to=http://127.0.0.1:9/", f"--cron={file}")
    made[0].stop()


def test_a_second_signal_exits_at_once(
    worker_env: Environment, made: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    call_command("beanstalk_worker", "jobs")
    signal.raise_signal(signal.SIGTERM)
    assert made[0].is_stopping()
    assert exits == []
    signal.raise_signal(signal.SIGINT)
    assert exits == [128 + signal.SIGINT]


def test_a_signal_after_a_stop_of_its_own_does_not_kill_it(
    worker_env: Environment, made: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    call_command("beanstalk_worker", "jobs")
    made[0].stop(EXIT_STUCK)
    signal.raise_signal(signal.SIGTERM)
    assert exits == []


def test_what_a_task_forks_ends_when_it_is_told_to(
    worker_env: Environment, made: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_child: list[Callable[[], None]] = []
    monkeypatch.setattr(
        "os.register_at_fork", lambda *, after_in_child: in_child.append(after_in_child)
    )
    call_command("beanstalk_worker", "jobs")
    in_child[0]()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_child[0]()  # a handler that is not the worker's is left alone
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def process(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """``manage.py beanstalk_worker jobs`` as a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-m", "django", "beanstalk_worker", "jobs", *arguments],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"} | variables,
        cwd=ROOT,
        text=True,
        stderr=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def mark(path: Path) -> list[Call]:
    return [Call("append", [str(path), i]) for i in range(4)]


def append(path: str, number: int) -> None:
    with Path(path).open("a") as file:
        file.write(f"{number}\n")


@pytest.fixture
def process_env(worker_env: Environment) -> Environment:
    worker_env(DISPATCH_TABLE="append=tests.integration.test_commands.append nap=tests.jobs.nap "
               "block=tests.jobs.block")  # fmt: skip
    return worker_env


def test_a_process_drains_and_ends(process_env: Environment, tmp_path: Path) -> None:
    append(str(tmp_path / "out"), -1)
    schedule_many("jobs", mark(tmp_path / "out"))
    with process("--burst") as child:
        assert child.wait(30) == 0
    assert sorted((tmp_path / "out").read_text().split()) == ["-1", "0", "1", "2", "3"]


def test_sigterm_ends_it_when_its_tasks_are_done(process_env: Environment, tmp_path: Path) -> None:
    schedule_many("jobs", [Call("nap", [1.5]), *mark(tmp_path / "out")])
    with process("--wait=1") as child:
        until((tmp_path / "out").exists)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    assert open_queue("jobs").depth() == 0


def test_a_stuck_task_ends_it_with_its_code(process_env: Environment) -> None:
    process_env(DISPATCH_TASK_TIMEOUT="0.2s")
    schedule_many("jobs", [Call("block", [60])])
    with process("--wait=1", "--grace=1") as child:
        assert child.wait(40) == EXIT_STUCK


def test_kill_9_loses_nothing(process_env: Environment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    schedule_many("jobs", [Call("nap", [0.3]), *mark(out), Call("nap", [60])])
    with process("--wait=1", "--visibility-timeout=2", "--threads=1") as child:
        until(out.exists)
        child.kill()
        child.wait()
    with process("--wait=1", "--visibility-timeout=2", "--threads=8") as child:
        until(lambda: {"0", "1", "2", "3"} <= set(out.read_text().split()))


def test_health_is_shown_on_a_port_and_in_a_file(
    worker_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    file, port = tmp_path / "health", free_port()
    call_command("beanstalk_worker", "jobs", "--wait=1", "--burst", f"--health-file={file}",
                 f"--health-port=127.0.0.1:{port}")  # fmt: skip
    assert file.exists()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
        assert response.read() == b"ok\n"
