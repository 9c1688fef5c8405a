"""Comparison of the deployment files of a project with the requirements of its plan, in words.

A file may differ from the one that would be written, as long as it meets them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.deploying.eb_files import (
    EBEXTENSIONS,
    HOOKS,
    NGINX_FILES,
    NGINX_INCLUDE,
    bundle_files,
    daemon_options,
    gunicorn_command,
)
from beanstalk_dispatch.deploying.existing import CRON
from beanstalk_dispatch.deploying.ladder import OUTAGE_SECONDS, Ladder
from beanstalk_dispatch.deploying.plan import Plan
from beanstalk_dispatch.deploying.procfile import (
    PROCFILE,
    WebServer,
    processes,
    read_web_server,
    web_command,
)
from beanstalk_dispatch.deploying.sqsd_options import NAMESPACE, options, options_file, policy_file

from . import requirements_check, scaling_check
from .findings import problem

TIMEOUTS: Final = "timeouts"
"""Stands for the files that set one."""

_READ_TIMEOUT: Final = re.compile(r"proxy_read_timeout (\d+)s;")
_HEADER_TIMEOUT: Final = re.compile(r"X-Proxy-Read-Timeout (\d+);")
_CRON_LINE: Final = re.compile(r"\s*(-\s+)?(name|url|schedule):\s*(['\"]?)(.*?)\3\s*(?:\s#.*)?")


def check(plan: Plan, root: Path) -> list[CheckMessage]:
    """Return every problem of the files in ``root``, in the order of the files."""
    needed = bundle_files(plan)
    missing = [path for path in needed if not (root / path).exists()]
    if EBEXTENSIONS in missing and options(root, plan.worker):
        missing.remove(EBEXTENSIONS)  # a file of another name has the options
    found = [problem("E401", path) for path in missing]
    contents = {
        path: (root / path).read_text(errors="replace") for path in needed if (root / path).exists()
    }
    server = read_web_server(root)
    found += _check_hooks(plan, contents, root)
    found += _check_nginx(plan, root)
    found += _check_procfile(plan, contents.get(PROCFILE), server)
    found += _check_daemon_options(plan, root, server)
    found += _check_timeouts(plan, contents, root, server)
    found += _check_policies(plan, contents)
    found += _check_cron(plan, root)
    found += scaling_check.check(plan, root)
    found += requirements_check.check(server, root)
    return found


def _check_hooks(plan: Plan, contents: Mapping[str, str], root: Path) -> Iterator[CheckMessage]:
    needed = bundle_files(plan)
    for path in HOOKS:
        if path not in contents:
            continue
        if not os.access(root / path, os.X_OK):
            yield problem("E402", path, path=path)
        if _without_times(contents[path]) != _without_times(needed[path].content):
            yield problem("E403", path)
        elif _READ_TIMEOUT.findall(contents[path]) != _HEADER_TIMEOUT.findall(contents[path]):
            yield problem("E404", path)


def _check_nginx(plan: Plan, root: Path) -> Iterator[CheckMessage]:
    """Yield the problems of the project's own files of nginx, beside which the hook's has to be."""
    for file in sorted((root / NGINX_FILES).rglob("*.conf")):
        path, content = file.relative_to(root).as_posix(), file.read_text(errors="replace")
        if file.name == "nginx.conf" and NGINX_INCLUDE not in content:
            yield problem("E424", path)
        if re.search(rf"location\s*=\s*{re.escape(plan.http_path)}\s*{{", content):
            yield problem("E425", path, http_path=plan.http_path)


def _without_times(script: str) -> str:
    return _HEADER_TIMEOUT.sub("", _READ_TIMEOUT.sub("", script))


def _check_procfile(
    plan: Plan, procfile: str | None, server: WebServer | None
) -> Iterator[CheckMessage]:
    if procfile is None:
        return  # the file is missing, which is a problem already
    if (command := web_command(procfile)) is None:
        yield problem("E405", PROCFILE, command=gunicorn_command(plan))
    elif server is None:
        yield problem(
            "W421",
            PROCFILE,
            program=command.split()[0],
            gunicorn=plan.ladder.gunicorn,
            connections=plan.connections,
        )
    else:
        yield from _check_server(plan, server)
    if "release" in processes(procfile):
        yield problem("W422", PROCFILE)


def _check_server(plan: Plan, server: WebServer) -> Iterator[CheckMessage]:
    if server.worker_class in ("gevent", "eventlet"):
        yield problem("E406", PROCFILE, worker_class=server.worker_class)
    elif server.is_sync and 0 < server.timeout <= plan.ladder.task:
        yield problem("E407", PROCFILE, timeout=server.timeout, task=plan.ladder.task)
    elif server.program.graceful_option is None:
        yield problem("W423", PROCFILE, program=server.program.name, command=gunicorn_command(plan))


def _check_daemon_options(
    plan: Plan, root: Path, server: WebServer | None
) -> Iterator[CheckMessage]:
    path = options_file(plan.worker) if plan.is_shared else EBEXTENSIONS
    if plan.is_shared and NAMESPACE in _read_ebextensions(root):
        yield problem("E408", ".ebextensions")
    found, needed = options(root, plan.worker), daemon_options(plan)
    if not found:
        return  # the file is missing, which is a problem already
    for name in ("WorkerQueueURL", "HttpPath", "MimeType"):
        if found.get(name) != needed[name]:
            value = found.get(name, "not set")
            yield problem("E409", path, name=name, value=value, needed=needed[name])
    yield from _check_connections(path, found, server)
    yield from _check_retries(path, found)


def _check_connections(
    path: str, found: Mapping[str, str], server: WebServer | None
) -> Iterator[CheckMessage]:
    connections = _option_number(found, "HttpConnections", default=50)
    can_run = server.capacity if server else None
    if can_run is not None and connections > can_run:
        yield problem("E410", path, connections=connections, can_run=can_run)


def _check_retries(path: str, found: Mapping[str, str]) -> Iterator[CheckMessage]:
    pause = _option_number(found, "ErrorVisibilityTimeout", default=2)
    receives = _option_number(found, "MaxRetries", default=10)
    if pause * (receives - 1) < OUTAGE_SECONDS:
        yield problem("E411", path, pause=pause, receives=receives, minutes=OUTAGE_SECONDS // 60)


def _option_number(found: Mapping[str, str], name: str, *, default: int) -> int:
    """Return the value of an option; the daemon's default if it is not set or not a number."""
    value = found.get(name, "")
    return int(value) if value.isdecimal() else default


