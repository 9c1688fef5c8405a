"""The findings on a worker instance of Elastic Beanstalk: its daemon, its nginx, its log."""

from __future__ import annotations

import http.client
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.consumers.endpoint.sqsd import MEANINGS, SqsdOptions
from beanstalk_dispatch.deploying.dispatcher_path import (
    PATH,
    dispatcher_path,
    leads_to_the_dispatcher,
)
from beanstalk_dispatch.deploying.ladder import Ladder
from beanstalk_dispatch.deploying.listed_tasks import longest_time_limit
from beanstalk_dispatch.exceptions import ConfigurationError

from . import memory_doctor
from .findings import ok, problem
from .web_boot import get, is_of_the_dispatcher

DEFAULT_PROXY_READ_TIMEOUT: Final = 60.0
"""https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout"""

_LOG_LINES: Final = 500
_OPTION: Final = re.compile(r"^(\w+):\s*['\"]?(.*?)['\"]?\s*$", re.MULTILINE)
_READ_TIMEOUT: Final = re.compile(r"^\s*proxy_read_timeout\s+([^;]+);", re.MULTILINE)
_NGINX_TIME: Final = re.compile(r"(\d+)(ms|[smhd]?)\s*")
_NGINX_UNITS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FAILED: Final = re.compile(r"http-err: \S+ \(\d+\) (\d{3}) ")
_SENT: Final = "message: sent to"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a worker instance has its things, on Amazon Linux 2023."""

    daemon_options: Path = Path("/etc/aws-sqsd.d/default.yaml")
    daemon_log: Path = Path("/var/log/aws-sqsd/default.log")
    nginx: Path = Path("/etc/nginx")
    port: int = 80
    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")


def examine(machine: Machine | None = None) -> Iterator[CheckMessage]:
    """Yield the findings that only the machine itself can show."""
    machine = machine or Machine()
    try:
        options = dict(_OPTION.findall(machine.daemon_options.read_text()))
    except FileNotFoundError as exc:
        yield _unreadable_file("daemon", machine.daemon_options, exc)
        return
    except OSError as exc:
        yield _unreadable_file("daemon", machine.daemon_options, exc)
        options = {}
    path = options.get("http_path") or "/"
    if options:
        yield from _examine_daemon_options(options, path)
        yield from own_queue("daemon", options.get("queue_url", ""))
    timeout = _proxy_read_timeout(machine.nginx)
    yield from _examine_timeouts(options, timeout)
    yield _examine_endpoint(machine.port, path if options else PATH)
    yield from _examine_daemon_log(machine.daemon_log)
    yield from _examine_memory(options, machine)


def own_queue(topic: str, url: str) -> Iterator[CheckMessage]:
    """Yield a finding if the daemon reads the dead-letter queue. ``url`` is its WorkerQueueURL."""
    try:
        name = QueueAddress.parse(url).name
        is_wrong = get_config().is_dead_letter_queue(name)
    except (ValueError, ConfigurationError):  # which others report
        return
    if is_wrong:
        yield problem("E123", topic, name=name)


def _unreadable_file(topic: str, file: Path, exc: OSError) -> CheckMessage:
    hint = "run it with sudo" if isinstance(exc, PermissionError) else "is this a worker instance?"
    return problem("W301", topic, file=file, strerror=exc.strerror, hint=hint)


def _examine_daemon_options(options: Mapping[str, str], path: str) -> Iterator[CheckMessage]:
    if leads_to_the_dispatcher(path):
        yield ok("daemon", f"it posts to {path}")
    else:
        right = dispatcher_path() or PATH
        yield problem("E302", "daemon", path=path, right=right)
    connections = options.get("http_connections", SqsdOptions().http_connections)
    yield ok(
        "daemon",
        f"http_connections={connections}: keep it at or below gunicorn's threads times processes",
    )


# --- timeouts --------------------------------------------------------------------------------


def _proxy_read_timeout(directory: Path) -> float:
    """Return nginx's limit for the dispatcher. The file of beanstalk_eb counts before any other."""
    files = sorted(directory.rglob("*.conf"), key=lambda f: "beanstalk_dispatch" not in f.name)
    for file in files:
        try:
            match = _READ_TIMEOUT.search(file.read_text(errors="replace"))
        except OSError:
            continue
        if match:
            return seconds_of_nginx(match[1])
    return DEFAULT_PROXY_READ_TIMEOUT


def seconds_of_nginx(time: str) -> float:
    """Return in seconds a time of nginx, such as ``280``, ``280s`` or ``1m 30s``.

    https://nginx.org/en/docs/syntax.html
    """
    parts = _NGINX_TIME.findall(time)
    return sum(int(number) * _NGINX_UNITS[unit] for number, unit in parts)


def _examine_timeouts(options: Mapping[str, str], nginx: float) -> Iterator[CheckMessage]:
    try:
        task = longest_time_limit(get_config())
    except ConfigurationError:  # which the examination without AWS reports
        return
    ladder = Ladder(
        task=task,
        nginx=nginx,
        inactivity=_to_seconds(options.get("inactivity_timeout")),
        visibility=_to_seconds(options.get("visibility_timeout")),
    )
    found = list(ladder.problems())
    for each in found:
        yield problem("E303", "timeouts", problem=each)
    if not found:
        yield ok("timeouts", f"each is longer than the one before it; a task may take {task:g} s")


def _to_seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdecimal() else None


def _examine_memory(options: Mapping[str, str], machine: Machine) -> Iterator[CheckMessage]:
    with suppress(ConfigurationError):
        if get_config().isolation != "thread":
            connections = options.get("http_connections", SqsdOptions().http_connections)
            yield from memory_doctor.examine(int(connections), machine.proc, machine.cgroup)


# --- the endpoint ----------------------------------------------------------------------------


def _examine_endpoint(port: int, path: str) -> CheckMessage:
    """GET the dispatcher through nginx: it answers, and runs nothing."""
    try:
        status, content = get(port, path)
    except (OSError, http.client.HTTPException) as exc:
        return problem("E304", "endpoint", port=port, kind=type(exc).__name__, exc=exc)
    if is_of_the_dispatcher(status, content):
        return ok("endpoint", f"GET {path} reaches the dispatcher through nginx")
    meaning = MEANINGS.get(status, "another program answers")
    return problem("E305", "endpoint", path=path, status=status, meaning=meaning)


# --- the daemon's log ------------------------------------------------------------------------


def _examine_daemon_log(file: Path) -> Iterator[CheckMessage]:
    try:
        with file.open(errors="replace") as lines:
            last = list(deque(lines, maxlen=_LOG_LINES))
    except OSError as exc:
        yield _unreadable_file("daemon's log", file, exc)
        return
    sent = sum(_SENT in line for line in last)
    failed = Counter(int(match[1]) for line in last if (match := _FAILED.search(line)))
    if not failed:
        yield ok("daemon's log", f"{sent} messages were posted, and none failed")
    for status, count in failed.most_common():
        meaning = MEANINGS.get(status, "see the log of the project")
        yield problem(
            "W306", "daemon's log", count=count, sent=sent, status=status, meaning=meaning
        )
