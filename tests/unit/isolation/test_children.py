from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.client import acancel
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results import Status, get_result
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, TaskCut, TaskFailed
from beanstalk_dispatch.isolation import server_process
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.isolation.leftovers import Leftovers, resident_memory
from beanstalk_dispatch.isolation.server import Server
from beanstalk_dispatch.isolation.server_process import Ended
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.running import dead_letters
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.leases.held_leases import HELD
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.signals import task_finished
from tests import isolated_jobs
from tests.conftest import Environment
from tests.runs import deliver_and_keep
from tests.workers import until

pytestmark = pytest.mark.slow

NAMES = (
    "note", "fail", "fail_to_send", "retry", "leave_at_once", "crash", "hold_lock", "swallow",
    "sleep", "leave_thread", "leave_files", "leave_loop", "leave_timer", "leave_handler",
    "use_memory", "write_everywhere", "close_everything", "kill_parent", "Initialized",
    "block_signals", "open_all_files", "print_text", "write_at_end", "end_forked",
    "note_later", "signal_group", "start_program", "fail_later", "leave_pool",
)  # fmt: skip
TABLE = " ".join(f"{name}=tests.isolated_jobs.{name}" for name in NAMES)


class Endpoint(DelayedCopies):
    """A consumer with children, which keeps what it is asked to send again."""

    children = CHILDREN


@pytest.fixture(autouse=True)
def process_env(env: Environment, tmp_path: Path, prepared_server: None) -> Environment:
    env(
        WORKER=True, DISPATCH_ISOLATION="process", DISPATCH_TABLE=TABLE, DISPATCH_QUEUES="q=q",
        DISPATCH_TASK_TIMEOUT="60s", DISPATCH_CRASH_LEDGER=tmp_path / "ledger",
    )  # fmt: skip
    return env


def run(function: str, *args: Any, task_id: str = "task-1", count: int = 1) -> tuple[Run, Result]:
    body = Message(function=function, args=args, id=task_id).encode(queue="q")
    delivery = Delivery(queue="q", message_id=f"{task_id}-{count}", receive_count=count)
    return deliver_and_keep(body, delivery, Endpoint())


def outcome(function: str, *args: Any, **facts: Any) -> Outcome:
    return run(function, *args, **facts)[1].outcome


def processes(path: Path) -> list[int]:
    """The ids of the processes in which ``note`` has run."""
    lines = [line.split() for line in path.read_text().splitlines()]
    assert {is_main for _, is_main in lines} == {"True"}
    return [int(process_id) for process_id, _ in lines]


# --- where a task runs -----------------------------------------------------------------------


