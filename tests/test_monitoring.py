from __future__ import annotations

import io
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch import monitoring, timeouts
from beanstalk_dispatch.monitoring import HealthServer, problem, status_line, touch
from beanstalk_dispatch.worker import Options, Verdict, Worker

from .conftest import Environment


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
    worker.counters.last_poll = time.monotonic() - 90


def test_a_worker_is_well_while_its_polls_come_back(server: HealthServer) -> None:
    assert get(server, "/") == (200, "ok\n")
    assert get(server, "/health") == (200, "ok\n")


def test_it_is_not_when_they_do_not(server: HealthServer, worker: Worker) -> None:
    grow_old(worker)
    assert get(server, "/") == (503, "no answer from SQS for 90 s\n")


def test_busy_threads_need_no_poll(worker: Worker) -> None:
    grow_old(worker)
    worker.counters.running = 2
    assert problem(worker) is None


def test_it_is_not_with_a_stuck_task(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "stuck", lambda: [object()])
    assert problem(worker) == "1 stuck"


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


def test_the_status_line_is_redrawn(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, sqs_env: Environment
) -> None:
    stream = io.StringIO()
    tick = status_line(worker, stream)
    tick()
    assert stream.getvalue() == ""
    monkeypatch.setattr(monitoring, "_EVERY", 0)
    tick()
    assert stream.getvalue().endswith("done 0  failed 0  0/s")
    worker.counters.done = 5
    depths: list[Any] = [("jobs", 12)]
    monkeypatch.setattr(worker, "depths", lambda: depths)
    tick()
    assert "done 5" in stream.getvalue()
    assert stream.getvalue().endswith("jobs: 12 left")
    assert "\n" not in stream.getvalue()
