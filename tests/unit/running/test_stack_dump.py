from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from beanstalk_dispatch.running import stack_dump
from beanstalk_dispatch.running.stack_dump import StackDump


def dumped(dump: StackDump, capfd: pytest.CaptureFixture[str]) -> bool:
    dump.postpone(0.05)
    time.sleep(0.2)
    return "most recent call first" in capfd.readouterr().err


@pytest.mark.slow
def test_the_stacks_are_written_when_nobody_puts_it_off(capfd: pytest.CaptureFixture[str]) -> None:
    dump = StackDump()
    assert dumped(dump, capfd)
    assert dumped(dump, capfd)


def test_what_is_put_off_or_cancelled_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    dump = StackDump()
    dump.cancel()
    for _ in range(5):
        dump.postpone(20)
    dump.postpone(0.05)
    dump.cancel()
    time.sleep(0.2)
    assert "most recent call first" not in capfd.readouterr().err


@pytest.mark.slow
def test_the_timer_does_not_end_a_process_whose_exit_takes_long() -> None:
    """faulthandler's handler goes before the modules do, and the signal's default is to kill."""
    code = """
import time
from beanstalk_dispatch.running.stack_dump import StackDump

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(1)

slow, dump = Slow(), StackDump()
slow.itself = slow
dump.postpone(0.5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


def no_such_function() -> Any:
    return SimpleNamespace()


def no_timer_left() -> Any:
    return SimpleNamespace(timer_create=lambda *args: -1, timer_settime=None, timer_delete=None)


@pytest.mark.parametrize("library", [no_such_function, no_timer_left])
def test_without_a_timer_nothing_is_written(
    library: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stack_dump, "_load_libc", library)
    assert not dumped(StackDump(), capfd)


def test_a_signal_that_has_a_handler_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stack_dump, "_SIGNALS_BELOW_LAST", 8)
    number = signal.SIGRTMAX - 8
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        assert not dumped(StackDump(), capfd)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, previous)
