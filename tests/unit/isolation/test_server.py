"""The server that cannot import the project, that cannot fork, and that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import NotImportable
from beanstalk_dispatch.isolation import server_process
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.isolation.server_process import Ended, why_impossible
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running import monkey_patching
from tests.conftest import Environment
from tests.unit.isolation.test_children import outcome, process_env, processes, run

pytestmark = pytest.mark.slow
__all__ = ["process_env"]


def with_settings(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let the next server import other settings than this process has."""
    hello = server_process._hello

    def other_hello() -> dict[str, Any]:
        content = hello()
        content["environment"]["DJANGO_SETTINGS_MODULE"] = module
        return content

    monkeypatch.setattr(server_process, "_hello", other_hello)


def test_a_project_that_cannot_be_imported_is_a_broken_deployment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_settings(monkeypatch, "tests.no_such_settings")
    for number in (1, 2):
        refused, result = run("sleep", 0, task_id=str(number))
        assert (result.outcome, result.status) == (Outcome.UNAVAILABLE, 503)
        assert isinstance(refused.exception, NotImportable)
        assert result.reason == (
            "no process for the task: ModuleNotFoundError: No module named 'tests.no_such_settings'"
        )


def test_the_server_is_started_again_some_seconds_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        with_settings(patch, "tests.no_such_settings")
        assert outcome("sleep", 0, task_id="1") is Outcome.UNAVAILABLE
    monkeypatch.setattr(server_process, "FAILED_SECONDS", 0.0)
    assert outcome("sleep", 0, task_id="2") is Outcome.DONE


def test_a_project_with_threads_has_children_by_exec(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with_settings(monkeypatch, "tests.threaded_settings")
    notes = tmp_path / "notes"
    for number in range(2):
        assert outcome("note", str(notes), task_id=str(number)) is Outcome.DONE
    assert len(set(processes(notes))) == 1
    assert outcome("leave_at_once", 7, task_id="3") is Outcome.CUT
    assert "isolation by exec shared=started-early" in capfd.readouterr().err


def test_a_task_that_cannot_be_imported_is_logged_and_the_others_run(
    env: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    env(DISPATCH_TABLE="sleep=tests.isolated_jobs.sleep gone=tests.isolated_jobs.gone")
    assert outcome("sleep", 0) is Outcome.DONE
    assert "task cannot be imported function=gone error=" in capfd.readouterr().err


def test_without_processes_a_message_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    _, result = run("sleep", 0)
    assert result.outcome is Outcome.UNAVAILABLE
    assert "BlockingIOError" in result.reason


def test_a_worker_starts_the_server_early_where_tasks_run_in_children(env: Environment) -> None:
    CHILDREN.start(get_config())
    server = CHILDREN._server
    CHILDREN.start(get_config())
    assert CHILDREN._server is server is not None
    CHILDREN.close()
    env(DISPATCH_ISOLATION="thread")
    CHILDREN.start(get_config())
    assert CHILDREN._server is None


def test_a_forked_process_leaves_the_children_of_its_parent_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    outcome("note", str(notes), task_id="1")
    child = os.fork()
    if child == 0:
        os._exit(0 if CHILDREN._server is None and not CHILDREN._idle else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    outcome("note", str(notes), task_id="2")
    assert len(set(processes(notes))) == 1


# --- where children are not possible ---------------------------------------------------------


def test_settings_without_a_module_cannot_be_imported_elsewhere() -> None:
    assert why_impossible() == ""
    with override_settings(USE_TZ=False):  # they are those of this process alone
        assert why_impossible() == "the settings have no module that another process could import"
        CHILDREN.close()
        assert outcome("sleep", 0) is Outcome.DONE


def test_lambda_and_greenlets_have_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monkey_patching, "patched_by", lambda: "gevent")
    assert why_impossible() == "gevent has replaced threads by greenlets"
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "tasks")
    assert why_impossible() == "AWS Lambda runs one task at a time"


def test_python_is_found_under_a_server_that_embeds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_process._python() == sys.executable
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    assert Path(server_process._python()).name == "python3"


@pytest.mark.parametrize(
    ("exit_code", "reason"),
    [
        (None, "the server of its process has ended"),
        (1, "its process ended with exit code 1"),
        (-11, "its process was ended by SIGSEGV"),
        (-9, "its process was ended by SIGKILL, as the kernel does when memory runs out"),
    ],
)
def test_an_end_has_a_reason(exit_code: int | None, reason: str) -> None:
    assert Ended(exit_code=exit_code, has_begun=True).reason == reason
