"""The server that cannot import the project, that cannot fork, and that is not there."""

from __future__ import annotations

import errno
import math
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from django.core.cache import caches
from django.test import override_settings

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import NotImportable
from beanstalk_dispatch.isolation import child as child_module
from beanstalk_dispatch.isolation import preloading, server_process
from beanstalk_dispatch.isolation import server as server_module
from beanstalk_dispatch.isolation.child import ChildConsumer
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.isolation.leftovers import resident_memory
from beanstalk_dispatch.isolation.pipe import Frames, Notes, to_frame
from beanstalk_dispatch.isolation.server import Server, open_descriptors, why_no_fork
from beanstalk_dispatch.isolation.server_process import (
    Child,
    Ended,
    ServerEnded,
    ServerFailed,
    ServerProcess,
    _receive_frame,
    why_impossible,
)
from beanstalk_dispatch.logging.output import show
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.limits import monkey_patching
from beanstalk_dispatch.running.limits.time_limit import stop_watchdog
from beanstalk_dispatch.running.run import Run
from tests.conftest import Environment
from tests.services import in_child
from tests.unit.isolation.test_children import Endpoint, outcome, process_env, processes, run

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


def test_a_child_by_exec_knows_the_server_that_may_have_ended_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = []

    def run_child(data: int, notes: int, *, server: int) -> None:
        servers.append(server)
        raise SystemExit

    monkeypatch.setattr(server_module, "ignore_stops", list)
    monkeypatch.setattr(server_module, "import_project", list)
    monkeypatch.setattr(server_module, "run_child", run_child)
    reader, writer = os.pipe()
    os.write(writer, to_frame({"server": 7}))
    with pytest.raises(SystemExit):
        server_module.main(["3", "4", str(reader)])
    assert servers == [7]
    for each in (reader, writer):
        os.close(each)


def test_a_task_that_cannot_be_imported_is_logged_and_the_others_run(
    env: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    env(DISPATCH_TABLE="sleep=tests.isolated_jobs.sleep gone=tests.isolated_jobs.gone")
    assert outcome("sleep", 0) is Outcome.DONE
    assert "task cannot be imported function=gone error=" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("module", "function"), [("subprocess", "Popen"), ("socket", "socketpair")]
)
def test_without_processes_or_files_a_message_waits(
    module: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(getattr(server_process, module), function, refuse)
    CHILDREN.start(get_config())  # raises nothing
    _, result = run("sleep", 0)
    assert result.outcome is Outcome.UNAVAILABLE
    assert result.reason == "no process for the task: [Errno 24] Too many open files"


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
    in_child(lambda: CHILDREN._server is None and not CHILDREN._idle)
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


# --- the parts alone -------------------------------------------------------------------------


def test_a_server_ends_with_its_parent_whatever_that_has_left_unread() -> None:
    control, parent = socket.socketpair()
    server = Server(control, {})
    with control, server._wakeup, server._wakes, server._selector:
        server._selector.register(control, selectors.EVENT_READ)
        server._make_child([])  # of a request whose descriptors found no room
        control.send(b"x")
        parent.close()
        assert not server._handle_next()


def test_a_child_whose_parent_has_ended_meanwhile_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    ended = Run(Delivery(queue="q", message_id="1"), get_config(), Endpoint())
    ended.message = Message(function="sleep", id="1")

    def run_request(*args: object) -> tuple[Run, Result]:
        ours.close()
        return ended, Result(outcome=Outcome.DONE)

    def end_process() -> None:
        raise SystemExit

    monkeypatch.setattr(child_module, "_prepare_process", lambda *args, **kwargs: None)
    monkeypatch.setattr(child_module, "run_request", run_request)
    monkeypatch.setattr(child_module, "end_process", end_process)
    ours.sendall(to_frame({"is_fresh": False}))
    with theirs, closing(Notes.create()) as notes, pytest.raises(SystemExit):
        child_module.main(theirs.fileno(), notes, server=0)


def test_a_server_whose_parent_has_ended_before_it_began_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "ignore_stops", int)
    control, parent = socket.socketpair()
    parent.close()
    server_module.main([str(control.detach())])