def test_a_child_runs_one_task_after_the_other_in_its_main_thread(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    for number in range(3):
        assert outcome("note", str(notes), task_id=str(number)) is Outcome.DONE
    (child,) = set(processes(notes))
    assert child != os.getpid()


def test_each_thread_has_a_child_of_its_own(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    threads = [
        threading.Thread(
            target=run, args=("sleep", 1, str(notes)), kwargs={"task_id": str(number)}, daemon=True
        )
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(processes(notes))) == 3


def test_fresh_is_a_child_for_each_task(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_ISOLATION="fresh")
    notes = tmp_path / "notes"
    for number in range(3):
        assert outcome("note", str(notes), task_id=str(number)) is Outcome.DONE
    assert len(set(processes(notes))) == 3


def test_a_child_is_replaced_after_its_number_of_tasks(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_CHILD_TASKS=2)
    notes = tmp_path / "notes"
    for number in range(4):
        outcome("note", str(notes), task_id=str(number))
    first, second, third, fourth = processes(notes)
    assert first == second != third == fourth


def test_a_failure_is_told_as_it_was_in_the_child(capfd: pytest.CaptureFixture[str]) -> None:
    failed, result = run("fail")
    assert (result.outcome, result.status) == (Outcome.FAILED, 500)
    assert isinstance(failed.exception, TaskFailed)
    assert str(failed.exception) == "ValueError: no such customer"
    assert (
        "SafeTask failed id=task-1 function=fail error=no such customer" in capfd.readouterr().err
    )


def test_an_error_of_ours_that_no_observer_has_seen_keeps_its_class(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:9", DISPATCH_SEND_TIMEOUT="1s")
    failed, result = run("retry")  # its copy cannot be sent
    assert (result.outcome, result.reason) == (Outcome.FAILED, "could not be sent again")
    assert type(failed.exception) is BeanstalkDispatchError
    assert isinstance(run("fail_to_send", task_id="2")[0].exception, TaskFailed)


# --- what ends a child -----------------------------------------------------------------------


def test_a_task_that_ends_its_process_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    ends: list[tuple[str, Sequence[Any], str]] = [
        ("leave_at_once", (3,), "its process ended with exit code 3"),
        ("leave_at_once", (0,), "its process ended with exit code 0"),
        ("crash", (), "its process was ended by SIGSEGV"),
        ("write_everywhere", (), "its answer makes no sense"),
        ("close_everything", (), "its process ended with exit code 1"),
    ]
    for number, (function, args, reason) in enumerate(ends):
        cut, result = run(function, *args, task_id=f"cut-{number}")
        assert (result.outcome, result.status) == (Outcome.CUT, 500)
        assert result.reason == f"{reason}; it was cut off once"
        assert isinstance(cut.exception, TaskCut)
        line = rf"child ended id=cut-{number} function={function} process_id=\d+ "
        assert re.search(line, caplog.text)
        assert outcome("sleep", 0, task_id=f"next-{number}") is Outcome.DONE


def test_where_nothing_counts_the_cuts_no_count_is_said(env: Environment) -> None:
    env(DISPATCH_CRASH_LEDGER="off")
    assert run("leave_at_once", 3)[1].reason == "its process ended with exit code 3"


def test_the_stacks_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    cut, _ = run("crash")
    assert isinstance(cut.exception, TaskCut)
    assert " in crash" in cut.exception.stacks
    assert 'isolated_jobs.py", line' in caplog.text
    assert " in crash" in caplog.text


@pytest.mark.parametrize("function", ["hold_lock", "swallow"])
def test_a_task_that_cannot_be_interrupted_is_ended(env: Environment, function: str) -> None:
    env(DISPATCH_TASK_TIMEOUT="1s")
    _, result = run(function)  # by itself it would never end
    assert result.outcome is Outcome.CUT
    assert result.reason.startswith("it ran on after its time limit and could not be interrupted")


def test_the_third_time_it_is_a_dead_letter(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []

    def send(run: Run, **kwargs: object) -> bool:
        sent.append(kwargs["outcome"])
        return True

    monkeypatch.setattr(dead_letters, "send", send)
    env(DISPATCH_DEAD_LETTER_QUEUE="dead", DISPATCH_QUEUES="q=q dead=dead")
    finished: list[object] = []

    def note_end(outcome: Outcome, **kwargs: object) -> None:
        finished.append(outcome)

    task_finished.connect(note_end)
    try:
        results = [run("leave_at_once", 1, count=count)[1] for count in (1, 2, 3)]
    finally:
        task_finished.disconnect(note_end)
    assert [each.status for each in results] == [500, 500, 200]
    assert results[-1].successor is Successor.DEAD_LETTER
    assert finished == [Outcome.CUT] * 3
    assert sent == [Outcome.CUT]
    assert RUNNING.task(Message(function="f", id="task-1"), Delivery(), get_config()).times_cut == 0


def test_the_parent_makes_no_instance_of_the_tasks_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("BEANSTALK_TEST_NOTES", str(notes))
    assert outcome("Initialized") is Outcome.CUT
    (child,) = processes(notes)
    assert child != os.getpid()


def test_a_server_that_has_ended_is_replaced_and_nobody_is_blamed(tmp_path: Path) -> None:
    _, result = run("kill_parent")
    assert (result.outcome, result.reason) == (Outcome.CUT, "the server of its process has ended")
    assert outcome("sleep", 0, task_id="2") is Outcome.DONE
    assert RUNNING.task(Message(function="f", id="task-1"), Delivery(), get_config()).times_cut == 0


def _server() -> int:
    server = CHILDREN._server
    assert server is not None
    return server._process.pid


def _begin_to_sleep(seconds: float, notes: Path) -> tuple[threading.Thread, list[Outcome], int]:
    results: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: results.append(outcome("sleep", seconds, str(notes), task_id="sleeps"))
    )
    thread.start()
    until(lambda: notes.exists() and notes.read_text())
    return thread, results, processes(notes)[0]


def test_a_signal_for_all_processes_ends_no_task(tmp_path: Path) -> None:
    thread, results, child = _begin_to_sleep(1, tmp_path / "notes")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        for each in (child, _server()):
            os.kill(each, number)
    thread.join(60)
    assert results == [Outcome.DONE]
    assert outcome("sleep", 0, task_id="2") is Outcome.DONE


@pytest.mark.parametrize("function", ["signal_group", "start_program"])
def test_the_programs_of_a_task_end_with_its_child_and_nothing_else_does(
    function: str, tmp_path: Path
) -> None:
    received: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    thread, results, _ = _begin_to_sleep(1, tmp_path / "notes")
    assert outcome(function, str(tmp_path / "program")) is Outcome.CUT
    program = Path("/proc", (tmp_path / "program").read_text(), "cmdline")
    until(lambda: not program.exists() or not program.read_bytes())
    thread.join(60)
    signal.signal(signal.SIGUSR1, previous)
    assert (results, received) == ([Outcome.DONE], [])


def test_a_server_that_can_make_no_child_keeps_those_it_has(tmp_path: Path) -> None:
    thread, results, _ = _begin_to_sleep(3, tmp_path / "notes")
    used = len(os.listdir(f"/proc/{_server()}/fd"))
    _, most = resource.prlimit(_server(), resource.RLIMIT_NOFILE)
    reasons = []
    for free in (0, 2):
        resource.prlimit(_server(), resource.RLIMIT_NOFILE, (used + free, most))
        answer = run("sleep", 0, task_id=f"free-{free}")[1]
        assert answer.outcome is not Outcome.CUT
        reasons.append(answer.reason)
    resource.prlimit(_server(), resource.RLIMIT_NOFILE, (most, most))
    assert outcome("sleep", 0, task_id="2") is Outcome.DONE
    thread.join(60)
    assert results == [Outcome.DONE]


def test_an_end_that_is_asked_for_too_late_ends_no_other() -> None:
    control, other = socket.socketpair()
    server = Server(control, {})
    with control, other, server._wakeup, server._wakes:
        server._end_child(2**22)


def test_a_child_runs_one_coroutine_after_the_other(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    for number in range(3):
        assert outcome("note_later", str(notes), task_id=str(number)) is Outcome.DONE
    assert len(set(processes(notes))) == 1


def test_a_task_can_end_the_processes_that_it_has_forked(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="20s")
    assert run("end_forked")[1].outcome is Outcome.DONE


def test_a_default_timeout_of_sockets_does_not_end_a_task(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_TASK_TIMEOUT="20s")
    notes = tmp_path / "notes"
    socket.setdefaulttimeout(0.2)
    try:
        assert outcome("note", str(notes), task_id="1") is Outcome.DONE
        assert outcome("sleep", 0.6, task_id="2") is Outcome.DONE
        assert outcome("note", str(notes), task_id="3") is Outcome.DONE
    finally:
        socket.setdefaulttimeout(None)
    assert len(set(processes(notes))) == 1


def _state_of(process_id: int) -> str:
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0]


def test_a_child_of_a_server_that_hangs_is_ended_and_so_is_the_server(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "MADE_SECONDS", 0.2)
    env(DISPATCH_TASK_TIMEOUT="1s")
    notes = tmp_path / "notes"
    outcome("note", str(notes), task_id="1")
    os.kill(_server(), signal.SIGSTOP)
    _, result = run("swallow", task_id="2")
    assert result.outcome is Outcome.CUT
    assert _state_of(processes(notes)[0]) == "Z"
    assert outcome("sleep", 0, task_id="3") is Outcome.DONE


def test_the_output_of_a_task_is_shown_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    outcome("print_text", "the first", task_id="1")
    outcome("leave_at_once", 1, task_id="2")
    assert capfd.readouterr().out == "the first\n"


@pytest.mark.parametrize("isolation", ["process", "fresh"])
def test_the_last_child_may_end_by_itself(isolation: str, env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_ISOLATION=isolation)
    outcome("write_at_end", str(tmp_path / "end"))
    CHILDREN.close()
    assert (tmp_path / "end").exists()


def test_an_idle_child_that_was_killed_is_not_used(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    outcome("note", str(notes), task_id="1")
    (child,) = processes(notes)
    os.kill(child, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}").exists())
    assert outcome("note", str(notes), task_id="2") is Outcome.DONE


# --- what a reused child is ended for --------------------------------------------------------


def test_a_child_that_is_not_clean_ends_after_its_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes"
    reasons = {
        "leave_thread": "it has left threads: left-here",
        "leave_pool": "it has left threads: left-pool_0",
        "leave_files": "its tasks have left more than 16 files open",
        "leave_loop": "it has left an event loop",
        "leave_timer": "it has left a timer running",
        "leave_handler": "it has left another signal handler",
        "block_signals": "it has left signals blocked",
        "open_all_files": "its tasks have left more than 16 files open",
    }
    outcome("note", str(notes), task_id="first")
    for function, reason in reasons.items():
        assert outcome(function, task_id=function) is Outcome.DONE
        outcome("note", str(notes), task_id=f"after-{function}")
        line = f"child ended id={function} function={function} reason='{reason}'"
        until(lambda line=line: line in _all_of(capfd))  # type: ignore[misc]
    assert len(set(processes(notes))) == 1 + len(reasons)


def test_a_child_with_another_resource_limit_ends() -> None:
    leftovers = Leftovers(2, max_memory=None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, before[1]))
    try:
        assert leftovers.why_to_end([]) == "it has left another resource limit"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert leftovers.why_to_end([]) == ""


def test_a_child_whose_turn_may_be_in_the_cache_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another child replaces the entry of one that has ended, and waits a minute otherwise."""
    with open(os.devnull) as file:
        leftovers = Leftovers(file.fileno(), max_memory=None)
        monkeypatch.setattr(HELD, "was_unanswered", True)
        assert leftovers.why_to_end([]) == "the lease's cache has not answered it"


def test_a_child_stays_whose_coroutine_has_failed(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_TASK_TIMEOUT="1s")
    notes = tmp_path / "notes"
    outcome("note", str(notes), task_id="1")
    assert outcome("fail_later", 0, task_id="2") is Outcome.FAILED
    assert outcome("fail_later", 60, task_id="3") is Outcome.TIMED_OUT
    outcome("note", str(notes), task_id="4")
    assert len(set(processes(notes))) == 1


def test_a_child_that_was_interrupted_is_not_used_again(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_TASK_TIMEOUT="1s")
    notes = tmp_path / "notes"
    assert outcome("sleep", 60, str(notes), task_id="1") is Outcome.TIMED_OUT
    assert outcome("note", str(notes), task_id="2") is Outcome.DONE
    assert len(set(processes(notes))) == 2


_read: list[str] = []


def _all_of(capfd: pytest.CaptureFixture[str]) -> str:
    _read.append(capfd.readouterr().err)
    return "".join(_read)


def test_a_child_that_uses_too_much_memory_is_ended(env: Environment) -> None:
    env(DISPATCH_CHILD_MEMORY="200M")
    _, result = run("use_memory", 300, 60)
    assert result.outcome is Outcome.CUT
    reason = (
        r"it used \d+ MiB of memory, more than the 200 MiB of BEANSTALK_DISPATCH_CHILD_MEMORY; "
    )
    assert re.match(reason, result.reason)


def test_a_child_ends_while_its_next_task_has_half_of_the_memory_left() -> None:
    """Otherwise the one that a leak leaves little to would be ended in the middle of its work."""
    leftovers = Leftovers(2, max_memory=resident_memory("self") + (100 << 20))
    kept = [b"x" * (30 << 20)]
    assert leftovers.why_to_end([]) == ""
    kept.append(b"x" * (40 << 20))
    reason = r"it uses \d+ MiB of memory, which leaves too little to the next task"
    assert re.fullmatch(reason, leftovers.why_to_end([]))


def test_a_child_whose_tasks_have_used_too_much_ends_after_its_answer(
    env: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    env(DISPATCH_CHILD_MEMORY="1M")
    notes = tmp_path / "notes"
    for number in range(2):
        assert outcome("note", str(notes), task_id=str(number)) is Outcome.DONE
    assert len(set(processes(notes))) == 2
    until(lambda: re.search(r"id=1 function=note reason='it uses \d+ MiB", _all_of(capfd)))


# --- with a lease ----------------------------------------------------------------------------


@pytest.fixture
def shared_cache(env: Environment) -> Iterator[None]:
    env(DISPATCH_LEASE_CACHE="shared")
    caches["shared"].clear()
    yield
    caches["shared"].clear()


@pytest.mark.usefixtures("shared_cache")
def test_a_running_task_is_stopped_and_its_lease_is_free(
    env: Environment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env(DISPATCH_RESULTS="shared")
    results: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: results.append(outcome("sleep", 60, str(tmp_path / "notes")))
    )
    thread.start()
    until((tmp_path / "notes").exists)
    asyncio.run(acancel("task-1", stop=True))
    thread.join(60)
    assert results == [Outcome.CANCELLED]
    assert "reason='it was stopped while it ran'" in caplog.text
    stored = get_result("task-1")
    assert (stored.status, stored.attempts, len(stored.errors)) == (Status.FAILED, 1, 1)
    assert stored.errors[0].traceback.endswith("TaskCancelled: it was stopped while it ran\n")
    assert outcome("sleep", 0, count=2) is Outcome.CANCELLED


@pytest.mark.usefixtures("shared_cache")
def test_the_lease_of_a_child_that_has_ended_is_free() -> None:
    assert outcome("leave_at_once", 1) is Outcome.CUT
    body = Message(function="sleep", args=[0], id="task-1").encode(queue="q")
    assert deliver_and_keep(body, Delivery(queue="q"), Endpoint())[1].outcome is Outcome.DONE
    _, result = run("leave_at_once", 1, task_id="2")
    assert result.reason.endswith("it was cut off once")


@pytest.mark.usefixtures("shared_cache")
def test_cuts_are_counted_in_the_leases_cache_for_all(env: Environment, tmp_path: Path) -> None:
    for number in (1, 2):
        env(DISPATCH_CRASH_LEDGER=tmp_path / f"ledger-{number}")
        _, result = run("leave_at_once", 1, count=number)
    assert result.reason.endswith("it was cut off 2 times")


@pytest.mark.usefixtures("shared_cache")
def test_a_cache_that_is_away_counts_no_cuts_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caches["shared"], "incr", lambda key: 1 / 0)
    _, result = run("leave_at_once", 1)
    assert result.reason.endswith("it was cut off once")
    assert "cut not counted id=task-1 cache=shared error=ZeroDivisionError" in caplog.text


class Stub:
    """A child that answers as a test says."""

    process_id = 5

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def work(self, *args: object) -> object:
        return self.answer

    def end(self, why: str) -> Ended:
        return Ended(exit_code=-6, has_begun=True, why=why)

    def close(self) -> None:
        pass


def test_children_that_end_before_their_task_begins_cost_it_no_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = Ended(exit_code=1, has_begun=False)
    made: list[Stub] = []

    def make() -> Stub:
        made.append(Stub(ended))
        return made[-1]

    monkeypatch.setattr(CHILDREN, "_make_child", make)
    assert outcome("note", str(tmp_path / "notes")) is Outcome.UNAVAILABLE
    assert len(made) == 2


def test_a_task_that_is_stopped_before_it_begins_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = Ended(exit_code=-6, has_begun=False, why="it was stopped")
    monkeypatch.setattr(CHILDREN, "_take_child", lambda: Stub(ended))
    _, result = run("note")
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, "it was stopped before it began")


def test_an_answer_about_another_task_ends_the_child(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(CHILDREN, "_take_child", lambda: Stub({"id": "another"}))
    _, result = run("note", str(tmp_path / "notes"))
    assert result.reason == "its answer makes no sense; it was cut off once"


# --- where children are not possible ---------------------------------------------------------


def test_a_quarantined_task_runs_in_a_process_of_its_own(env: Environment, tmp_path: Path) -> None:
    env(DISPATCH_ISOLATION="thread")
    body = Message(function="note", args=[str(tmp_path / "notes")], id="task-1").encode(queue="q")
    RUNNING.task(
        Message(function="note", id="task-1"), Delivery(queue="q"), get_config()
    ).count_as_cut()
    _, result = deliver_and_keep(body, Delivery(queue="q"), Endpoint())
    assert result.outcome is Outcome.DONE
    (child,) = processes(tmp_path / "notes")
    assert child != os.getpid()
    isolated_jobs.note(str(tmp_path / "here"))  # and here it would be this process
    assert processes(tmp_path / "here") == [os.getpid()]
