from __future__ import annotations

import os
import signal
import threading

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint import draining
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.left_behind import spoiled
from beanstalk_dispatch.running.left_behind import threads as left_threads
from tests.runs import noted


def judged() -> str:
    """The reason for which a delivery does not run."""
    draining.replace_if_spoiled()
    return draining.reason(get_config())


def test_a_gunicorn_worker_that_can_open_no_files_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *values: signals.append(values))
    monkeypatch.setattr(draining, "_process", draining._ServerProcess())
    monkeypatch.setattr(spoiled, "can_open_files", lambda: False)
    assert judged() == ""  # another server, which may not replace it
    draining._process.threads = 15
    assert judged() == "the process can open no more files"
    assert judged() == "the process can open no more files"
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert "reason=no-files: this process can open no more files" in caplog.text


def test_a_gunicorn_worker_in_which_tasks_have_left_too_many_threads_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *values: signals.append(values))
    monkeypatch.setattr(draining, "_process", draining._ServerProcess())
    monkeypatch.setattr(left_threads, "MAX_LEFT", 0)
    draining._process.threads = 15
    release = threading.Event()
    with noted(Message(function="leaky")):
        thread = threading.Thread(target=release.wait, args=(20,))
        thread.start()
    assert judged() == "tasks have left too many threads behind"
    release.set()
    thread.join()
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert "reason=threads threads=1 left_by='leaky 1'" in caplog.text
    fields = vars(caplog.records[-1])  # which loggers of JSON write
    assert (fields["threads"], fields["left_by"]) == (1, "leaky 1")
