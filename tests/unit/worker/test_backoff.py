from __future__ import annotations

import logging
import math

import pytest

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.worker import backoff
from beanstalk_dispatch.worker.backoff import Backoff


def test_the_pause_grows_to_its_limit() -> None:
    trouble = Backoff("poll", "jobs", longest=5)
    pauses = []
    for _ in range(6):
        trouble.failed(SendError("away"))
        pauses.append(trouble.retry_at - trouble.failing_since)
    assert 0.5 <= pauses[0] <= 1.1
    assert 1 <= pauses[1] <= 2.1
    assert 2.5 <= pauses[-1] <= 5.1
    assert not trouble.is_over


def test_it_is_logged_at_once_and_then_at_intervals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trouble = Backoff("delete", "jobs")
    for _ in range(3):
        trouble.failed("refused")
    trouble.worked()
    trouble.failed("again, so soon")
    trouble.worked()  # which nobody was told of
    assert caplog.text.count("delete queue=jobs failures=1") == 1
    assert caplog.text.count("recovered") == 1
    monkeypatch.setattr(backoff, "_LOG_EVERY", 0)
    trouble.failed(SendError("later"))
    assert "error=later" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_error_nobody_thought_of_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble = Backoff("poll", "jobs")
    trouble.failed(KeyError("surprise"))
    (record,) = caplog.records
    assert record.exc_info
    trouble.worked()
    assert (trouble.failures, trouble.is_over, trouble.failing_since) == (0, True, math.inf)
