from __future__ import annotations

import os
import signal

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.endpoint import draining


def test_a_gunicorn_worker_that_can_open_no_files_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *values: signals.append(values))
    monkeypatch.setattr(draining, "_process", draining._ServerProcess())
    monkeypatch.setattr(draining, "can_open_files", lambda: False)
    assert draining.reason(get_config()) == ""  # another server, which may not replace it
    draining._process.threads = 15
    assert draining.reason(get_config()) == "the process can open no more files"
    assert draining.reason(get_config()) == "the process can open no more files"
    assert signals == [(os.getpid(), signal.SIGTERM)]
    assert "reason=no-files: this process can open no more files" in caplog.text
