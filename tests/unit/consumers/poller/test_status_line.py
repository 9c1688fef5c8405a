from __future__ import annotations

import errno
import io
import logging
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.options import WorkerTimes
from beanstalk_dispatch.consumers.poller.status_line import StatusLine, log_progress
from beanstalk_dispatch.consumers.poller.worker import Worker
from tests.workers import Recording, make_worker

AT_ONCE = WorkerTimes(display_interval=0, depth_interval=0, progress_interval=0)


@pytest.fixture
def worker() -> Worker:
    return make_worker(Recording(), times=AT_ONCE)


def drawn(stream: io.StringIO) -> str:
    """What the terminal's last line shows."""
    return stream.getvalue().rpartition("\x1b[K")[2]


def test_the_status_line_shows_the_figures(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    line = StatusLine(worker, stream)
    monkeypatch.setenv("COLUMNS", "200")
    line.tick()
    assert drawn(stream).endswith("running 0  waiting 0  done 0  failed 0  0/s")
    monkeypatch.setattr(worker, "depths", lambda: [("jobs", 12)])
    worker.counters.done = 5
    line.tick()
    assert "done 5" in drawn(stream)
    assert drawn(stream).endswith("jobs: 12 left")
    worker.queues[0].is_paused = True
    line.tick()
    assert drawn(stream).endswith("/s  paused jobs  jobs: 12 left")
    worker.stop()
    line.tick()
    assert drawn(stream).endswith("stopping")
    monkeypatch.setenv("COLUMNS", "20")
    line.tick()
    assert len(drawn(stream)) == 19
    assert "\n" not in stream.getvalue()


def test_the_status_line_is_redrawn_once_per_interval() -> None:
    stream = io.StringIO()
    line = StatusLine(make_worker(Recording()), stream)
    line.tick()
    assert stream.getvalue() == ""


@pytest.mark.parametrize("depth_interval", [0, 5])
def test_depths_are_asked_for_while_tasks_run_and_once_more(
    monkeypatch: pytest.MonkeyPatch, depth_interval: float
) -> None:
    """Each is a request to SQS."""
    times = WorkerTimes(display_interval=0, depth_interval=depth_interval)
    worker, asked = make_worker(Recording(), times=times), 0

    def depths() -> list[Any]:
        nonlocal asked
        asked += 1
        return []

    monkeypatch.setattr(worker, "depths", depths)
    line = StatusLine(worker, io.StringIO())
    line.tick()
    assert asked == 0  # nothing has run
    worker.counters.running = 1
    line.tick()
    line.tick()
    assert asked == (2 if depth_interval == 0 else 1)
    worker.counters.running = 0
    line.tick()
    line.tick()
    assert asked == (3 if depth_interval == 0 else 1)


def test_log_lines_scroll_past_above_the_status_line(worker: Worker) -> None:
    stream, other = io.StringIO(), io.StringIO()
    log = logging.getLogger("tests.status_line")
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(other)]
    for handler in handlers:
        log.addHandler(handler)
    with StatusLine(worker, stream).attached() as line:
        log.error("before")
        line.tick()
        log.error("after")
    log.error("at the end")
    assert [handler.stream for handler in handlers] == [stream, other]
    for handler in handlers:
        log.removeHandler(handler)
    assert other.getvalue() == "before\nafter\nat the end\n"
    lines = stream.getvalue().split("\r\x1b[K")
    assert lines[1] == "before\n"
    assert lines[2].endswith("0/s")
    assert lines[3] == f"after\n{lines[2]}\nat the end\n"


def test_lines_logged_to_another_stream_of_the_terminal_scroll_past_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, stdout = io.StringIO(), io.StringIO()
    monkeypatch.setattr(stdout, "isatty", lambda: True)
    handler = logging.StreamHandler(stdout)
    log = logging.getLogger("tests.status_line")
    log.addHandler(handler)
    with StatusLine(worker, stream).attached():
        log.error("a line")
    log.removeHandler(handler)
    assert (stream.getvalue(), stdout.getvalue()) == ("\r\x1b[Ka line\n", "")
    assert handler.stream is stdout


class Closed(io.StringIO):
    """A terminal that is closed meanwhile."""

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_is_closed_ends_no_stop(worker: Worker) -> None:
    with StatusLine(worker, Closed()).attached():
        pass


class WriteOnly:
    def write(self, lines: str) -> None:
        """Do what is least needed of a handler's stream."""


def test_streams_that_are_closed_or_write_only_stay_as_they_are(worker: Worker) -> None:
    closed = io.StringIO()
    closed.close()
    streams: list[Any] = [closed, WriteOnly()]
    handlers = [logging.StreamHandler(stream) for stream in streams]
    log = logging.getLogger("tests.status_line")
    log.handlers += handlers
    with StatusLine(worker, io.StringIO()).attached():
        kept = [handler.stream for handler in handlers]
    log.handlers.clear()
    assert kept == streams


def test_progress_is_logged_when_the_figures_have_changed(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tick = log_progress(worker)
    worker.counters.done = 3
    tick()
    tick()  # nothing has happened since
    assert caplog.text.count("progress done=3 failed=0 running=0 waiting=0 per_second=") == 1


def test_progress_is_logged_once_per_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker = make_worker(Recording())
    tick = log_progress(worker)
    worker.counters.done = 3
    tick()
    assert caplog.text == ""
