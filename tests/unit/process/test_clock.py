"""A task that stops the clocks, and does not start them again, stops nothing of the package."""

from __future__ import annotations

import pytest

from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.limits.time_limit import time_limit
from tests.workers import messages


@pytest.fixture(autouse=True)
def _stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 0.0)


def test_the_clock_goes_on() -> None:
    before = clock.monotonic()
    assert clock.monotonic() > before > 0


def test_a_time_limit_strikes() -> None:
    with pytest.raises(TaskTimeout), time_limit(0.05):
        while True:
            sum(range(50))


def test_a_message_becomes_visible() -> None:
    (received,) = messages(1)
    received.expires = clock.monotonic() - 1
    assert not received.is_hidden