def _read_ebextensions(root: Path) -> str:
    files = sorted((root / ".ebextensions").glob("*.config"))
    return "\n".join(file.read_text(errors="replace") for file in files)


def _check_timeouts(
    plan: Plan, contents: Mapping[str, str], root: Path, server: WebServer | None
) -> Iterator[CheckMessage]:
    found = options(root, plan.worker)
    script = contents.get(HOOKS[0], "")
    nginx = _READ_TIMEOUT.search(script)
    ladder = Ladder(
        task=plan.ladder.task,
        gunicorn=_graceful_timeout(server),
        nginx=int(nginx[1]) if nginx else None,
        inactivity=_option_number(found, "InactivityTimeout", default=299) if found else None,
        visibility=_option_number(found, "VisibilityTimeout", default=300) if found else None,
    )
    for each in ladder.problems():
        yield problem("E303", TIMEOUTS, problem=each)


def _graceful_timeout(server: WebServer | None) -> float | None:
    """Return the seconds; None if nothing ends the requests, or nothing can be set."""
    has_option = server is not None and server.program.graceful_option is not None
    return server.graceful_timeout if server and has_option else None


def _check_policies(plan: Plan, contents: Mapping[str, str]) -> Iterator[CheckMessage]:
    needed = bundle_files(plan)
    for path in (policy_file(plan.web), policy_file(plan.worker)):
        if path not in contents:
            continue
        missing = _granted_actions(needed[path].content) - _granted_actions(contents[path])
        more = _granted_actions(contents[path]) - _granted_actions(needed[path].content)
        for action, resource in sorted(missing):
            yield problem("E412", path, action=action, resource=resource)
        for action, resource in sorted(more):
            yield problem("E413", path, action=action, resource=resource)


def _granted_actions(policy: str) -> set[tuple[str, str]]:
    """Return each action with each resource that a policy allows; empty if it is not a policy."""
    try:
        statements: list[dict[str, Any]] = json.loads(policy)["Statement"]
        return {
            (action, resource)
            for each in statements
            for action in _as_list(each["Action"])
            for resource in _as_list(each["Resource"])
        }
    except (ValueError, TypeError, KeyError):
        return set()


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _check_cron(plan: Plan, root: Path) -> Iterator[CheckMessage]:
    file = root / CRON
    if not file.exists():
        return  # a problem already, if a task has a schedule
    found = _cron_entries(file.read_text(errors="replace"))
    needed = {name: (plan.http_path, schedule) for name, schedule in plan.schedules.items()}
    for name in sorted(needed.keys() - found.keys()):
        yield problem("E414", CRON, name=name, schedule=needed[name][1])
    for name in sorted(needed.keys() & found.keys()):
        if found[name] != needed[name]:
            now, then = (
                f"{schedule!r} with {url}" for url, schedule in (found[name], needed[name])
            )
            yield problem("E415", CRON, name=name, now=now, then=then)
    for name in sorted(found.keys() - needed.keys()) if needed else ():
        yield problem("E416", CRON, name=name)


def _cron_entries(content: str) -> dict[str, tuple[str, str]]:
    """Return name → URL and schedule.

    The lines are read one by one, so that PyYAML is not needed.
    """
    entries: list[dict[str, str]] = []
    for line in content.splitlines():
        if match := _CRON_LINE.fullmatch(line):
            if match[1]:
                entries.append({})
            if entries:
                entries[-1][match[2]] = match[4]
    return {
        each.get("name", ""): (each.get("url", ""), each.get("schedule", "")) for each in entries
    }
