from __future__ import annotations

from types import SimpleNamespace

import pytest

from beanstalk_dispatch.logging import throttle as refusals_module
from beanstalk_dispatch.logging.throttle import Throttle


def test_a_minutes_refusals_are_counted_by_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(refusals_module, "time", SimpleNamespace(monotonic=lambda: now))
    refusals = Throttle()
    assert [refusals.repeated("a") for _ in range(3)] == ["", None, None]
    assert refusals.repeated("b") == ""
    now = 60.0
    assert refusals.repeated("a") == " repeated=2"
    assert refusals.repeated("b") == ""
    refusals.forget()
    assert refusals.repeated("a") == ""
