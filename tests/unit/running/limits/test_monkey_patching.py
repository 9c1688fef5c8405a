from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from beanstalk_dispatch.running.limits import monkey_patching
from tests.conftest import Environment

GEVENT = "gevent.monkey"
EVENTLET = "eventlet.patcher"


def patch(monkeypatch: pytest.MonkeyPatch, name: str, *, patched: bool) -> None:
    module = SimpleNamespace(
        is_module_patched=lambda name: patched and name == "threading",
        is_monkey_patched=lambda name: patched and name == "thread",
    )
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(("name", "library"), [(GEVENT, "gevent"), (EVENTLET, "eventlet")])
def test_a_library_that_has_replaced_threads_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    assert monkey_patching.patched_by() == ""
    patch(monkeypatch, name, patched=False)
    assert monkey_patching.patched_by() == ""
    patch(monkeypatch, name, patched=True)
    assert monkey_patching.patched_by() == library


@pytest.mark.parametrize(
    ("worker", "patched", "lines"),
    [("True", True, 1), ("False", True, 0), ("True", False, 0), ("Ture", True, 0)],
)
def test_a_worker_says_once_that_no_time_limit_works(
    monkeypatch: pytest.MonkeyPatch,
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    worker: str,
    patched: bool,
    lines: int,
) -> None:
    env(WORKER=worker)
    patch(monkeypatch, GEVENT, patched=patched)
    monkey_patching.log_if_patched()
    assert len(caplog.records) == lines
    assert all("time_limits=no reason=gevent" in each.getMessage() for each in caplog.records)
