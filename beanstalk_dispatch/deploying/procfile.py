"""The Procfile of a bundle, and the web server that its line ``web:`` starts.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/python-configuration-procfile.html
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

PROCFILE: Final = "Procfile"

_WEB: Final = re.compile(r"^web:\s*(\S.*)$", re.MULTILINE)
_PROCESS: Final = re.compile(r"^(\w[\w-]*):", re.MULTILINE)
_ASSIGNMENT: Final = re.compile(r"^(\w+)\s*=\s*['\"]?([\w.]+)['\"]?\s*(?:#.*)?$", re.MULTILINE)
"""A line of gunicorn.conf.py that sets an option to a constant."""
_CONFIG_FILE: Final = re.compile(r"\s(?:-c|--config)[ =](\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A web server, with its behaviour when a deployment stops it."""

    name: str
    graceful_option: str | None
    """The option for the seconds that it then waits for its requests; None if it has none."""
    graceful_default: float | None
    """The seconds without that option; None: it waits until the last one has ended."""


GUNICORN: Final = Program(
    name="gunicorn", graceful_option="--graceful-timeout", graceful_default=30
)
PROGRAMS: Final = (
    GUNICORN,
    Program(name="uvicorn", graceful_option="--timeout-graceful-shutdown", graceful_default=None),
    Program(name="hypercorn", graceful_option="--graceful-timeout", graceful_default=3),
    Program(name="daphne", graceful_option=None, graceful_default=0),
    Program(name="waitress-serve", graceful_option=None, graceful_default=0),
)
"""The web servers whose options are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServer:
    """The web server of a Procfile, with the options that matter to tasks."""

    program: Program
    graceful_timeout: float | None
    workers: int = 1
    threads: int = 1
    timeout: int = 30
    worker_class: str = "sync"

    @property
    def is_sync(self) -> bool:
        """True if a worker runs one request at a time, and does nothing else meanwhile."""
        return self.program is GUNICORN and self.worker_class == "sync" and self.threads == 1

    @property
    def capacity(self) -> int | None:
        """The number of requests that run at the same time; None if no option limits them."""
        is_threaded = self.program is GUNICORN and self.worker_class in ("sync", "gthread")
        return self.workers * self.threads if is_threaded else None


_OPTIONS: Final = {
    "--workers": "workers", "-w": "workers", "--threads": "threads", "--timeout": "timeout",
    "-t": "timeout", "--worker-class": "worker_class", "-k": "worker_class",
}  # fmt: skip
"""The options of gunicorn. Each is also the name of a variable of gunicorn.conf.py."""


def processes(procfile: str) -> list[str]:
    """Return the names of the processes."""
    return _PROCESS.findall(procfile)


def web_command(procfile: str) -> str | None:
    """Return the command of the line ``web:``; None if there is none."""
    match = _WEB.search(procfile)
    return match[1] if match else None


def read_web_command(root: Path) -> str | None:
    """Return the command of the line ``web:`` of the bundle; None if there is none."""
    return web_command(_read(root / PROCFILE))


def with_web_line(procfile: str, line: str) -> str:
    """Return an existing Procfile with its line ``web:`` replaced. Other processes stay."""
    others = [each for each in procfile.splitlines() if not each.startswith("web:")]
    return line + "".join(f"{each}\n" for each in others)


def web_server(command: str, gunicorn_file: str = "") -> WebServer | None:
    """Return the server that a command starts; None if it is not a known one.

    ``gunicorn_file`` is the content of gunicorn.conf.py, over which the command line wins.
    """
    try:
        words = shlex.split(command.replace("=", " "), comments=True)
    except ValueError:  # a quote is not closed
        return None
    names = {PurePath(word).name for word in words}
    program = next((each for each in PROGRAMS if each.name in names), None)
    if program is None:
        return None
    pairs: Iterable[tuple[str, str]] = itertools.pairwise(words)
    if program is GUNICORN:
        pairs = [*_pairs_of_file(gunicorn_file), *pairs]
    graceful: float | None = program.graceful_default
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name == program.graceful_option and value.isdecimal():
            graceful = int(value)
        elif (field := _OPTIONS.get(name)) and (value.isdecimal() or field == "worker_class"):
            found[field] = int(value) if value.isdecimal() else value
    return WebServer(program=program, graceful_timeout=graceful, **found)


def read_web_server(root: Path) -> WebServer | None:
    """Return the server that the bundle starts; None if it is not a known one."""
    command = read_web_command(root) or ""
    match = _CONFIG_FILE.search(command)
    return web_server(command, _read(root / (match[1] if match else "gunicorn.conf.py")))


def _pairs_of_file(content: str) -> Iterator[tuple[str, str]]:
    for name, value in _ASSIGNMENT.findall(content):
        yield f"--{name.replace('_', '-')}", value


def _read(file: Path) -> str:
    """Return the content of a file; the empty string if there is none."""
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
