from __future__ import annotations

import errno
import fcntl
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.messages.record import pause, resume
from beanstalk_dispatch.running import dead_letters, running_tasks
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.crash_ledger import CrashLedger, TaskPlace
from beanstalk_dispatch.running.left_behind.open_files import FILES
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.running_tasks import RUNNING, RunningTask
from tests import jobs
from tests.conftest import TABLE, Environment
from tests.jobs import calls
from tests.runs import deliver
from tests.services import in_child
from tests.workers import until


@pytest.fixture(autouse=True)
def ledger_file(env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    calls.clear()
    jobs.release.clear()
    path = tmp_path / "ledger"
    env(
        WORKER=True,
        DISPATCH_TABLE=f"{TABLE} exits=tests.jobs.exits",
        DISPATCH_CRASH_LEDGER=path,
        DISPATCH_QUEUES="q=q dead=dead",
    )
    return path


def run(function: str, *args: Any, task_id: str = "task-1") -> Result:
    body = Message(function=function, args=args, id=task_id).encode(queue="q")
    return deliver(body, Delivery(queue="q", receive_count=2))


def ledger() -> CrashLedger:
    found = RUNNING.ledger(get_config())
    assert found
    return found


def was_cut(times: int, task_id: str = "task-1") -> None:
    """As if children had ended while this task ran."""
    for _ in range(times):
        ledger().count_as_cut(task_id, place=TaskPlace.CHILD)


def task(task_id: str) -> RunningTask:
    return RUNNING.task(Message(function="f", id=task_id), Delivery(queue="q"), get_config())


def cut_in_child(function: str, *args: Any) -> None:
    """A process that ends while a task runs."""

    def start() -> None:
        threading.Thread(target=run, args=(function, *args), daemon=True).start()
        until(lambda: calls)

    in_child(start)


# --- the report ------------------------------------------------------------------------------


def test_what_was_cut_off_is_logged_by_the_next_process(caplog: pytest.LogCaptureFixture) -> None:
    cut_in_child("nap", 30)
    assert run("record", task_id="other").outcome is Outcome.DONE
    (record,) = [each for each in caplog.records if each.message.startswith("cut ")]
    assert record.levelname == "ERROR"
    assert record.name == "beanstalk_dispatch.task"
    assert re.fullmatch(
        r"cut id=task-1 function=nap receive_count=2 seconds=\d times_cut=1 queue=q message_id= "
        r"process_id=\d+",
        record.message,
    )
    assert ledger().times_cut("task-1") == 1


def test_what_was_cut_off_need_not_wait_for_its_lease(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_LEASE_CACHE="leases")
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    shared = {"leases": {"BACKEND": backend, "LOCATION": tmp_path / "leases"}}
    with override_settings(CACHES=shared):
        cut_in_child("nap", 30)
        assert run("nap", 0).outcome is Outcome.DONE
        assert run("nap", 0).outcome is Outcome.DUPLICATE


def test_it_is_logged_once_and_not_by_each_delivery(caplog: pytest.LogCaptureFixture) -> None:
    cut_in_child("nap", 30)
    for _ in range(2):
        RUNNING.report_cut_tasks(get_config())
        run("record")
    RUNNING.forget()
    run("record")
    assert caplog.text.count("cut id=") == 1


def test_threads_that_begin_together_open_one_file() -> None:
    with ThreadPoolExecutor(2) as pool:
        with RUNNING._lock:
            opened = [pool.submit(RUNNING.ledger, get_config()) for _ in range(2)]
            time.sleep(0.1)
        one, other = (each.result(20) for each in opened)
    assert one is other is not None


def test_an_exit_of_the_main_thread_cuts_a_task_off(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run("exits")
    assert RUNNING.now() == []
    RUNNING.forget()
    run("record", task_id="other")
    assert "cut id=task-1 function=exits" in caplog.text


def test_a_failed_task_is_not_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    run("fail")
    RUNNING.forget()
    run("record")
    assert "cut id=" not in caplog.text


# --- without a ledger ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [{"WORKER": False}, {"DISPATCH_EXECUTE_SYNCHRONOUSLY": True}, {"DISPATCH_CRASH_LEDGER": "off"}],
    ids=lambda variables: next(iter(variables)),
)
def test_no_file_is_made(env: Environment, ledger_file: Path, variables: dict[str, Any]) -> None:
    env(**variables)
    assert run("record").outcome is Outcome.DONE
    assert not ledger_file.exists()
    assert RUNNING.ledger(get_config()) is None


def test_without_a_path_it_is_the_default(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_CRASH_LEDGER=None)
    monkeypatch.setattr(running_tasks, "default_path", lambda: str(tmp_path / "default"))
    run("record")
    assert (tmp_path / "default").exists()


def test_a_file_that_cannot_be_used_is_one_warning_and_tasks_run(
    ledger_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger_file.symlink_to("/etc/passwd")
    for number in range(3):
        assert run("record", task_id=str(number)).outcome is Outcome.DONE
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == [
        f"crash ledger not used path={ledger_file} error=it is a symbolic link"
    ]


def test_a_forked_child_leaves_the_slots_of_its_parent_alone() -> None:
    with task("parent"):

        def run_in_child() -> None:
            assert RUNNING.now() == []
            with task("child"):
                assert [each.message.id for each in RUNNING.now()] == ["child"]

        in_child(run_in_child)
        assert [each.message.id for each in RUNNING.now()] == ["parent"]


# --- what was cut off again and again --------------------------------------------------------


@pytest.fixture
def letters(env: Environment, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is sent to the dead-letter queue, which takes it."""
    sent: list[dict[str, Any]] = []

    def send(run: Run, **letter: Any) -> bool:
        sent.append({**letter, "exception": run.exception})
        return True

    monkeypatch.setattr(dead_letters, "send", send)
    env(DISPATCH_DEAD_LETTER_QUEUE="dead")
    return sent


def test_after_three_times_it_goes_to_the_dead_letter_queue(
    letters: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    was_cut(3)
    result = run("record")
    assert (result.outcome, result.status, result.successor) == (
        Outcome.CUT,
        200,
        Successor.DEAD_LETTER,
    )
    assert calls == []
    (letter,) = letters
    assert letter["outcome"] == "cut"
    assert str(letter["exception"]) == "its process has ended 3 times"
    assert caplog.messages[-1].startswith("task id=task-1 function=record outcome=cut ")
    assert caplog.messages[-1].endswith(
        " reason='its process has ended 3 times' dead_letter_queue=dead"
    )
    assert run("record").outcome is Outcome.DONE  # put back on its queue


@pytest.mark.parametrize("has_queue", [False, True])
def test_without_a_queue_that_takes_it_it_runs(
    has_queue: bool, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "send", lambda *args, **kwargs: False)
    env(DISPATCH_DEAD_LETTER_QUEUE="dead" if has_queue else None)
    was_cut(3)
    assert run("record").outcome is Outcome.DONE
    assert len(calls) == 1


def test_what_was_cut_off_twice_runs(letters: list[dict[str, Any]]) -> None:
    was_cut(2)
    assert run("record").outcome is Outcome.DONE
    assert letters == []


@pytest.mark.parametrize(("function", "count"), [("record", 0), ("fail", 2)])
def test_the_count_is_forgotten_with_the_message(function: str, count: int) -> None:
    was_cut(2)
    run(function)
    assert ledger().times_cut("task-1") == count


def test_the_count_outlasts_a_wait_as_a_copy(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS counts the receives of a copy anew, so nothing else would end such a task."""
    env(DISPATCH_LEASE_CACHE="default")
    monkeypatch.setattr(DelayedCopies, "resend", lambda *args: None)
    was_cut(2)
    pause("q")
    assert (run("record").outcome, ledger().times_cut("task-1")) == (Outcome.DEFERRED, 2)
    resume("q")
    assert (run("record").outcome, ledger().times_cut("task-1")) == (Outcome.DONE, 0)


def open_no_files(patch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, command: int, *values: Any) -> object:
        if command == fcntl.F_DUPFD:
            raise OSError(errno.EMFILE, "")
        return control(descriptor, command, *values)

    control = fcntl.fcntl
    patch.setattr(fcntl, "fcntl", refuse)


def test_what_fails_without_files_counts_as_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is replaced each time. From the second time on, it has one of its own."""
    for expected in (1, 2, 2):
        FILES.are_suspect = False
        with monkeypatch.context() as patch:
            open_no_files(patch)
            assert run("fail").outcome is Outcome.FAILED
        assert ledger().times_cut("task-1") == expected


def test_without_files_and_without_a_ledger_a_task_fails_as_ever(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_CRASH_LEDGER="off")
    open_no_files(monkeypatch)
    assert run("fail").outcome is Outcome.FAILED


def test_without_a_ledger_no_cut_is_counted_and_none_forgotten(env: Environment) -> None:
    env(DISPATCH_CRASH_LEDGER="off")
    with task("task-1") as running:
        assert running.count_as_cut() == 0
        running.forget_cuts()
        assert running.times_cut == 0


def test_a_count_that_cannot_be_forgotten_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    was_cut(1)
    monkeypatch.setattr(CrashLedger, "forget_cuts", lambda *args: 1 / 0)
    assert run("record").outcome is Outcome.DONE


def test_a_task_beyond_the_slots_of_its_process_runs_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger()._free.clear()
    for _ in range(2):
        with task("task-1"):
            assert len(RUNNING.now()) == 1
    (line,) = caplog.messages
    assert line.startswith(
        "crash ledger full id=task-1 function=f: this process runs more than 100"
    )


def test_a_task_knows_for_how_long_it_has_been_running() -> None:
    each = task("x")
    with each:
        assert RUNNING.now() == [each]
        assert 0 <= each.seconds < 20
