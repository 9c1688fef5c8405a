from __future__ import annotations

import http.client
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.poller import health
from beanstalk_dispatch.consumers.poller.health import (
    ProbeServer,
    touch_while_healthy,
    why_unhealthy,
)
from beanstalk_dispatch.consumers.poller.metrics import MISSING_LIBRARY
from beanstalk_dispatch.consumers.poller.worker import Worker
from beanstalk_dispatch.exceptions import NotImportable
from beanstalk_dispatch.running.definitions import dispatch_table
from tests.conftest import Environment
from tests.workers import Recording, make_worker


@pytest.fixture
def worker() -> Worker:
    return make_worker(Recording(), wait=20)


@contextmanager
def serving(worker: Worker, host: str = "127.0.0.1") -> Iterator[ProbeServer]:
    """A server that answers for the worker in a thread, until the end of the block."""
    server = ProbeServer(worker, host, 0)
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(worker: Worker) -> Iterator[ProbeServer]:
    with serving(worker) as started:
        yield started


def get(server: ProbeServer, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{server.server_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def leave_unanswered(worker: Worker) -> None:
    worker.queues[0].unanswered_since = time.monotonic() - 90


# --- why a worker is unhealthy ---


def test_a_task_that_cannot_be_imported_is_a_reason_and_no_reason_to_end(
    worker: Worker, server: ProbeServer, env: Environment, tmp_path: Path
) -> None:
    env(DISPATCH_TABLE="broken=tests.nowhere.f")
    file = tmp_path / "health"
    tick = touch_while_healthy(worker, file)
    assert why_unhealthy(worker) is None
    with pytest.raises(NotImportable):
        dispatch_table.resolve("broken", get_config())
    assert get(server, "/") == (503, "not importable: broken\n")
    assert get(server, "/live") == (200, "ok\n")
    tick()
    assert file.exists()
    leave_unanswered(worker)
    assert get(server, "/live") == (503, "no answer from jobs for 90 s\n")


def test_a_queue_that_does_not_answer_makes_it_unhealthy(worker: Worker) -> None:
    leave_unanswered(worker)
    assert why_unhealthy(worker) == "no answer from jobs for 90 s"


def test_an_answer_may_take_a_minute_longer_than_a_long_poll(worker: Worker) -> None:
    worker.queues[0].unanswered_since = time.monotonic() - 79
    assert why_unhealthy(worker) is None


def test_while_it_stops_no_queue_need_answer(worker: Worker) -> None:
    leave_unanswered(worker)
    worker.stop()
    assert why_unhealthy(worker) is None


def test_a_healthy_queue_does_not_hide_another() -> None:
    worker = make_worker(Recording(), "one", "two", wait=20)
    worker.queues[1].unanswered_since = time.monotonic() - 90
    worker.queues[0].unanswered_since = time.monotonic()
    assert why_unhealthy(worker) == "no answer from two for 90 s"


def test_deletes_that_fail_make_it_unhealthy(worker: Worker) -> None:
    worker.queues[0].in_flight.deletes.backoff.failing_since = time.monotonic() - 90
    assert why_unhealthy(worker) == "no answer from jobs for 90 s"


def test_a_stuck_task_makes_it_unhealthy(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.tasks, "overdue", lambda: [object()])
    assert why_unhealthy(worker) == "1 stuck"


# --- the HTTP server ---


def test_a_healthy_worker_answers_200(server: ProbeServer) -> None:
    assert get(server, "/") == (200, "ok\n")
    assert get(server, "/health") == (200, "ok\n")


def test_an_unhealthy_worker_answers_503(server: ProbeServer, worker: Worker) -> None:
    leave_unanswered(worker)
    assert get(server, "/") == (503, "no answer from jobs for 90 s\n")


def test_a_probe_may_ask_for_the_head_alone(server: ProbeServer) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}/", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as response:
        assert (response.status, response.read()) == (200, b"")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_it_can_listen_on_all_addresses_of_both_protocols(worker: Worker, host: str) -> None:
    with serving(worker, "::") as server:
        url = f"http://{host}:{server.server_port}/"
        with urllib.request.urlopen(url, timeout=5) as response:
            assert response.read() == b"ok\n"


def test_an_answer_does_not_say_what_the_server_is(server: ProbeServer) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        connection.sendall(b"BREW / HTTP/1.0\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 501")
    assert b"Server:" not in answer
    assert b"Python" not in answer


@pytest.mark.parametrize(
    "queue",
    [
        "https://sqs.eu-west-1.amazonaws.com/123456789012/mail",
        "arn:aws:sqs:eu-west-1:123456789012:mail",
    ],
)
def test_a_queue_is_shown_by_its_name_alone(queue: str) -> None:
    worker = make_worker(Recording(), queue, wait=20)
    leave_unanswered(worker)
    assert why_unhealthy(worker) == "no answer from mail for 90 s"


@pytest.mark.slow
def test_connections_that_say_nothing_do_not_keep_a_probe_out(server: ProbeServer) -> None:
    """A process has 1,024 file descriptors in most containers; these take twenty of them."""
    address = ("127.0.0.1", server.server_port)
    silent = [socket.create_connection(address, timeout=5) for _ in range(100)]
    try:
        assert get(server, "/") == (200, "ok\n")
        assert len(server._connections) <= 20
    finally:
        for each in silent:
            each.close()


def test_a_burst_of_connections_is_accepted(worker: Worker) -> None:
    """Before the server answers, they wait in the kernel, which drops what it has no room for."""
    server = ProbeServer(worker, "127.0.0.1", 0)
    with closing(server.socket), ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(
                socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=0.5)
            )


@pytest.mark.slow
def test_a_connection_that_says_nothing_is_closed(
    server: ProbeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health._ProbeHandler, "timeout", 0.1)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("error", "is_reported"), [(ConnectionResetError(), False), (RuntimeError(), True)]
)
def test_only_errors_of_the_worker_are_reported(
    server: ProbeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    is_reported: bool,
) -> None:
    def fail(worker: Worker) -> None:
        raise error

    monkeypatch.setattr("beanstalk_dispatch.consumers.poller.health.why_unhealthy", fail)
    with pytest.raises(http.client.RemoteDisconnected):
        get(server, "/")
    server.server_close()
    assert ("RuntimeError" in capsys.readouterr().err) is is_reported


def test_metrics_are_prometheus_text(server: ProbeServer, worker: Worker) -> None:
    worker.counters.running = 7
    status, text = get(server, "/metrics?x=1")
    assert status == 200
    assert "beanstalk_dispatch_tasks_running 7.0" in text
    assert "# TYPE beanstalk_dispatch_tasks_running gauge" in text


def test_without_the_library_the_answer_is_the_pip_line(
    server: ProbeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert get(server, "/metrics") == (501, MISSING_LIBRARY + "\n")


# --- the file ---


def test_the_file_is_touched_once_per_interval_while_healthy(tmp_path: Path) -> None:
    worker, file = make_worker(Recording()), tmp_path / "health"
    tick = touch_while_healthy(worker, file)
    tick()
    os.utime(file, (0, 0))
    tick()  # within the same second
    assert file.stat().st_mtime == 0


def test_the_file_is_not_touched_while_unhealthy(tmp_path: Path) -> None:
    worker, file = make_worker(Recording()), tmp_path / "health"
    touch_while_healthy(worker, file)()
    os.utime(file, (0, 0))
    touch_while_healthy(worker, file)()
    assert file.stat().st_mtime > 0
    os.utime(file, (0, 0))
    leave_unanswered(worker)
    touch_while_healthy(worker, file)()
    assert file.stat().st_mtime == 0
