"""What a running Worker shows: a health probe over HTTP or in a file, metrics, a status line."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TextIO

from . import timeouts
from .exceptions import ConfigurationError
from .worker import Worker

MISSING = "/metrics needs prometheus_client: pip install 'django-beanstalk-dispatch[metrics]'"
_PATIENCE: Final = 60.0  # seconds beyond a long poll without one that came back
_EVERY: Final = 1.0  # seconds between two touches or redraws


def problem(worker: Worker) -> str | None:
    """Why the worker is not well; None if it is.

    It is not while a task is stuck, or when no receive has come back for a minute more than a
    long poll takes though a thread is free to poll.
    """
    if stuck := timeouts.stuck():
        return f"{len(stuck)} stuck"
    counters = worker.counters
    age = time.monotonic() - counters.last_poll
    if counters.running < worker.options.threads and age > worker.options.wait + _PATIENCE:
        return f"no answer from SQS for {age:.0f} s"
    return None


def metrics(worker: Worker) -> list[tuple[str, str, str, float]]:
    """Name, type, meaning and value of each figure."""
    counters = worker.counters
    return [
        ("tasks_done", "counter", "Messages deleted after their task", counters.done),
        ("tasks_failed", "counter", "Messages left to be delivered again", counters.failed),
        ("tasks_running", "gauge", "Tasks running now", counters.running),
        ("tasks_waiting", "gauge", "Messages received and not started", counters.waiting),
        ("tasks_stuck", "gauge", "Tasks that outlived their limit", len(timeouts.stuck())),
        ("last_poll_age_seconds", "gauge", "Since a receive last came back",
         time.monotonic() - counters.last_poll),
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


class HealthServer:
    """Answers 200 or 503 at every path, and Prometheus text at ``/metrics``."""

    def __init__(self, worker: Worker, *, host: str = "", port: int) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(worker, self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """A probe every few seconds is no news."""

        self._server = http.server.ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
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


def status_line(worker: Worker, stream: TextIO) -> Callable[[], None]:
    """A tick that redraws one line on a terminal, once a second."""
    began = last = time.monotonic()
    done = 0

    def tick() -> None:
        nonlocal last, done
        now, counters = time.monotonic(), worker.counters
        if now - last < _EVERY:
            return
        rate = (counters.done - done) / (now - last)
        last, done = now, counters.done
        stream.write(
            f"\r\x1b[K{now - began:6.0f}s  running {counters.running}  waiting {counters.waiting}  "
            f"done {counters.done}  failed {counters.failed}  {rate:.0f}/s"
        )
        depths = worker.depths() if rate else []
        stream.write("".join(f"  {name}: {depth} left" for name, depth in depths))
        stream.flush()

    return tick
