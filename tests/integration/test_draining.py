"""Draining, under the real gunicorn: SIGTERM, a drain file, threads that are stuck."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint import draining, holding
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.leases.lease import Lease
from beanstalk_dispatch.running.limits import time_limit as timeouts
from beanstalk_dispatch.running.running_tasks import RUNNING
from tests.conftest import TABLE, Environment
from tests.integration.test_gunicorn import body
from tests.services import Gunicorn, in_child, until
from tests.unit.test_views import post

# The processes of two scenes are measured, and draining in this process.
unmeasured = pytest.mark.usefixtures("unmeasured")


@contextmanager
def gunicorn(directory: Path, **variables: str) -> Iterator[Gunicorn]:
    table = f"{TABLE} work=tests.limited_jobs.work"
    variables = {"BEANSTALK_DISPATCH_TABLE": table} | variables
    started = Gunicorn(directory, BEANSTALK_WORKER="True", **variables)
    try:
        until(started.is_up)
        until(lambda: "start worker=True" in started.log())
        yield started
    finally:
        started.stop()


@unmeasured
def test_after_sigterm_what_runs_ends_and_what_waits_is_refused(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as server, ThreadPoolExecutor(25) as pool:
        assert server.post(body("record"))[0] == 200
        names = [f"nap-{number}" for number in range(15)]
        began = tmp_path / "began"
        running = [
            pool.submit(server.post, body("work", str(began), 1, 10, id=name)) for name in names
        ]
        until(lambda: began.exists() and began.read_text().count("start") == 15)
        waiting = [pool.submit(server.post, body("record")) for _ in range(10)]
        time.sleep(2)
        os.kill(server.pid, signal.SIGTERM)
        assert {each.result()[0] for each in running} == {200}
        assert {each.result()[0] for each in waiting} == {503}
        assert "status=503 reason='the server is stopping'" in server.log()
        logged = re.findall(r"stopping running id=(\S+) function=work seconds=\d+", server.log())
        assert sorted(logged) == sorted(names)


@unmeasured
def test_beside_a_drain_file_nothing_new_begins(tmp_path: Path) -> None:
    file = tmp_path / "drain"
    with gunicorn(tmp_path, BEANSTALK_DISPATCH_DRAIN_FILE=str(file)) as server:
        with ThreadPoolExecutor(1) as pool:
            began = tmp_path / "began"
            running = pool.submit(server.post, body("work", str(began), 1, 1))
            until(began.exists)
            file.touch()
            assert server.post(body("record")) == (503, b'{"error": 503, "message": "draining"}')
            assert running.result()[0] == 200
        assert f"status=503 reason='{file} exists'" in server.log()
        file.unlink()
        assert server.post(body("record"))[0] == 200


def workers(server: Gunicorn) -> list[str]:
    return re.findall(r"Booting worker with pid: (\d+)", server.log())


@unmeasured
def test_when_all_threads_are_stuck_another_process_takes_over_without_being_asked(
    tmp_path: Path,
) -> None:
    """gunicorn itself would wait for 30 seconds, and then for another 30."""
    with (
        gunicorn(
            tmp_path,
            BEANSTALK_DISPATCH_TASK_TIMEOUT="0.2s",
            GUNICORN_CMD_ARGS="--threads=2 --graceful-timeout=30 --timeout=30",
        ) as server,
        ThreadPoolExecutor(3) as pool,
    ):
        started = time.monotonic()
        blocked = [pool.submit(quietly, server, body("block", 60)) for _ in range(2)]
        until(lambda: len(workers(server)) == 2, 40)
        until(lambda: server.log().count("start worker=True") == 2)
        assert server.post(body("record"))[0] == 200
        assert time.monotonic() - started < 25
        assert server.log().count("stuck task label=block") == 2
        assert server.log().count("recycle pid=") == 1
        assert "reason=stuck stuck=2 threads=2" in server.log()
        assert "ended pid=" in server.log()
        assert {each.result() for each in blocked} == {"lost"}


@unmeasured
def test_a_task_that_can_end_has_its_time_before_the_process_is_replaced(tmp_path: Path) -> None:
    with (
        gunicorn(
            tmp_path,
            BEANSTALK_DISPATCH_TABLE=f"{TABLE} patient=tests.jobs.PatientNap",
            BEANSTALK_DISPATCH_TASK_TIMEOUT="0.2s",
            GUNICORN_CMD_ARGS="--threads=3 --graceful-timeout=30 --timeout=30",
        ) as server,
        ThreadPoolExecutor(3) as pool,
    ):
        patient = pool.submit(server.post, body("patient", 14))
        blocked = [pool.submit(quietly, server, body("block", 60)) for _ in range(2)]
        until(lambda: len(workers(server)) == 2, 40)
        assert patient.result()[0] == 200
        assert {each.result() for each in blocked} == {"lost"}


@unmeasured
def test_a_task_that_leaves_threads_is_named_and_its_process_replaced(tmp_path: Path) -> None:
    with gunicorn(
        tmp_path,
        BEANSTALK_DISPATCH_TABLE=f"{TABLE} leave=tests.jobs.leave_threads",
        GUNICORN_CMD_ARGS="--threads=3 --graceful-timeout=30 --timeout=30",
    ) as server:
        started = time.monotonic()
        for _ in range(2):
            assert server.post(body("leave", 40, id="leaky-1"))[0] == 200
        time.sleep(1)
        until(lambda: server.post(body("record"))[0] == 200 and len(workers(server)) == 2, 40)
        assert time.monotonic() - started < 25
        assert "threads left behind id=leaky-1 function=leave count=40" in server.log()
        assert "reason=threads threads=80 left_by='leave 80'" in server.log()


def test_a_pool_that_tasks_share_is_no_reason_to_replace_its_process(tmp_path: Path) -> None:
    """A pool of a module grows to its size once; its threads have no end and no leak."""
    with gunicorn(
        tmp_path,
        BEANSTALK_DISPATCH_TABLE=f"{TABLE} pooled=tests.jobs.use_shared_pool",
        GUNICORN_CMD_ARGS="--threads=15",
    ) as server:
        with ThreadPoolExecutor(15) as pool:
            answers = [pool.submit(server.post, body("pooled")) for _ in range(60)]
            assert {each.result()[0] for each in answers} == {200}
        assert server.log().count("recycle pid=") == 0
        assert len(workers(server)) == 1


@unmeasured
def test_threads_left_behind_do_not_delay_a_restart(tmp_path: Path) -> None:
    with gunicorn(
        tmp_path,
        BEANSTALK_DISPATCH_TABLE=f"{TABLE} leave=tests.jobs.leave_threads",
        GUNICORN_CMD_ARGS="--threads=3 --graceful-timeout=30 --timeout=30",
    ) as server:
        assert server.post(body("leave", 1))[0] == 200
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 15
        assert re.search(r"ended pid=\d+ stuck=0 left_by='leave 1'", server.log())


def quietly(server: Gunicorn, content: str) -> str:
    try:
        return str(server.post(content)[0])
    except (OSError, ConnectionError):
        return "lost"


def test_with_preload_app_the_hook_does_it(tmp_path: Path) -> None:
    configuration = tmp_path / "gunicorn.conf.py"
    configuration.write_text("from beanstalk_dispatch.draining import post_worker_init\n")
    with (
        gunicorn(
            tmp_path, GUNICORN_CMD_ARGS=f"--threads=15 --preload --config={configuration}"
        ) as server,
        ThreadPoolExecutor(25) as pool,
    ):
        running = [pool.submit(server.post, body("nap", 3)) for _ in range(15)]
        time.sleep(1)
        waiting = pool.submit(server.post, body("record"))
        time.sleep(1)
        os.kill(server.pid, signal.SIGTERM)
        assert {each.result()[0] for each in running} == {200}
        assert waiting.result()[0] == 503


# --- in this process ---


class FakeWorker:
    """Looks like gunicorn's."""

    __module__ = "gunicorn.workers.base"
    cfg = SimpleNamespace(threads=3)

    def __init__(self) -> None:
        self.signals: list[int] = []

    def handle_exit(self, signum: int, frame: Any) -> None:
        self.signals.append(signum)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWorker]:
    monkeypatch.setattr(draining, "_process", draining._ServerProcess())
    before = signal.getsignal(signal.SIGTERM)
    fake = FakeWorker()
    signal.signal(signal.SIGTERM, fake.handle_exit)
    yield fake
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_passed_on(worker: FakeWorker, env: Environment) -> None:
    assert draining.watch()
    assert draining.reason(get_config()) == ""
    os.kill(os.getpid(), signal.SIGTERM)
    assert draining.reason(get_config()) == "the server is stopping"
    assert worker.signals == [signal.SIGTERM]


