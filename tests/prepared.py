"""Python processes that start in a tenth of the time.

A process of a test needs most of its second of CPU to import Django, boto3 and coverage. These are
forked by a process that has imported them. It imports nothing of this package.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, reduction, resource_tracker
from typing import Any, Final

_LIBRARIES: Final = [
    "asyncio", "boto3", "botocore.config", "botocore.httpsession", "django.core.cache",
    "django.core.checks", "django.core.management", "django.db.backends.sqlite3.base",
    "django.db.models", "django.dispatch", "django.http", "django.template.backends.django",
    "django.test", "django.urls", "environ", "sentry_sdk.integrations.django",
]  # fmt: skip
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_LIBRARIES)


_HELPERS: Final[list[Any]] = [forkserver._forkserver, resource_tracker._resource_tracker]


def stop() -> None:
    """End the processes that fork, or coverage would save their data after it has combined all."""
    for each in _HELPERS:
        each._stop()


class PreparedPopen:
    """A process that runs ``python -m MODULE`` or ``python -c CODE``, as of subprocess.Popen."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = (),
        stdout: int = 1, stderr: int = 2,
    ) -> None:  # fmt: skip
        how = command.index("-c" if "-c" in command else "-m")
        self._process = _CONTEXT.Process(
            target=_run, args=(
                command[how:], dict(env), _Descriptor(stdout), _Descriptor(stderr),
                {each: _Descriptor(each) for each in pass_fds},
            ),
        )  # fmt: skip
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()


def run_prepared(code: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -c CODE`` to its end, and return its output."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = PreparedPopen(["-c", code], env=env, stdout=out.fileno(), stderr=err.fileno())
        returncode = process.wait(60)
        for each in (out, err):
            each.seek(0)
        return subprocess.CompletedProcess(code, returncode, out.read(), err.read())


class _Descriptor:
    """An open file of this process, which becomes one of the process that is made."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _detach, (reduction.DupFd(self._number),)


def _detach(copy: Any) -> int:
    number: int = copy.detach()
    return number


def _run(
    command: Sequence[str], env: Mapping[str, str], stdout: int, stderr: int, passed: dict[int, int]
) -> None:
    """Be the process: with its variables, its files and its command line."""
    os.environ.clear()
    os.environ.update(env)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    _HELPERS[1]._fd = None  # Python 3.14 closes it after each fork, when it is another file
    for each in map(int, os.listdir("/dev/fd")):
        if each > 2 and each not in passed.values():  # those of the process that forks
            with suppress(OSError):
                os.close(each)
    how, subject, *arguments = command
    numbers = {str(theirs): str(ours) for theirs, ours in passed.items()}
    sys.argv = ["-c", *(numbers.get(each, each) for each in arguments)]
    if how == "-m":
        runpy.run_module(subject, run_name="__main__", alter_sys=True)
    else:
        exec(compile(subject, "<string>", "exec"), {"__name__": "__main__"})