def test_a_child_without_a_thread_for_its_time_limits_ends_before_a_task_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stop_watchdog()
    monkeypatch.setattr(child_module, "_prepare_process", lambda *args, **kwargs: None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    ours, theirs = socket.socketpair()
    ours.sendall(to_frame({"is_fresh": False}))
    with ours, theirs, closing(Notes.create()) as notes:
        with pytest.raises(RuntimeError):
            child_module.main(theirs.fileno(), notes, server=0)
        assert not notes.has_begun


def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RELEASED_SECONDS", 0.1)
    control, parent = socket.socketpair()
    server = Server(control, {})
    ours, theirs = socket.socketpair()
    with control, parent, server._wakeup, server._wakes, server._selector, ours, theirs:
        for released in (True, False):  # or in the middle of a task
            child = subprocess.Popen(["/bin/sleep", "60"])
            server._children = {child.pid: ours}
            server._released.clear()
            if released:
                theirs.send(b"\0")
            server._end_children()
            assert child.wait(10) == -signal.SIGKILL


def test_threads_of_a_library_and_connections_prevent_a_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = open_descriptors()
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    monkeypatch.setattr(threading, "enumerate", lambda: [threading.main_thread()])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            shared = why_no_fork(before)
    done.set()
    thread.join()
    assert shared[0].endswith(" of a C library")
    assert f"connection to 127.0.0.1:{port}" in shared


def test_a_server_that_is_killed_while_it_imports_is_replaced_at_once() -> None:
    CHILDREN.start(get_config())
    server = CHILDREN._server
    assert server is not None
    server._process.kill()
    assert outcome("sleep", 0) is Outcome.DONE


def test_after_servers_that_have_ended_again_and_again_messages_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_process, "MODULE", "no_such_module")
    for number in (1, 2):
        _, result = run("sleep", 0, task_id=str(number))
        assert result.outcome is Outcome.UNAVAILABLE
        assert result.reason == "no process for the task: its server has ended again and again"
    server = CHILDREN._server
    assert server is not None
    assert not server.has_ended()  # until the next one may be started


def test_a_server_that_ends_before_it_is_told_anything_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Gone(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(["true"])
            self.wait()

    monkeypatch.setattr("beanstalk_dispatch.isolation.server_process.subprocess.Popen", Gone)
    server = ServerProcess()
    with pytest.raises(ServerEnded):
        server.make_child()
    server.close()


def test_a_server_that_does_not_become_ready_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "READY_SECONDS", 0.0001)
    server = ServerProcess()
    with pytest.raises(ServerFailed, match="takes more than"):
        server.make_child()
    server.close()


def test_a_server_that_hangs_is_killed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "_CLOSE_SECONDS", 0.2)
    server = ServerProcess()
    os.kill(server._process.pid, signal.SIGSTOP)
    server.close()
    assert server._process.returncode == -signal.SIGKILL


def test_an_error_of_ours_at_the_start_of_a_server_is_no_failed_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_process, "_import_path", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ServerProcess()


def test_a_long_message_reaches_a_child_or_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_process, "_SEND_SECONDS", 2.0)  # for each child that is made
    notes = tmp_path / "notes"
    outcome("note", str(notes), task_id="1")
    assert outcome("note", "x" * 500_000, task_id="2") is Outcome.FAILED  # too long for a path
    os.kill(processes(notes)[0], signal.SIGSTOP)
    assert outcome("note", "x" * 500_000, task_id="3") is Outcome.FAILED


def test_a_process_that_has_ended_uses_no_memory() -> None:
    assert resident_memory(2**22 + 1) == 0


