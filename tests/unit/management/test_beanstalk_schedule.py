from __future__ import annotations

import os
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment


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


def test_an_id_that_cannot_be_printed_is_an_error_that_has_it(
    sqs_env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, redirect_stdout(full):
        with pytest.raises(OSError, match="No space left"):
            call_command("beanstalk_schedule", "jobs", "record")
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=30)
    message = Message.decode(received.body, queue="jobs")
    assert capsys.readouterr().err == f"the task was sent: {message.id}\n"


def test_a_call_that_is_refused_is_a_command_error(sqs_env: Environment) -> None:
    with pytest.raises(CommandError, match="'unlisted' is not in BEANSTALK_DISPATCH_TABLE"):
        call_command("beanstalk_schedule", "jobs", "unlisted")


def test_a_call_by_hand_is_compared_with_a_task_that_nothing_has_imported(
    sqs_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks_by_hand.py").write_text("def one(number): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    sqs_env(DISPATCH_TABLE="one=tasks_by_hand.one")
    with pytest.raises(CommandError, match=r"too many positional arguments; it is one\(number\)"):
        call_command("beanstalk_schedule", "jobs", "one", "1", "2")


def test_a_wrong_configuration_is_a_command_error(env: Environment) -> None:
    env(WORKER="Ture")
    with pytest.raises(CommandError, match="'Ture' is not a boolean"):
        call_command("beanstalk_schedule", "jobs", "record", skip_checks=True)


def test_the_commands_run_although_a_check_fails(
    sqs_env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    sqs_env(DISPATCH_TABLE="record=tests.jobs.record typo=tests.jobs.recrod")
    call_command("beanstalk_schedule", "jobs", "record", skip_checks=False)
    assert len(capsys.readouterr().out.strip()) == 36
    call_command("beanstalk_queues", "jobs", skip_checks=False)
    assert "jobs" in capsys.readouterr().out


def test_a_call_needs_no_argument() -> None:
    with pytest.raises(CommandError, match=r"required: queue, function$"):
        call_command("beanstalk_schedule")
