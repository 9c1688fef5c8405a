from __future__ import annotations

import json

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.record import is_cancelled, to_be_stopped
from tests.conftest import Environment


def test_tasks_are_cancelled_by_their_ids(
    env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    call_command("beanstalk_cancel", "one", "two")
    assert capsys.readouterr().out == (
        "no worker starts one any more; if it runs now, it runs on\n"
        "no worker starts two any more; if it runs now, it runs on\n"
    )
    call_command("beanstalk_cancel", "three", "--json")
    assert json.loads(capsys.readouterr().out) == ["three"]
    assert is_cancelled("one", get_config())
    assert is_cancelled("two", get_config())
    caches["default"].clear()


def test_running_tasks_are_stopped(env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    env(DISPATCH_LEASE_CACHE="default", DISPATCH_ISOLATION="process")
    caches["default"].clear()
    call_command("beanstalk_cancel", "--stop", "one")
    assert capsys.readouterr().out == (
        "no worker starts one any more; if it runs now, it ends, unless it runs in a thread\n"
    )
    assert to_be_stopped(["one", "two"], get_config()) == {"one"}
    assert is_cancelled("one", get_config())
    caches["default"].clear()


def test_a_task_in_a_thread_cannot_be_stopped(env: Environment) -> None:
    env(DISPATCH_LEASE_CACHE="default")
    with pytest.raises(CommandError, match="BEANSTALK_DISPATCH_ISOLATION is thread here: "):
        call_command("beanstalk_cancel", "--stop", "one")
    assert not is_cancelled("one", get_config())


def test_what_cannot_be_cancelled_is_a_command_error(env: Environment) -> None:
    with pytest.raises(CommandError, match="BEANSTALK_DISPATCH_LEASE_CACHE is not set: a task is"):
        call_command("beanstalk_cancel", "one")
    env(DISPATCH_LEASE_CACHE="default")
    with pytest.raises(CommandError, match="a task id is a string of 1 to 255"):
        call_command("beanstalk_cancel", "a\nb")
