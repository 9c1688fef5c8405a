"""The progress line of a command on a terminal, and the end that its user asks for."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, TextIO

from .sweep import SweepReport

_CLEAR_LINE: Final = "\r\x1b[K"
_BAR_WIDTH: Final = 24
_REDRAW_SECONDS: Final = 0.1


class ProgressLine:
    """The last line of a terminal during a run. It shows nothing where there is no terminal."""

    def __init__(self, stream: TextIO, verb: str) -> None:
        self._stream, self._verb = stream, verb
        self._is_shown = stream.isatty()
        self._drawn_at = 0.0

    def draw(self, report: SweepReport) -> None:
        """Draw the line, at most ten times a second."""
        now = time.monotonic()
        if self._is_shown and now - self._drawn_at >= _REDRAW_SECONDS:
            self._drawn_at = now
            width = shutil.get_terminal_size().columns - 1
            self._write_to_stream(_CLEAR_LINE + self._progress_line(report)[:width])

    def close(self) -> None:
        """Remove the line."""
        if self._drawn_at:
            self._write_to_stream(_CLEAR_LINE)

    def _progress_line(self, report: SweepReport) -> str:
        count = report.done if report.by_sqs else report.looked_at
        about = max(report.about or count, count, 1)
        filled = _BAR_WIDTH * count // about
        line = f"[{'#' * filled}{' ' * (_BAR_WIDTH - filled)}] {self._verb} {report.done:,}"
        if not report.by_sqs:
            line += f", looked at {report.looked_at:,}"
        line += f" of about {about:,}"
        line += f", {report.failed:,} stay" if report.failed else ""
        return line + (f", waiting: {report.waiting_for}" if report.waiting_for else "")

    def _write_to_stream(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()


class Stop:
    """The user's wish to end a run: true once it is expressed."""

    def __init__(self) -> None:
        self.is_asked = False

    def __bool__(self) -> bool:
        return self.is_asked

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGINT and SIGTERM: the first asks for the end, the second interrupts."""
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM ask for the end, instead of breaking off a request to SQS.

    SQS hides the messages that an interrupted receive would have brought. Outside of the main
    thread, where Python has no signals, nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
