from __future__ import annotations

import io
import logging
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.worker import monitoring
from beanstalk_dispatch.worker.monitoring import HealthServer, StatusLine, problem, progress, touch
from beanstalk_dispatch.worker.worker import Options, Verdict, Worker


@pytest.fixture
def worker() -> Worker:
    return Worker(["jobs"], lambda received: Verdict(delete=True), Options(threads=2))


@pytest.fixture
def server(worker: Worker) -> Iterator[HealthServer]:
    started = HealthServer(worker, host="127.0.0.1", port=0)
    yield started
    started.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{server.port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def grow_old(worker: Worker) -> None:
    worker.sources[0].asking_since = time.monotonic() - 90


def test_a_worker_is_well_while_its_polls_come_back(server: HealthServer) -> None:
    assert get(server, "/") == (200, "ok\n")
    assert get(server, "/health") == (200, "ok\n")


def test_it_is_not_when_they_do_not(server: HealthServer, worker: Worker) -> None:
    grow_old(worker)
    assert get(server, "/") == (503, "no answer from jobs for 90 s\n")


def test_a_queue_that_is_not_asked_owes_no_answer(worker: Worker) -> None:
    worker.sources[0].last_poll = time.monotonic() - 900
    assert problem(worker) is None


def test_a_worker_that_stops_asks_no_more(worker: Worker) -> None:
    grow_old(worker)
    worker.stop()
    assert problem(worker) is None


def test_a_healthy_queue_does_not_hide_another() -> None:
    worker = Worker(["one", "two"], lambda received: Verdict(delete=True), Options())
    worker.sources[1].asking_since = time.monotonic() - 90
    worker.sources[0].asking_since = time.monotonic()
    assert problem(worker) == "no answer from two for 90 s"


def test_it_is_not_when_nothing_can_be_deleted(worker: Worker) -> None:
    worker.sources[0].holdings.deleting.failing_since = time.monotonic() - 90
    assert problem(worker) == "no answer from jobs for 90 s"


def test_it_is_not_with_a_stuck_task(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "overdue", lambda: [object()])
    assert problem(worker) == "1 stuck"


def test_a_probe_may_ask_for_the_head_alone(server: HealthServer) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as response:
        assert (response.status, response.read()) == (200, b"")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_without_a_host_it_listens_on_both_protocols(worker: Worker, host: str) -> None:
    server = HealthServer(worker, port=0)
    try:
        with urllib.request.urlopen(f"http://{host}:{server.port}/", timeout=5) as response:
            assert response.read() == b"ok\n"
    finally:
        server.close()


def test_metrics_are_prometheus_text(server: HealthServer, worker: Worker) -> None:
    worker.counters.done = 7
    status, text = get(server, "/metrics?x=1")
    assert status == 200
    assert "beanstalk_dispatch_tasks_done_total 7.0" in text
    assert "# TYPE beanstalk_dispatch_tasks_running gauge" in text


def test_without_the_library_the_answer_is_the_pip_line(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    status, text = get(server, "/metrics")
    assert (status, text) == (501, monitoring.MISSING + "\n")


def test_the_file_is_touched_while_well(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "health"
    tick = touch(worker, file)
    tick()
    os.utime(file, (0, 0))
    tick()  # within the same second
    assert file.stat().st_mtime == 0
    monkeypatch.setattr(monitoring, "_EVERY", 0)
    tick()
    assert file.stat().st_mtime > 0
    os.utime(file, (0, 0))
    grow_old(worker)
    tick()
    assert file.stat().st_mtime == 0


def test_the_status_line_is_redrawn(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    line = StatusLine(worker, stream)
    line.tick()
    assert stream.getvalue() == ""
    monkeypatch.setattr(monitoring, "_EVERY", 0)
    monkeypatch.setenv("COLUMNS", "200")
    line.tick()
    assert stream.getvalue().endswith("done 0  failed 0  0/s")
    worker.counters.done = 5
    depths: list[Any] = [("jobs", 12)]
    monkeypatch.setattr(worker, "depths", lambda: depths)
    line.tick()
    assert "done 5" in stream.getvalue()
    assert stream.getvalue().endswith("jobs: 12 left")
    depths[0] = ("jobs", 11)
    worker.counters.running = 1
    line.tick()  # not asked again so soon
    assert stream.getvalue().endswith("jobs: 12 left")
    monkeypatch.setattr(monitoring, "_DEPTHS_EVERY", 0)
    worker.counters.running = 0
    line.tick()  # a last look
    assert stream.getvalue().endswith("jobs: 11 left")
    depths[0] = ("jobs", 10)
    line.tick()  # and none while nothing happens
    assert stream.getvalue().endswith("jobs: 11 left")
    worker.stop()
    line.tick()
    assert stream.getvalue().endswith("stopping")
    monkeypatch.setenv("COLUMNS", "20")
    line.tick()
    assert len(stream.getvalue().rpartition("\x1b[K")[2]) == 19
    assert "\n" not in stream.getvalue()


def test_log_lines_scroll_past_above_the_status_line(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "_EVERY", 0)
    stream, other = io.StringIO(), io.StringIO()
    log = logging.getLogger("tests.status_line")
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(other)]
    for handler in handlers:
        log.addHandler(handler)
    line = StatusLine(worker, stream)
    line.attach()
    log.error("before")
    line.tick()
    log.error("after")
    line.close()
    log.error("at the end")
    assert [handler.stream for handler in handlers] == [stream, other]
    for handler in handlers:
        log.removeHandler(handler)
    assert other.getvalue() == "before\nafter\nat the end\n"
    drawn = stream.getvalue().split("\r\x1b[K")
    assert drawn[1] == "before\n"
    assert drawn[2].endswith("0/s")
    assert drawn[3] == f"after\n{drawn[2]}\nat the end\n"


def test_what_is_logged_to_another_stream_of_the_terminal_scrolls_past_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, stdout = io.StringIO(), io.StringIO()
    monkeypatch.setattr(stdout, "isatty", lambda: True)
    handler = logging.StreamHandler(stdout)
    log = logging.getLogger("tests.status_line")
    log.addHandler(handler)
    line = StatusLine(worker, stream)
    line.attach()
    log.error("a line")
    line.close()
    log.removeHandler(handler)
    assert (stream.getvalue(), stdout.getvalue()) == ("\r\x1b[Ka line\n", "")
    assert handler.stream is stdout


def test_without_a_terminal_progress_is_logged(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tick = progress(worker)
    worker.counters.done = 3
    tick()
    assert caplog.text == ""
    monkeypatch.setattr(monitoring, "_PROGRESS_EVERY", 0)
    tick()
    tick()  # nothing has happened since
    assert caplog.text.count("progress done=3 failed=0 running=0 waiting=0 per_second=") == 1
