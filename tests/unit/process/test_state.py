"""The state of a process after a fork: no lock, no thread and no memory of its parent."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from beanstalk_dispatch.process import state
from beanstalk_dispatch.process.state import FORKS
from tests.services import NO_COVERAGE, in_child
from tests.unit.test_structure import MODULES

LOCKS = type(threading.Lock()), type(threading.RLock())


def locks() -> dict[str, Any]:
    """The locks of all objects that modules of the package keep, by their names."""
    found: dict[str, Any] = {}
    for module in [name for name in sys.modules if name.startswith("beanstalk_dispatch")]:
        for piece in vars(sys.modules[module]).values():
            if type(piece).__module__.startswith("beanstalk_dispatch"):
                for name, value in getattr(piece, "__dict__", {}).items():
                    lock = getattr(value, "_lock", value)  # a Condition's
                    if isinstance(lock, LOCKS):
                        found[f"{type(piece).__name__}.{name}"] = lock
    return found


def test_a_child_has_no_lock_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in MODULES.items():
        if "state.declare(" in file.read_text():
            importlib.import_module(name)
    monkeypatch.setattr(state, "FORK_WAIT_SECONDS", 0.05)
    held = locks()
    assert {"_Forks.lock", "_WatchdogThread._lock", "_OpenQueues.lock", "Throttle._lock"} < {*held}
    reader, writer = os.pipe()
    for lock in held.values():
        lock.acquire()  # in the middle of the use of each
    try:
        child = os.fork()
        if not child:  # pragma: no cover - the child
            same = [name for name, lock in locks().items() if lock is held[name]]
            os.write(writer, " ".join(same).encode() or b"none")
            os._exit(0)
    finally:
        for lock in reversed(held.values()):
            lock.release()
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == "none"
    os.waitpid(child, 0)


def test_each_piece_is_forgotten_in_the_order_of_imports_whatever_another_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgotten: list[str] = []

    def fail() -> None:
        raise RuntimeError("one piece")

    with monkeypatch.context() as patch:
        for name in ("_in_child", "_in_tests"):
            patch.setattr(state, name, [])
        state.declare(lambda: forgotten.append("first"))
        state.declare(fail)
        state.declare(lambda: forgotten.append("child"), in_tests=False)
        state.declare(lambda: forgotten.append("test"), in_child=False)
        with pytest.raises(RuntimeError, match="one piece"):
            state.reset()
        assert forgotten == ["first", "test"]
        with pytest.raises(RuntimeError, match="one piece"):
            state._Forks().after_in_child()
        assert forgotten == ["first", "test", "first", "child"]


def test_forks_are_counted_in_the_child() -> None:
    before = FORKS.count
    in_child(lambda: FORKS.count == before + 1)
    assert FORKS.count == before


# --- forks -----------------------------------------------------------------------------------


def test_a_fork_waits_until_the_imports_have_ended() -> None:
    FORKS.lock.acquire()
    threading.Timer(0.2, FORKS.lock.release).start()
    started = time.monotonic()
    in_child(lambda: FORKS.lock.acquire(timeout=1))
    assert time.monotonic() - started >= 0.19
    assert not FORKS.lock.locked()


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "FORK_WAIT_SECONDS", 0.05)
    with FORKS.lock:
        in_child(lambda: FORKS.lock.acquire(timeout=1))
        assert FORKS.lock.locked()


SCRIPT = """
import os, sys
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["beanstalk_dispatch"], BEANSTALK_DISPATCH_WARM=True,
    BEANSTALK_DISPATCH_QUEUES="mail=https://sqs.eu-west-1.amazonaws.com/123456789012/mail",
    BEANSTALK_DISPATCH_SQS_KEY="key", BEANSTALK_DISPATCH_SQS_SECRET="a-secret-key",
    LOGGING={"version": 1, "handlers": {"stderr": {"class": "logging.StreamHandler"}},
             "root": {"handlers": ["stderr"], "level": "INFO"}},
)
django.setup()
for _ in range(3):  # the thread imports boto3 now, or logs that it has
    pid = os.fork()
    if not pid:
        from beanstalk_dispatch.client import warm

        warm()
        os._exit(0 if "boto3" in sys.modules else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.slow
def test_a_process_that_forks_while_it_warms_up_has_children_that_import_and_log() -> None:
    subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, timeout=30, env=os.environ | NO_COVERAGE
    )