def test_a_program_of_another_user_does_not_end_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that a task has started with sudo, and that outlives its child."""
    child = 2**22 + 1
    control, other = socket.socketpair()
    server = Server(control, {})
    server._children[child] = None
    server._released.add(child)
    monkeypatch.setattr(os, "waitpid", lambda *args: (child, signal.SIGKILL))
    monkeypatch.setattr(os, "killpg", Mock(side_effect=PermissionError))
    with control, other, server._wakeup, server._wakes:
        server._note_ends()
    assert (server._children, server._released) == ({}, set())


def test_a_frame_arrives_in_parts_and_is_never_too_long() -> None:
    frames = Frames()
    parts = (b"\0\0", b"\0\x02", b"[", b"]")
    assert [frames.feed(each) for each in parts] == [None, None, None, []]
    with pytest.raises(ValueError, match="too long"):
        Frames().feed(b"\xff" * 4)


def test_no_task_can_truncate_the_notes_under_its_parent() -> None:
    notes = Notes.create()
    with pytest.raises(PermissionError):
        os.ftruncate(notes.descriptor, 0)
    notes.close()


def test_notes_need_no_function_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    notes = Notes.create()
    notes.has_begun = True
    assert notes.has_begun
    notes.close()


def test_a_server_has_its_parents_output(tmp_path: Path) -> None:
    show(verbosity=1, level=None)
    assert outcome("note", str(tmp_path / "notes")) is Outcome.DONE


def test_children_share_the_client_of_a_cache_server_that_nobody_has_connected_to() -> None:
    backend = "django.core.cache.backends.redis.RedisCache"
    lease = {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1"}
    with override_settings(CACHES={"default": lease, "wrong": {"BACKEND": "no.such.Cache"}}):
        preloading._import_backends()
        assert "_cache" in vars(caches["default"])  # or each child would import redis


def test_a_server_waits_for_our_threads_before_it_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = threading.Thread(target=time.sleep, args=[0.2], name="beanstalk_dispatch-warm")
    others = [threading.current_thread()]  # not those of other tests, which stay
    monkeypatch.setattr(threading, "enumerate", lambda: [*others, thread])
    thread.start()
    preloading._wait_for_threads()
    assert not thread.is_alive()


def test_a_server_that_has_ended_since_makes_no_child() -> None:
    server = ServerProcess()
    child = server.make_child()
    child.note_ending()
    assert child._notes.is_ending
    child.close()
    server._process.kill()
    server._process.wait()
    with pytest.raises(ServerEnded):
        server.make_child()
    server.close()


def test_a_child_knows_that_its_parent_is_about_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[object] = []

    def note(child: object) -> None:
        noted.append(child)

    monkeypatch.setattr(Endpoint, "is_ending", lambda self: True)
    monkeypatch.setattr(server_process.Child, "note_ending", note)
    assert outcome("sleep", 1.5) is Outcome.DONE
    assert noted
    notes = Notes.create()
    consumer = ChildConsumer(notes, can_hide=True)
    assert not consumer.is_ending()
    notes.is_ending = True
    assert consumer.is_ending()
    notes.close()


def test_a_project_with_connections_has_children_by_exec(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as other:
        path = str(tmp_path / "s")
        other.bind(path)
        other.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("CONNECTED_EARLY", f"{address} {path}")
        with_settings(monkeypatch, "tests.connected_settings")
        notes = tmp_path / "notes"
        for number in range(2):
            assert outcome("note", str(notes), task_id=str(number)) is Outcome.DONE
    line = f"isolation by exec shared='connection to {address}, connection to {path}'"
    assert line in capfd.readouterr().err


# --- what arrives in parts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected_end", "answer", "why"),
    [
        (math.nan, b"", "it ran on after its time limit and could not be interrupted"),
        (math.inf, b"[" * 100_000, "its answer makes no sense"),
    ],
)
def test_a_child_that_writes_nonsense_is_ended(
    expected_end: float, answer: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Child, "end", lambda child, why: why)
    (data, theirs), (end, their_end) = socket.socketpair(), socket.socketpair()
    child = Child(1, data=data, end=end, notes=Notes.create())

    def write_nonsense() -> str:
        child._notes.write_expected_end(expected_end)
        if answer:
            theirs.sendall(struct.pack("!I", len(answer)) + answer)
        return ""

    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert child.work(b"request", 60, write_nonsense) == why
    child.close()
    theirs.close()
    their_end.close()


def test_a_child_that_ended_before_it_read_its_request_is_not_said_to_write_nonsense() -> None:
    (data, theirs), (end, their_end) = socket.socketpair(), socket.socketpair()
    child = Child(1, data=data, end=end, notes=Notes.create())

    def end_child() -> str:
        theirs.close()
        their_end.sendall(b"1\n")
        return ""

    ended = child.work(b"request", 60, end_child)
    assert (ended.exit_code, ended.why, ended.has_begun) == (1, "", False)
    child.close()
    their_end.close()


def test_an_answer_counts_that_comes_with_the_end_of_its_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the looks for the one and for the other, a thread may wait for others to run."""
    monkeypatch.setattr(server_process, "CHECK_SECONDS", 0.01)
    (data, theirs), (end, their_end) = socket.socketpair(), socket.socketpair()
    child = Child(1, data=data, end=end, notes=Notes.create())
    answer = {"id": "task-1", "rest": "x" * 100_000}  # in two parts

    def answer_and_end(child: Child, seconds: float) -> bool:
        theirs.sendall(to_frame(answer))
        theirs.close()
        their_end.sendall(b"0\n")
        return True

    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    monkeypatch.setattr(Child, "_has_ended_within", answer_and_end)
    assert child.work(b"request", 60, str) == answer
    child.close()
    their_end.close()


def test_a_childs_answer_may_arrive_in_parts() -> None:
    ours, theirs = socket.socketpair()
    end, their_end = socket.socketpair()
    child = Child(0, data=ours, end=end, notes=Notes.create())
    frame = to_frame({"id": "task-1"})
    ours.setblocking(False)
    frames = Frames()
    with theirs, their_end:
        theirs.sendall(frame[:6])
        assert child._read_answer(frames) is None
        theirs.sendall(frame[6:])
        assert child._read_answer(frames) == {"id": "task-1"}
        child.close()


def test_the_servers_first_answer_may_arrive_in_parts_or_not_at_all() -> None:
    ours, theirs = socket.socketpair()
    frame = to_frame({"threads": []})
    with ours, theirs:
        parts = threading.Timer(0.2, theirs.sendall, [frame[6:]])
        theirs.sendall(frame[:6])
        parts.start()
        assert _receive_frame(ours) == {"threads": []}
        parts.join()
        theirs.close()
        with pytest.raises(ConnectionError, match="the server has ended"):
            _receive_frame(ours)
