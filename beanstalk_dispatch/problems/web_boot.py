"""A start of the Procfile's web server as on a worker, and one request to its dispatcher."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from django.conf import ENVIRONMENT_VARIABLE
from django.core.checks import CheckMessage

from beanstalk_dispatch.conf.environment import environment_with
from beanstalk_dispatch.conf.variables import CRASH_LEDGER, WORKER
from beanstalk_dispatch.consumers.endpoint.sqsd import MEANINGS
from beanstalk_dispatch.deploying.plan import Plan
from beanstalk_dispatch.deploying.procfile import PROCFILE, read_web_command

from .findings import ok, problem

PORT: Final = 8000
"""The port to which nginx passes requests, unless the property PORT names another one.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/python-configuration-procfile.html
"""
_PORT_OPTION: Final = re.compile(rf"(:|--port[ =]|-p ){PORT}\b")
_SECONDS: Final = 60
"""For how long the server may start."""
_END_SECONDS: Final = 10
_EXCEPTION: Final = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Configured|NotReady)\b.*$")
_TOPIC: Final = "web server"


def boot(plan: Plan, root: Path, *, seconds: float = _SECONDS) -> Iterator[CheckMessage]:
    """Yield the finding: the server starts and its dispatcher answers, or the reason why not.

    It starts with this process's environment, as a worker, on a port of its own.
    """
    if (command := read_web_command(root)) is None:
        return  # a problem already
    with _started(command, plan, root) as (process, ports, output):
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            for port in ports:
                with suppress(OSError, http.client.HTTPException):  # nothing answers yet
                    yield _explain_answer(plan, *get(port, plan.http_path))
                    return
            time.sleep(0.1)
        reason = f"does not answer within {seconds:g} s" if process.poll() is None else "ends"
        yield problem("E426", PROCFILE, reason=reason, error=_last_error(output))


@contextmanager
def _started(
    command: str, plan: Plan, root: Path
) -> Iterator[tuple[subprocess.Popen[bytes], list[int], IO[bytes]]]:
    """Start the server, and end it with all its processes."""
    own = _free_port()
    command, has_port = _PORT_OPTION.subn(rf"\g<1>{own}", command)
    ports = [own] if has_port or _is_taken(PORT) else [own, PORT]
    programs = str(Path(sys.executable).parent)
    changes = {"PORT": str(own), WORKER.variable: "True", CRASH_LEDGER.variable: "off"}
    if plan.application.settings:
        changes[ENVIRONMENT_VARIABLE] = plan.application.settings
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603  # the project's own command
            ["/bin/sh", "-c", command],
            cwd=root, env=environment_with(changes, programs=programs), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield process, ports, output
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str) -> tuple[int, bytes]:
    """GET the dispatcher. Raise OSError or HTTPException if nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_END_SECONDS)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_of_the_dispatcher(status: int, content: bytes) -> bool:
    """Return True if the dispatcher has answered a GET, which it does with 405."""
    try:
        return status == 405 and json.loads(content)["error"] == status
    except (ValueError, KeyError, TypeError):
        return False


def _explain_answer(plan: Plan, status: int, content: bytes) -> CheckMessage:
    if is_of_the_dispatcher(status, content):
        return ok(_TOPIC, f"it starts, and GET {plan.http_path} reaches the dispatcher")
    meaning = MEANINGS.get(status, "it is not the dispatcher's answer")
    settings = plan.application.settings
    return problem(
        "E427",
        PROCFILE,
        http_path=plan.http_path,
        status=status,
        meaning=meaning,
        settings=settings,
    )


def _last_error(output: IO[bytes]) -> str:
    """Return the last exception that was written, or the last line."""
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines() or ["it writes nothing"]
    return next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1])
