from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

import pytest

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.backoff import Backoff, BackoffTimes

TIMES = BackoffTimes()


def test_the_pause_grows_to_its_limit() -> None:
    backoff = Backoff("receive", "jobs", times=TIMES, longest=5)
    pauses = []
    for _ in range(6):
        backoff.failed(SendError("unreachable"))
        pauses.append(backoff.retry_at - backoff.failing_since)
    assert 0.5 <= pauses[0] <= 1.1
    assert 1 <= pauses[1] <= 2.1
    assert 2.5 <= pauses[-1] <= 5.1
    assert not backoff.is_over


def test_requests_that_were_open_together_fail_once() -> None:
    backoff = Backoff("receive", "jobs", times=TIMES)
    started = time.monotonic()
    for _ in range(4):
        backoff.failed(SendError("unreachable"), started=started)
    assert backoff.failures == 1
    assert backoff.retry_at - backoff.failing_since <= 1
    backoff.failed(SendError("unreachable"), started=time.monotonic())
    assert backoff.failures == 2


def test_the_pause_is_half_a_minute_at_most_unless_another_limit_is_given() -> None:
    backoff = Backoff("receive", "jobs", times=TIMES)
    for _ in range(20):
        backoff.failed(SendError("unreachable"))
    assert 15 <= backoff.retry_at - backoff.failing_since <= 30.1


def test_it_can_hurry_at_the_end() -> None:
    backoff = Backoff("receive", "jobs", times=TIMES)
    for _ in range(20):
        backoff.failed(SendError("unreachable"))
    backoff.hurry()
    assert backoff.is_over
    assert backoff.failures == 20
    backoff.failed(SendError("unreachable"))
    assert 0 < backoff.retry_at - time.monotonic() <= TIMES.first_retry


def test_failures_are_logged_at_once_and_then_at_intervals(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    backoff = Backoff("delete", "jobs", times=TIMES)
    for _ in range(3):
        backoff.failed("refused")
    backoff.succeeded()
    backoff.failed("again within the interval")
    backoff.succeeded()  # of a failure that was not logged
    assert caplog.text.count("delete failed queue=jobs failures=1 retry_in=") == 1
    assert caplog.text.count("delete recovered queue=jobs failures=3") == 1
    assert caplog.text.count("recovered") == 1


def test_a_known_error_is_logged_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    backoff = Backoff("delete", "jobs", times=replace(TIMES, failure_log_interval=0))
    for error in ("first", "second"):
        backoff.failed(SendError(error))
    assert "error=first" in caplog.text
    assert "error=second" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_unexpected_error_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backoff = Backoff("receive", "jobs", times=TIMES)
    backoff.failed(KeyError("surprise"))
    (record,) = caplog.records
    assert record.exc_info
    backoff.succeeded()
    assert (backoff.failures, backoff.is_over, backoff.failing_since) == (0, True, math.inf)
