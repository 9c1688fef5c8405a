"""What a running Worker shows: a health probe over HTTP or in a file, metrics, a status line."""

from __future__ import annotations

import http.server
import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TextIO

from beanstalk_dispatch.exceptions import ConfigurationError

from .worker import Worker

logger = logging.getLogger("beanstalk_dispatch.worker")

MISSING = "/metrics needs prometheus_client: pip install 'django-beanstalk-dispatch[metrics]'"
_PATIENCE: Final = 60.0  # seconds beyond a long poll without one that came back
_EVERY: Final = 1.0  # seconds between two touches or redraws
_DEPTHS_EVERY: Final = 5.0  # seconds between two looks at the queues' depths
_PROGRESS_EVERY: Final = 60.0  # seconds between two log lines
_CLEAR: Final = "\r\x1b[K"


def problem(worker: Worker) -> str | None:
    """Why the worker is not well; None if it is.

    It is not while a task is stuck, or when one of its queues has been asked in vain for a
    minute longer than a long poll takes. A worker that is stopping asks no more.
    """
    if stuck := worker.overdue():
        return f"{len(stuck)} stuck"
    if worker.is_stopping():
        return None
    for source in worker.sources:
        since = min(source.asking_since, source.holdings.deleting.failing_since)
        age = time.monotonic() - since
        if age > worker.options.wait + _PATIENCE:
            return f"no answer from {source.name} for {age:.0f} s"
    return None


def metrics(worker: Worker) -> list[tuple[str, str, str, float]]:
    """Name, type, meaning and value of each figure."""
    counters = worker.counters
    last_poll = min(source.last_poll for source in worker.sources)
    return [
        ("tasks_done", "counter", "Messages deleted after their task", counters.done),
        ("tasks_failed", "counter", "Messages left to be delivered again", counters.failed),
        ("tasks_running", "gauge", "Tasks running now", counters.running),
        ("tasks_waiting", "gauge", "Messages received and not started", counters.waiting),
        ("tasks_stuck", "gauge", "Tasks that outlived their limit", len(worker.overdue())),
        ("last_poll_age_seconds", "gauge", "Since a receive last came back, in the worst queue",
         time.monotonic() - last_poll),
    ]  # fmt: skip


class _Collector:
    """The figures, as prometheus_client asks for them."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for name, kind, meaning, value in metrics(self._worker):
            yield families[kind](f"beanstalk_dispatch_{name}", meaning, value=value)


def _metrics_text(worker: Worker) -> bytes:
    """Raises ConfigurationError without prometheus_client."""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as exc:
        raise ConfigurationError(MISSING) from exc
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(worker))
    return generate_latest(registry)


class _Server(http.server.ThreadingHTTPServer):
    """Listens on IPv6 where that is meant, and then on IPv4 too."""

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: Any) -> None:
        if ":" in host or (not host and socket.has_dualstack_ipv6()):
            self.address_family = socket.AF_INET6
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class HealthServer:
    """Answers 200 or 503 at every path, and Prometheus text at ``/metrics``. Raises OSError."""

    def __init__(self, worker: Worker, *, host: str = "", port: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(worker, self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """A probe every few seconds is no news."""

        self._server = _Server(host, port, Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(worker: Worker, path: str) -> tuple[int, bytes]:
    if path.partition("?")[0] == "/metrics":
        try:
            return 200, _metrics_text(worker)
        except ConfigurationError as exc:
            return 501, f"{exc}\n".encode()
    found = problem(worker)
    return (503, f"{found}\n".encode()) if found else (200, b"ok\n")


def touch(worker: Worker, path: Path) -> Callable[[], None]:
    """A tick that gives ``path`` the current time, once a second, while the worker is well."""
    last = 0.0

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY and problem(worker) is None:
            last = time.monotonic()
            path.touch()

    return tick


class _Pace:
    """Tasks done per second since the last look."""

    def __init__(self, worker: Worker) -> None:
        self._counters = worker.counters
        self.since, self._done = time.monotonic(), worker.counters.done

    def per_second(self) -> float:
        now, done = time.monotonic(), self._counters.done
        rate = (done - self._done) / max(now - self.since, 1e-3)
        self.since, self._done = now, done
        return rate


def progress(worker: Worker) -> Callable[[], None]:
    """A tick that logs a line once a minute, if anything has happened in it."""
    pace = _Pace(worker)
    last = (0, 0, 0, 0)

    def tick() -> None:
        nonlocal last
        if time.monotonic() - pace.since < _PROGRESS_EVERY:
            return
        counters, rate = worker.counters, pace.per_second()
        figures = counters.done, counters.failed, counters.running, counters.waiting
        if figures != last:
            last = figures
            logger.info(
                "progress done=%d failed=%d running=%d waiting=%d per_second=%.1f", *figures, rate
            )

    return tick


class StatusLine:
    """The last line of a terminal, redrawn once a second. Log lines scroll past above it.

    It stands in for the terminal's stream in the logging handlers that write there, from
    ``attach`` to ``close``.
    """

    def __init__(self, worker: Worker, stream: TextIO) -> None:
        self._worker, self._stream = worker, stream
        self._began, self._pace = time.monotonic(), _Pace(worker)
        self._depths, self._line = "", ""
        self._looked_at, self._is_stale = 0.0, False
        self._lock = threading.Lock()
        self._handlers: list[tuple[logging.StreamHandler[Any], TextIO]] = []

    def attach(self) -> None:
        for handler in _stream_handlers():
            stream = handler.stream
            if stream is self._stream or stream.isatty():
                self._handlers.append((handler, stream))
                handler.setStream(self)

    def close(self) -> None:
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._draw("", "\n" if self._line else "")

    def write(self, text: str) -> None:
        """What a logging handler writes; whole lines."""
        self._draw(_CLEAR + text, self._line)

    def flush(self) -> None:
        self._stream.flush()

    def tick(self) -> None:
        if time.monotonic() - self._pace.since < _EVERY:
            return
        counters, rate = self._worker.counters, self._pace.per_second()
        self._is_stale |= bool(rate or counters.running)
        if self._is_stale and time.monotonic() - self._looked_at >= _DEPTHS_EVERY:
            self._look(is_last=not counters.running)
        line = (
            f"{time.monotonic() - self._began:6.0f}s  running {counters.running}  "
            f"waiting {counters.waiting}  done {counters.done}  failed {counters.failed}  "
            f"{rate:.0f}/s{'  stopping' if self._worker.is_stopping() else self._depths}"
        )
        self._line = line[: shutil.get_terminal_size().columns - 1]
        self._draw(_CLEAR, self._line)

    def _look(self, *, is_last: bool) -> None:
        """Each look is a request, so an idle queue's depth is looked at once."""
        self._looked_at, self._is_stale = time.monotonic(), not is_last
        found = self._worker.depths()
        self._depths = "".join(f"  {name}: {depth} left" for name, depth in found)

    def _draw(self, *parts: str) -> None:
        with self._lock:
            self._stream.write("".join(parts))
            self._stream.flush()


def _stream_handlers() -> Iterable[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    found = {
        handler
        for each in loggers
        if isinstance(each, logging.Logger)
        for handler in each.handlers
        if isinstance(handler, logging.StreamHandler)
    }
    return list(found)