def test_what_runs_is_logged(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    with RUNNING.task(Message(function="f", id="task-1"), Delivery(), get_config()) as task:
        draining._log_running([task])
    assert caplog.messages == ["stopping running id=task-1 function=f seconds=0"]


def test_without_a_thread_to_log_in_the_signal_is_still_handled(
    worker: FakeWorker, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    draining.watch()
    with RUNNING.task(Message(function="f"), Delivery(), get_config()):
        os.kill(os.getpid(), signal.SIGTERM)
    assert worker.signals == [signal.SIGTERM]


def test_what_was_cut_off_is_logged_when_the_process_starts(
    worker: FakeWorker, env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER=True)
    config = get_config()

    def run_and_die() -> None:
        RUNNING.task(Message(function="f", id="task-1"), Delivery(), config).__enter__()

    in_child(run_and_die)
    assert draining.watch()
    assert "cut id=task-1 function=f" in caplog.text


def test_a_wrong_configuration_is_left_to_the_requests(
    worker: FakeWorker, env: Environment
) -> None:
    env(WORKER="Ture")
    assert draining.watch()


def test_the_first_reason_is_kept(
    worker: FakeWorker, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    draining.post_worker_init(worker)
    monkeypatch.setattr(timeouts, "stuck_threads", lambda: {1})
    draining.replace_if_spoiled()
    assert draining.reason(get_config()) == ""
    monkeypatch.setattr(timeouts, "stuck_threads", lambda: {1, 2})
    for _ in range(2):
        draining.replace_if_spoiled()
        assert draining.reason(get_config()) == "2 of 3 threads are stuck"
    assert worker.signals == [signal.SIGTERM]


class FakeThreadWorker(FakeWorker):
    """Looks like the one with threads."""

    __module__ = "gunicorn.workers.gthread"
    cfg = SimpleNamespace(threads=3, graceful_timeout=5)

    def handle_request(self, started: threading.Event, release: threading.Event) -> None:
        started.set()
        release.wait(20)


# As gunicorn's own method, it is in a module of gunicorn's.
FakeThreadWorker.handle_request = FunctionType(  # type: ignore[method-assign]
    FakeThreadWorker.handle_request.__code__, {"__name__": "gunicorn.workers.gthread"}
)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes of the process, which does not end."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(draining, "EXIT_SECONDS", 0.1)

    def start_new_thread(function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """One whose coverage is measured."""
        threading.Thread(target=function, args=args).start()

    monkeypatch.setattr("_thread.start_new_thread", start_new_thread)
    return codes


@pytest.mark.parametrize("is_replaced", [True, False])
def test_the_process_ends_itself_once_no_request_runs_that_can_end(
    is_replaced: bool, worker: FakeWorker, env: Environment, exits: list[int],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    fake, started, release = FakeThreadWorker(), threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, fake.handle_exit)
    assert draining.watch()
    draining._process.is_replaced = is_replaced
    request = threading.Thread(target=fake.handle_request, args=(started, release))
    request.start()
    assert started.wait(20)
    ended: list[float] = []
    end = draining._end_process

    def end_and_note(patience: float) -> None:
        end(patience)
        ended.append(patience)

    monkeypatch.setattr(draining, "_end_process", end_and_note)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    assert ended == []
    release.set()
    request.join()
    until(lambda: ended == [5])
    assert exits == ([0] if is_replaced else [])
    assert ("neither could be waited for" in caplog.text) is is_replaced


def test_the_end_of_a_process_does_not_wait_for_an_answer_that_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, release = threading.Event(), threading.Event()
    monkeypatch.setattr(
        "beanstalk_dispatch.consumers.endpoint.holding.time.sleep", lambda seconds: release.wait(20)
    )
    held = SimpleNamespace(wait=lambda s: holding.hold(5, holding.FOR_ONE_MESSAGE, threads=30))
    request = threading.Thread(target=FakeThreadWorker().handle_request, args=(started, held))
    request.start()
    assert started.wait(20)
    until(lambda: draining._requests_that_can_end() == 0)
    assert request.is_alive()
    release.set()
    request.join()


def test_a_process_that_stops_is_not_judged_again(
    worker: FakeWorker, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert draining.watch()
    monkeypatch.setattr(timeouts, "stuck_threads", lambda: {1, 2})
    with draining._process.judging:
        draining.replace_if_spoiled()
        assert draining.reason(get_config()) == ""  # another thread judges it
    for _ in range(2):
        draining.replace_if_spoiled()
    assert draining.reason(get_config()) == "2 of 3 threads are stuck"
    assert worker.signals == [signal.SIGTERM]


def test_elsewhere_no_signal_is_touched(worker: FakeWorker) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert not draining.watch()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_only_the_main_thread_can_watch(worker: FakeWorker) -> None:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(draining.watch()))
    thread.start()
    thread.join()
    assert results == [False]


def test_a_message_that_comes_again_is_held(
    env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "drain"
    env(WORKER=True, DISPATCH_TABLE=TABLE, DISPATCH_DRAIN_FILE=file)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if seconds > 10:
            file.unlink()

    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", sleep)
    file.touch()
    statuses = [
        post(body("record"), **{"X-Aws-Sqsd-Receive-Count": str(count)}).status_code
        for count in (1, 2, 3, 5, 12)
    ]
    assert statuses == [503, 503, 200, 200, 200]
    assert pauses == [5, 8, 11]


def test_a_message_is_not_started_late_because_it_was_held(
    env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    file = tmp_path / "drain"
    env(WORKER=True, DISPATCH_TABLE=TABLE, DISPATCH_DRAIN_FILE=file, DISPATCH_TASK_TIMEOUT="50s")
    file.touch()
    moment = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal moment
        moment += seconds
        file.unlink()

    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: moment)
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", sleep)
    headers = {
        "X-Aws-Sqsd-Receive-Count": "5",
        "X-Request-Start": f"t={time.time():.3f}", "X-Proxy-Read-Timeout": "60",
    }  # fmt: skip
    assert post(body("record"), **headers).status_code == 503
    assert "outcome=overdue" in caplog.text
    assert re.search(r"waited_ms=17\d{3} ", caplog.text)


@pytest.mark.parametrize(("is_done", "status"), [(True, 200), (False, 503)])
def test_a_held_message_that_another_process_has_done_is_deleted_however_late_it_is(
    env: Environment, monkeypatch: pytest.MonkeyPatch, is_done: bool, status: int
) -> None:
    env(
        WORKER=True, DISPATCH_TABLE=TABLE, DISPATCH_TASK_TIMEOUT="50s",
        DISPATCH_LEASE_CACHE="default",
    )  # fmt: skip
    message = Message(function="record", sent_at=time.time())
    other = Lease("default", message, queue="q.fifo", time_limit=50)
    other.take()
    moment = time.monotonic()

    def sleep(seconds: float) -> None:
        nonlocal moment
        moment += seconds
        if is_done:
            other.done()
        else:
            other.give_up()

    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: moment)
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", sleep)
    headers = {
        "X-Aws-Sqsd-Receive-Count": "10", "X-Aws-Sqsd-Queue": "q.fifo",
        "X-Request-Start": f"t={time.time():.3f}", "X-Proxy-Read-Timeout": "60",
    }  # fmt: skip
    assert post(message.encode(queue="q.fifo"), **headers).status_code == status
    if not is_done:  # the one that was late has given its lease up
        Lease("default", message, queue="q.fifo", time_limit=50).take()


def test_a_message_whose_cache_does_not_answer_is_held_from_the_first_receive_on(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE, DISPATCH_LEASE_CACHE="default")
    pauses: list[float] = []

    def fail(*args: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            patch.undo()  # the cache answers again

        patch.setattr(caches["default"], "add", fail)
        patch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", sleep)
        assert post(body("record")).status_code == 200
    assert pauses == [5]


def test_a_process_that_stops_holds_nothing(
    worker: FakeWorker, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", pytest.fail)
    draining.watch()
    os.kill(os.getpid(), signal.SIGTERM)
    assert post(body("record"), **{"X-Aws-Sqsd-Receive-Count": "5"}).status_code == 503
