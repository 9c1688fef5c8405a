from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from beanstalk_dispatch.client import Call, schedule
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.post_runner import PostRunner
from beanstalk_dispatch.consumers.poller.process import WorkerProcess
from beanstalk_dispatch.management.commands import beanstalk_daemon
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.workers import restored_signal_handlers

URL = "http://127.0.0.1:9/x"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[WorkerProcess]:
    """The processes that the command would have run."""
    processes: list[WorkerProcess] = []

    def run(self: WorkerProcess, *, sender: type) -> None:
        assert sender is beanstalk_daemon.Command
        processes.append(self)

    monkeypatch.setattr(WorkerProcess, "run", run)
    return processes


def test_messages_are_posted_with_the_daemons_defaults(
    env: Environment, made: list[WorkerProcess]
) -> None:
    call_command("beanstalk_daemon", "jobs", "more", URL)
    (process,) = made
    worker = process._worker
    assert [queue.name for queue in worker.queues] == ["jobs", "more"]
    assert worker.options == WorkerOptions(threads=50, visibility_timeout=300, heartbeat=False)
    runner: Any = worker.tasks._runner
    assert isinstance(runner, PostRunner)
    options = runner._options
    assert (options.connect_timeout, options.inactivity_timeout) == (5, 299)
    assert (options.error_visibility_timeout, options.mime_type) == (2, "application/json")
    assert RUNNING._ledger is None  # its tasks run elsewhere


def test_the_daemons_options_are_passed_on(env: Environment, made: list[WorkerProcess]) -> None:
    call_command("beanstalk_daemon", "jobs", URL, "--http-connections=3", "--connect-timeout=4",
                 "--visibility-timeout=9", "--inactivity-timeout=8", "--mime-type=text/plain",
                 "--error-visibility-timeout=0", "--burst")  # fmt: skip
    (process,) = made
    worker = process._worker
    assert worker.options == WorkerOptions(
        threads=3, visibility_timeout=9, heartbeat=False, burst=True
    )
    runner: Any = worker.tasks._runner
    assert runner._options.connect_timeout == 4
    assert runner._options.inactivity_timeout == 8
    assert runner._options.error_visibility_timeout == 0
    assert runner._options.mime_type == "text/plain"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["jobs", "https://x/"], "cannot post: 'https://x/' is not an http:// URL; write http"),
        (["jobs"], "the following arguments are required: URL"),
        (["jobs", URL, "--http-connections=101"], "expected an integer from 1 to 100"),
        (["jobs", URL, "--processes=2"], "--processes was removed; one process sends enough; "),
    ],
)
def test_a_wrong_argument_is_a_command_error(
    env: Environment, arguments: list[str], error: str
) -> None:
    with pytest.raises(CommandError, match=error):
        call_command("beanstalk_daemon", *arguments)


@pytest.mark.parametrize(
    ("schedule_field", "error"),
    [("0 4 * * * *", "does not have the five fields"), ("61 4 * * *", "61 4")],
)
def test_a_cron_yaml_that_elastic_beanstalk_refuses_is_refused(
    env: Environment, tmp_path: Path, schedule_field: str, error: str
) -> None:
    file = tmp_path / "cron.yaml"
    file.write_text(f'version: 1\ncron: [{{name: a, url: /x, schedule: "{schedule_field}"}}]')
    with pytest.raises(CommandError, match=error):
        call_command("beanstalk_daemon", "jobs", URL, f"--cron={file}")


# --- the end of a burst ----------------------------------------------------------------------


def test_a_burst_names_what_it_leaves_and_fails_with_its_deliveries(
    worker_env: Environment, made: list[WorkerProcess], caplog: pytest.LogCaptureFixture,
    queue_name: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    call_command("beanstalk_daemon", "jobs", URL, "--burst")
    assert "delayed" not in caplog.text
    schedule("jobs", Call("record", delay=60))
    call_command("beanstalk_daemon", "jobs", URL, "--burst")
    assert "burst ended queue=jobs delayed=1" in caplog.messages

    def fail(self: WorkerProcess, *, sender: type) -> None:
        self._worker.counters.failed = 2

    monkeypatch.setattr(WorkerProcess, "run", fail)
    with pytest.raises(CommandError, match="2 deliveries did not succeed; the log says why"):
        call_command("beanstalk_daemon", "jobs", URL, "--burst")


@pytest.mark.slow
def test_a_burst_with_one_failure_says_so_in_its_last_line_and_its_exit_code(
    worker_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    worker_env(DISPATCH_DEAD_LETTER_QUEUE="dead", DISPATCH_QUEUES="jobs=burst-jobs dead=burst-dead")
    open_queue("jobs").send("not json", {})  # a dead letter at once
    schedule("jobs", Call("record"))
    problem = "^1 delivery did not succeed; the log says why"
    with restored_signal_handlers(), pytest.raises(CommandError, match=problem):
        call_command("beanstalk_worker", "jobs", "--burst", "--wait=1")
    assert "stopped done=1 failed=1 running=0 exit_code=1" in caplog.messages


def test_a_burst_of_a_queue_that_does_not_exist_has_nothing_delayed(
    sqs_env: Environment, made: list[WorkerProcess], caplog: pytest.LogCaptureFixture
) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=None, DISPATCH_QUEUES=None)
    call_command("beanstalk_daemon", "nowhere", URL, "--burst")
    assert "delayed" not in caplog.text
