"""The progress of a worker: a line at the bottom of a terminal, or one per minute in the log."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO

from beanstalk_dispatch.process import clock

from .worker import Tick, Worker

logger = logging.getLogger("beanstalk_dispatch.worker")

_CLEAR_LINE: Final = "\r\x1b[K"


class _ThroughputMeter:
    """A meter of the tasks that are done per second since its last call."""

    def __init__(self, worker: Worker) -> None:
        self._counters = worker.counters
        self.since, self._done = clock.monotonic(), worker.counters.done

    def per_second(self) -> float:
        now, done = clock.monotonic(), self._counters.done
        rate = (done - self._done) / max(now - self.since, 1e-3)
        self.since, self._done = now, done
        return rate


def log_progress(worker: Worker) -> Tick:
    """Return a tick that logs a line once a minute, if the figures have changed."""
    throughput = _ThroughputMeter(worker)
    logged = (0, 0, 0, 0)

    def tick() -> None:
        nonlocal logged
        if clock.monotonic() - throughput.since < worker.options.times.progress_interval:
            return
        counters, rate = worker.counters, throughput.per_second()
        figures = counters.done, counters.failed, counters.running, counters.waiting
        if figures != logged:
            logged = figures
            logger.info(
                "progress done=%d failed=%d running=%d waiting=%d per_second=%.1f", *figures, rate
            )

    return tick


class StatusLine:
    """The last line of a terminal, redrawn once a second. Log lines scroll past above it.

    While it is ``attached`` it takes the place of the terminal's stream in the logging handlers
    that write there.
    """

    def __init__(self, worker: Worker, stream: TextIO) -> None:
        self._worker, self._stream = worker, stream
        self._times = worker.options.times
        self._started_at, self._throughput = clock.monotonic(), _ThroughputMeter(worker)
        self._depths, self._line = "", ""
        self._asked_at = 0.0
        self._is_stale = False
        """True if the depths may have changed since they were asked for."""
        self._lock = threading.Lock()

    @contextmanager
    def attached(self) -> Iterator[StatusLine]:
        """Take the place of the terminal's stream in logging until the end of the block."""
        replaced = [
            (handler, handler.stream)
            for handler in _stream_handlers()
            if handler.stream is self._stream or _is_terminal(handler.stream)
        ]
        for handler, _ in replaced:
            handler.setStream(self)
        try:
            yield self
        finally:
            for handler, stream in replaced:
                handler.setStream(stream)
            with suppress(OSError):  # the terminal may have been closed
                self._write_and_flush("", "\n" if self._line else "")

    def write(self, lines: str) -> None:
        """Write whole lines above the status line. Logging handlers call it."""
        self._write_and_flush(_CLEAR_LINE + lines, self._line)

    def flush(self) -> None:
        """Flush the terminal. Logging handlers call it."""
        self._stream.flush()

    def tick(self) -> None:
        """Redraw the line if a second has passed."""
        if clock.monotonic() - self._throughput.since < self._times.display_interval:
            return
        counters, rate = self._worker.counters, self._throughput.per_second()
        self._is_stale |= bool(rate or counters.running)
        if self._is_stale and clock.monotonic() - self._asked_at >= self._times.depth_interval:
            self._ask_for_depths(is_last=not counters.running)
        line = (
            f"{clock.monotonic() - self._started_at:6.0f}s  running {counters.running}  "
            f"waiting {counters.waiting}  done {counters.done}  failed {counters.failed}  "
            f"{rate:.0f}/s{'  stopping' if self._worker.is_stopping() else self._paused_queues()}"
        )
        self._line = line[: shutil.get_terminal_size().columns - 1]
        self._write_and_flush(_CLEAR_LINE, self._line)

    def _paused_queues(self) -> str:
        """Return the names of the queues that are paused, and the depths."""
        paused = [queue.name for queue in self._worker.queues if queue.is_paused]
        return (f"  paused {', '.join(paused)}" if paused else "") + self._depths

    def _ask_for_depths(self, *, is_last: bool) -> None:
        """Ask SQS for the depths. ``is_last``: not again until a task has run, to save requests."""
        self._asked_at, self._is_stale = clock.monotonic(), not is_last
        depths = self._worker.depths()
        self._depths = "".join(f"  {name}: {depth} left" for name, depth in depths)

    def _write_and_flush(self, *parts: str) -> None:
        with self._lock:
            self._stream.write("".join(parts))
            self._stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    """Return True if a handler writes to a terminal.

    Its stream may be closed, or only have ``write``.
    """
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _stream_handlers() -> Iterable[logging.StreamHandler[Any]]:
    """Yield the stream handlers of all loggers, each once."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    handlers = {
        handler
        for each in loggers
        if isinstance(each, logging.Logger)
        for handler in each.handlers
        if isinstance(handler, logging.StreamHandler)
    }
    return list(handlers)
