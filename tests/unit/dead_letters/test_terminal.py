from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from beanstalk_dispatch.dead_letters.sweep import SweepReport
from beanstalk_dispatch.dead_letters.terminal import ProgressLine, stoppable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    line = ProgressLine(terminal, "redriven")
    line.draw(SweepReport(about=100, looked_at=50, done=7, failed=2, waiting_for="an error"))
    line.draw(SweepReport(done=8))  # less than a tenth of a second later
    line.close()
    assert terminal.getvalue() == (
        f"\r\x1b[K[{'#' * 12}{' ' * 12}] redriven 7, looked at 50 of about 100, 2 stay, "
        "waiting: an error\r\x1b[K"
    )


def test_the_progress_of_sqs_is_what_it_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal = Terminal()
    ProgressLine(terminal, "redriven").draw(SweepReport(about=1000, done=500, by_sqs=True))
    assert terminal.getvalue().endswith("] redriven 500 of about 1,000")


def test_without_a_terminal_nothing_is_shown() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream, "redriven")
    line.draw(SweepReport())
    line.close()
    assert stream.getvalue() == ""


def test_the_first_signal_asks_for_the_end_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_thread_has_no_signals() -> None:
    asked = []

    def run() -> None:
        with stoppable() as stop:
            asked.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert asked == [False]
