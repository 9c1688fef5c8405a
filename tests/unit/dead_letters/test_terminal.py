from __future__ import annotations

import io
import os
import signal
import sys
import threading

import pytest

from beanstalk_dispatch.dead_letters.sweep import SweepReport
from beanstalk_dispatch.dead_letters.terminal import ProgressLine, stoppable, table
from beanstalk_dispatch.logging.log_lines import duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_columns_of_a_table_are_as_wide_as_their_cells() -> None:
    assert list(table(["A", "B"], [["long\n", "1"], ["x", ""]])) == [
        "A       B", r"long\n  1", "x",
    ]  # fmt: skip


def test_a_table_is_not_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "5")
    assert list(table(["NAME"], [["123456789"]])) == ["NAME", "12345"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (3700, "1h 1m"), (3605, "1h 5s"),
     (345_600, "4d"), (90_061, "1d 1h")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


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
