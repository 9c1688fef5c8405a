"""Sentry and the end of a process, a poller's tasks, and an ingest server in trouble."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.worker import EXIT_STUCK
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.integration.test_sentry import environment_of, signed, worker_of
from tests.kent import Kent
from tests.sentry_site import SECRET
from tests.services import ROOT, free_port, until

# The tests of Sentry behind gunicorn and uvicorn measure what runs here.
pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture(scope="module")
def kent() -> Iterator[Kent]:
    server = Kent()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def slow_kent() -> Iterator[Kent]:
    """What is sent in the last second arrives only if the process waits for it."""
    server = Kent(delay=1)
    yield server
    server.stop()


class Poller:
    """``beanstalk_worker`` in a process of its own."""

    def __init__(self, where: Path, variables: dict[str, str], *arguments: str) -> None:
        self._log = where / "poller.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "django",
                    "beanstalk_worker",
                    "jobs",
                    "--wait=1",
                    "--skip-checks",  # they refuse a task whose failure is reported here
                    *arguments,
                ],
                cwd=ROOT,
                env=os.environ | variables | {"BEANSTALK_WORKER": "True"},
                stderr=log,
            )

    def log(self) -> str:
        return self._log.read_text()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        return self._process.wait(60)


StartPoller = Callable[..., Poller]


@pytest.fixture
def start(sqs_env: Environment, moto: str, queue_name: str, tmp_path: Path) -> StartPoller:
    sqs_env(DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    assert open_queue("jobs")

    def start(kent: Kent, *arguments: str) -> Poller:
        variables = environment_of(kent.dsn, moto)
        variables["BEANSTALK_DISPATCH_QUEUES"] = f"jobs={queue_name}"
        return Poller(tmp_path, variables, *arguments)

    return start


@pytest.fixture
def send(queue_name: str) -> Callable[..., Message]:
    def send(function: str, *args: Any) -> Message:
        trace_id = uuid.uuid4().hex
        headers = {"sentry-trace": f"{trace_id}-{trace_id[:16]}-1"}
        message = Message(function=function, args=args, headers=headers)
        open_queue("jobs").send(message.encode(queue=queue_name, keys=["a-key-of-the-tests"]), {})
        return message

    return send


# --- a poller's tasks ------------------------------------------------------------------------


def test_a_poller_reports_and_traces(
    start: StartPoller, send: Callable[..., Message], kent: Kent, queue_name: str
) -> None:
    quiet, patient = send("quiet", SECRET), send("patient", SECRET)
    assert start(kent, "--max-tasks=4").wait() == 0
    event = kent.event(patient.id)
    assert event["tags"] == {
        "function": "patient", "queue": queue_name, "task_id": patient.id, "attempt": "3",
        "receive_count": "1", "outcome": "failed", "final": "yes", "dead_lettered": "no",
    }  # fmt: skip
    trace_id = patient.headers["sentry-trace"][:32]
    assert event["contexts"]["trace"]["trace_id"] == trace_id
    runs = [span for span in kent.spans(trace_id) if span["op"] == "queue.process"]
    counts = [span["data"]["messaging.message.retry.count"] for span in runs]
    assert sorted(counts) == [0, 1, 2]
    assert kent.events(quiet.id) == []
    spans = kent.spans(quiet.headers["sentry-trace"][:32])
    assert sorted(span["op"] for span in spans) == [
        "queue.process",
        "queue.task.beanstalk_dispatch",
    ]
    assert SECRET not in json.dumps(kent.items())


def test_one_of_a_pollers_tasks_shows_nothing_of_another(
    start: StartPoller, send: Callable[..., Message], kent: Kent
) -> None:
    sent = [send("mixed", number) for number in range(30)]
    assert start(kent, "--max-tasks=30", "--threads=5").wait() == 0
    for number, message in enumerate(sent):
        until(lambda message=message: kent.events(message.id))  # type: ignore[misc]
        for event in kent.events(message.id):  # SQS may deliver a message twice
            assert event["user"] == {"id": str(number)}
            assert [name for name in event["tags"] if name.startswith("own")] == [f"own-{number}"]
            crumbs = [crumb["message"] for crumb in event["breadcrumbs"]["values"]]
            assert crumbs == [f"crumb {number}"] * 3


# --- the end of a process --------------------------------------------------------------------


def test_a_poller_that_is_stopped_sends_what_it_has(
    start: StartPoller, send: Callable[..., Message], slow_kent: Kent
) -> None:
    message = send("boom", SECRET)
    poller = start(slow_kent)
    until(lambda: f"id={message.id} function=boom outcome=failed" in poller.log())
    poller.terminate()
    assert poller.wait() == 0
    assert len(slow_kent.events(message.id)) == 1


def test_a_poller_that_leaves_a_task_behind_sends_what_it_has(
    start: StartPoller, send: Callable[..., Message], slow_kent: Kent
) -> None:
    send("block", 30)
    poller = start(slow_kent, "--grace=0.1", "--threads=2")
    until(lambda: open_queue("jobs").depth() == 0)
    message = send("boom", SECRET)
    until(lambda: f"id={message.id} function=boom outcome=failed" in poller.log())
    poller.terminate()
    assert poller.wait() == 0
    assert "stop unfinished" in poller.log()
    assert len(slow_kent.events(message.id)) == 1


def test_a_poller_that_is_stuck_says_so_before_it_ends(
    start: StartPoller, send: Callable[..., Message], slow_kent: Kent
) -> None:
    message = send("block", 60)
    assert start(slow_kent).wait() == EXIT_STUCK
    event = slow_kent.event(message.id)
    assert event["fingerprint"] == ["beanstalk_dispatch", "stuck", "block"]
    (exception,) = event["exception"]["values"]
    assert "block" in {frame["function"] for frame in exception["stacktrace"]["frames"]}


def test_gunicorn_sends_what_it_has_when_it_is_stopped(slow_kent: Kent, tmp_path: Path) -> None:
    """Of the two seconds that the SDK waits, one is enough: nothing else is reported first."""
    alone = {
        "BEANSTALK_DISPATCH_TABLE": "boom=tests.sentry_site.boom",
        "BEANSTALK_DISPATCH_PERIODIC_TASKS": "boom",
    }
    worker = worker_of(tmp_path, environment_of(slow_kent.dsn) | alone)
    until(worker.is_up)
    assert worker.post(signed("boom", SECRET, id="at-the-end"))[0] == 500
    worker.stop()
    assert len(slow_kent.events("at-the-end")) == 1


# --- an ingest server in trouble -------------------------------------------------------------


@contextmanager
def down(port: int) -> Iterator[None]:
    with socket.socket() as unused:
        unused.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        unused.bind(("127.0.0.1", port))  # bound, and so nobody else's, but not listening
        yield


@contextmanager
def hanging(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port), backlog=500) as server:
        yield
        server.settimeout(30)
        server.accept()[0].close()  # it was asked


@contextmanager
def answering(status: int, port: int) -> Iterator[None]:
    answered = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Retry-After", "60")
            self.end_headers()
            answered.set()

        def log_message(self, *args: object) -> None:
            """Nobody asks."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        assert answered.wait(30)
        server.shutdown()


Trouble = Callable[[int], AbstractContextManager[None]]


@pytest.mark.parametrize(
    "troubles", [[down, partial(answering, 500), hanging], [partial(answering, 429)]],
    ids=["down, 500 and hanging", "429"],
)  # fmt: skip
def test_with_sentry_in_trouble_tasks_end_as_ever(troubles: list[Trouble], tmp_path: Path) -> None:
    """A wait of five seconds for Sentry in each task that fails would make a minute of this."""
    port = free_port()
    worker = worker_of(tmp_path, environment_of(f"http://public@127.0.0.1:{port}/1"))
    until(worker.is_up)
    functions = ["boom", "quiet"] * 8
    with ThreadPoolExecutor(15) as pool, ExitStack() as trouble:
        started = time.monotonic()
        for begin in troubles:
            trouble.close()
            trouble.enter_context(begin(port))
            posted = pool.map(lambda name: worker.post(signed(name, SECRET))[0], functions)
            assert list(posted) == [500, 200] * 8
        took = time.monotonic() - started
        worker.stop()
        stopped = time.monotonic() - started - took
    assert took < 60  # a busy machine takes twenty; a hung Sentry would take for ever
    assert stopped < 60
    assert "observer failed" not in worker.log()
