"""What the command makes of its arguments. What it then does: unit/worker/test_process.py."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from beanstalk_dispatch.conf.removed import WORKER_OPTIONS
from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
from beanstalk_dispatch.consumers.poller.health import ProbeServer
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.process import WorkerProcess
from beanstalk_dispatch.consumers.poller.runners import run_here
from beanstalk_dispatch.consumers.poller.worker import Worker
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.logging import output
from beanstalk_dispatch.management.commands import beanstalk_worker
from beanstalk_dispatch.problems import start_log
from beanstalk_dispatch.running.leases.worker_entry import WORKER_ENTRY
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.scheduling import outbox
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[WorkerProcess]:
    """The processes that the command would have run."""
    processes: list[WorkerProcess] = []

    def run(self: WorkerProcess, *, sender: type) -> None:
        assert sender is beanstalk_worker.Command
        processes.append(self)

    monkeypatch.setattr(WorkerProcess, "run", run)
    return processes


def worker_of(made: list[WorkerProcess]) -> Worker:
    (process,) = made
    return process._worker


def test_tasks_run_here_with_the_defaults_of_a_worker(
    env: Environment, made: list[WorkerProcess]
) -> None:
    env(WORKER=True)
    call_command("beanstalk_worker", "jobs")
    worker = worker_of(made)
    assert worker.options == WorkerOptions()
    assert [queue.name for queue in worker.queues] == ["jobs"]
    assert worker.tasks._runner is run_here
    assert made[0]._ticks == []


def test_a_worker_reports_tasks_that_were_cut_off(
    env: Environment, made: list[WorkerProcess]
) -> None:
    env(WORKER=True)
    call_command("beanstalk_worker", "jobs")
    assert RUNNING._ledger is not None


def test_arguments_are_passed_on(env: Environment, made: list[WorkerProcess]) -> None:
    env(WORKER=True)
    call_command("beanstalk_worker", "jobs", "--threads=3", "--wait=1", "--visibility-timeout=9",
                 "--grace=2", "--max-tasks=7", "--burst")  # fmt: skip
    assert worker_of(made).options == WorkerOptions(
        threads=3, wait=1, visibility_timeout=9, grace=2.0, max_tasks=7, burst=True
    )


def test_a_worker_without_a_url_of_its_own_needs_no_host(
    env: Environment, made: list[WorkerProcess]
) -> None:
    env(WORKER=True, DISPATCH_TABLE="record=tests.jobs.record")
    with override_settings(ALLOWED_HOSTS=["a"]):
        call_command("beanstalk_worker", "jobs", skip_checks=False)
    assert len(made) == 1


@pytest.mark.parametrize(("number", "starts"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_warnings_that_a_full_disk_does_not_take_stop_no_worker(
    number: int, starts: bool, env: Environment, made: list[WorkerProcess]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> NoReturn:
            raise OSError(number, "cannot write")

    env(WORKER=True, DISPATCH_TABLE="record=tests.jobs.record")
    with nullcontext() if starts else pytest.raises(OSError, match="cannot write"):
        call_command("beanstalk_worker", "jobs", skip_checks=False, stderr=Full())
    assert bool(made) is starts


def test_the_log_is_shown_where_the_project_shows_none(
    env: Environment, made: list[WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    started: list[bool] = []

    def show(**options: Any) -> bool:
        shown.append(options)
        return True

    monkeypatch.setattr(output, "show", show)
    monkeypatch.setattr(start_log, "log_start_line", lambda: started.append(True))
    env(WORKER=True)
    call_command("beanstalk_worker", "jobs", "--log-level=DEBUG", "-v0")
    assert shown == [{"verbosity": 0, "level": "DEBUG"}]
    assert started == [True]


def test_the_start_that_waited_is_logged_once(
    env: Environment, made: list[WorkerProcess], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.argv", ["manage.py", "beanstalk_worker", "jobs"])
    monkeypatch.setattr(output, "show", lambda **options: True)
    env(WORKER=True)
    start_log.log_start()
    call_command("beanstalk_worker", "jobs")
    (line,) = [line for line in caplog.messages if line.startswith("start worker")]
    assert line.startswith("start worker=True reason='BEANSTALK_WORKER from environment' functions")


def test_a_wrong_configuration_or_cron_yaml_is_a_command_error(
    env: Environment, made: list[WorkerProcess], tmp_path: Path
) -> None:
    env(WORKER="Ture")
    with pytest.raises(CommandError, match="'Ture' is not a boolean"):
        call_command("beanstalk_worker", "jobs")
    env(WORKER=True)
    with pytest.raises(CommandError, match="No such file"):
        call_command("beanstalk_worker", "jobs", f"--cron={tmp_path / 'nowhere'}")


def test_a_task_that_cannot_run_does_not_keep_the_others_from_running(
    env: Environment, made: list[WorkerProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    env(
        WORKER=True, DISPATCH_TABLE="record=tests.jobs.record typo=tests.jobs.recrod",
        DISPATCH_PERIODIC_TASKS="unlisted", DISPATCH_SIGNING_KEYS="a-key-that-is-long-enough",
    )  # fmt: skip
    call_command("beanstalk_worker", "jobs", skip_checks=False)
    assert len(made) == 1
    printed = capsys.readouterr().err
    assert "WARNINGS:\n?: (beanstalk_dispatch.E002) BEANSTALK_DISPATCH_TABLE: 'typo'" in printed
    assert "(beanstalk_dispatch.E005)" in printed
    with pytest.raises(SystemCheckError, match=r"ERRORS:\n\?: \(beanstalk_dispatch.E002\)"):
        call_command("check")
    env(DISPATCH_SAFE_TASK="tests.nowhere.Task")
    with pytest.raises(SystemCheckError, match=r"ERRORS:\n\?: \(beanstalk_dispatch.E003\)"):
        call_command("beanstalk_worker", "jobs", skip_checks=False)


def test_the_tasks_of_a_cron_yaml_go_to_the_first_queue(
    env: Environment,
    made: list[WorkerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedulers: list[Scheduler] = []
    monkeypatch.setattr(Scheduler, "send_due", lambda self, now: schedulers.append(self))
    env(WORKER=True, DISPATCH_QUEUES="jobs=shop-jobs other=shop-other")
    file = tmp_path / "cron.yaml"
    file.write_text('version: 1\ncron: [{name: a, url: /x, schedule: "* * * * *"}]')
    call_command("beanstalk_worker", "jobs", "other", f"--cron={file}")
    (tick,) = made[0]._ticks
    tick()
    assert [each._queue for each in schedulers] == ["jobs"]
    assert [name for name, due_at in WORKER_ENTRY.next_runs() if due_at > time.time()] == ["a"]


@pytest.mark.parametrize(
    ("variables", "is_warned"), [({}, True), ({"DISPATCH_LEASE_CACHE": "default"}, False)]
)
def test_the_start_warns_of_periodic_tasks_that_each_worker_sends(
    env: Environment, made: list[WorkerProcess], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    variables: dict[str, str], is_warned: bool,
) -> None:  # fmt: skip
    env(WORKER=True, **variables)
    file = tmp_path / "cron.yaml"
    file.write_text('version: 1\ncron: [{name: a, url: /x, schedule: "* * * * *"}]')
    call_command("beanstalk_worker", "jobs", f"--cron={file}")
    warning = (
        "every worker with --cron sends each periodic task: have one such worker only, or set "
        "BEANSTALK_DISPATCH_LEASE_CACHE"
    )
    assert (warning in caplog.messages) == is_warned


def test_a_worker_may_send_from_the_outbox(env: Environment, made: list[WorkerProcess]) -> None:
    env(WORKER=True)
    call_command("beanstalk_worker", "jobs", "--outbox")
    assert isinstance(worker_of(made).relay, Relay)


def test_the_backlog_is_printed_for_the_threads_of_the_worker(
    sqs_env: Environment, made: list[WorkerProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    sqs_env(WORKER=True)
    assert open_queue("jobs").name
    call_command("beanstalk_worker", "jobs", "--embedded-metrics", "--threads=3")
    (tick,) = made[0]._ticks
    tick()
    assert json.loads(capsys.readouterr().out)["Threads"] == 3


def test_without_the_app_there_is_no_outbox_to_send_from(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(WORKER=True)
    monkeypatch.setattr(outbox, "_registered", None)
    with pytest.raises(CommandError, match="--outbox: 'beanstalk_dispatch.contrib.outbox' is not"):
        call_command("beanstalk_worker", "jobs", "--outbox")


def test_a_worker_touches_a_file_and_answers_at_a_port_while_it_is_healthy(
    env: Environment, made: list[WorkerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(WORKER=True)
    served = threading.Event()

    def serve(self: ProbeServer) -> None:
        self.server_close()
        served.set()

    monkeypatch.setattr(ProbeServer, "serve_forever", serve)
    file = tmp_path / "health"
    call_command("beanstalk_worker", "jobs", "--health-port=0", f"--health-file={file}")
    assert served.wait(10)
    os.utime(file, (0, 0))
    (tick,) = made[0]._ticks
    tick()
    assert file.stat().st_mtime > 0


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_a_health_port_may_have_a_host(argument: str, address: tuple[str, int]) -> None:
    assert beanstalk_worker.address(argument) == address


def test_the_help_shows_the_defaults() -> None:
    parser = beanstalk_worker.Command().create_parser("manage.py", "beanstalk_worker")
    text = " ".join(parser.format_help().split())
    assert "tasks at a time (default 10)" in text
    assert "sends more requests (default 5)" in text
    assert "is hidden (default 60)" in text
    assert "after a stop (default 30)" in text
    assert "--post-to" not in text
    assert "--processes" not in text


# --- what is refused, word for word ---


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as raised:
        call_command("beanstalk_worker", *arguments)
    return str(raised.value)


def test_only_a_worker_runs_tasks(env: Environment) -> None:
    assert refusal("jobs") == (
        "this machine is not a worker; set BEANSTALK_WORKER=True to run tasks"
    )


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("--threads=0", "--threads: expected an integer from 1 to 100, not '0'"),
        ("--threads=many", "--threads: expected an integer from 1 to 100, not 'many'"),
        ("--wait=21", "--wait: expected an integer from 1 to 20, not '21'"),
        ("--max-tasks=-1", "--max-tasks: expected an integer from 1 to 2147483648, not '-1'"),
        (
            "--visibility-timeout=43201",
            "--visibility-timeout: expected an integer from 1 to 43200, not '43201'",
        ),
        ("--health-port=x:y", "--health-port: expected an integer from 0 to 65535, not 'y'"),
        ("--grace=nan", "--grace: expected a number of seconds, not 'nan'"),
        ("--grace=inf", "--grace: expected a number of seconds, not 'inf'"),
        ("--grace=-1", "--grace: expected a number of seconds, not '-1'"),
        ("--grace=long", "--grace: expected a number of seconds, not 'long'"),
    ],
)
def test_numbers_out_of_range_are_refused(argument: str, reason: str) -> None:
    assert refusal("jobs", argument) == f"Error: argument {reason}"


def test_a_name_that_is_not_an_alias_is_refused(env: Environment) -> None:
    env(WORKER=True, DISPATCH_QUEUES="jobs=shop-jobs")
    assert refusal("jobs", "jbos") == "'jbos' is not in BEANSTALK_DISPATCH_QUEUES; known: jobs"


def test_the_dead_letter_queue_is_read_by_nobody(env: Environment) -> None:
    env(WORKER=True, DISPATCH_QUEUES="jobs=shop dead=shop-dead", DISPATCH_DEAD_LETTER_QUEUE="dead")
    assert "BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE names shop-dead" in refusal("dead")


@pytest.mark.parametrize(("option", "replacement"), WORKER_OPTIONS.items())
def test_an_option_that_was_removed_is_refused_with_its_replacement(
    option: str, replacement: str
) -> None:
    assert refusal("jobs", f"{option}=1") == f"Error: {option} was removed; {replacement}"


def test_a_health_file_that_cannot_be_written_is_refused(env: Environment, tmp_path: Path) -> None:
    env(WORKER=True)
    file = tmp_path / "missing" / "health"
    assert refusal("jobs", f"--health-file={file}") == (
        f"--health-file: [Errno 2] No such file or directory: '{file}'"
    )


def test_a_health_port_in_use_is_refused(env: Environment) -> None:
    env(WORKER=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refusal("jobs", f"--health-port=127.0.0.1:{port}") == (
            "--health-port: [Errno 98] Address already in use"
        )
