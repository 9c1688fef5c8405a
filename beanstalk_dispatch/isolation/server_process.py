"""The server of isolation and a child, as the process sees them that started the server."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from beanstalk_dispatch.conf import environment, is_on_lambda
from beanstalk_dispatch.logging.output import shown
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.limits import monkey_patching

from . import pipe
from .pipe import Frames, Notes

READY_SECONDS: Final = 120.0
"""The seconds that the server may take to import the project."""
MADE_SECONDS: Final = 30.0
"""The seconds that the server, once it is ready, may take to make a child."""
FAILED_SECONDS: Final = 5.0
"""The seconds for which no other server is started after one that has failed."""
CHECK_SECONDS: Final = 0.5
"""The seconds between two checks whether a running child uses too much or is to be stopped."""
_ABORT_SECONDS: Final = 1.0
_KILL_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 10.0
_SEND_SECONDS: Final = 30.0
MODULE: Final = "beanstalk_dispatch.isolation.server"
"""The module that Python runs as the server. Its children have the same command line."""


class ServerFailed(Exception):
    """The server could not import the project, or makes no child."""


class ServerEnded(Exception):
    """The server has ended, without a word about the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a child that has not answered."""

    exit_code: int | None
    """As of ``subprocess``: minus the signal that ended it; None if its server has ended, too."""
    has_begun: bool
    """True if it had begun to work for the request."""
    why: str = ""
    """Why its parent has ended it; the empty string if it has not."""
    stacks: str = ""
    """The stacks of its threads, if a signal has ended it."""

    @property
    def reason(self) -> str:
        """Return why it has ended, in words."""
        if self.why:
            return self.why
        if self.exit_code is None:
            return "the server of its process has ended"
        if self.exit_code >= 0:
            return f"its process ended with exit code {self.exit_code}"
        name = signal.Signals(-self.exit_code).name
        hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"


def why_impossible() -> str:
    """Return why this process cannot have children; the empty string if it can."""
    if is_on_lambda():
        return "AWS Lambda runs one task at a time"
    if not getattr(settings, "SETTINGS_MODULE", None):
        return "the settings have no module that another process could import"
    if library := monkey_patching.patched_by():
        return f"{library} has replaced threads by greenlets"
    return ""


def _blocking_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, also where socket.setdefaulttimeout() has set a timeout.

    A socket with a timeout does not block, in the process that gets it neither.
    """
    pair = socket.socketpair()
    for each in pair:
        each.setblocking(True)
    return pair


class ServerProcess:
    """The server: started at once, and ready after it has imported the project."""

    def __init__(self) -> None:
        """Start the server. Raise OSError if no process can be started."""
        self._failure = ""
        self._failed_at = 0.0
        self._is_ready = False
        ours, theirs = _blocking_pair()
        self._control = ours
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - it is Python
                    [_python(), "-P", "-m", MODULE, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    env=environment.environment_with(
                        {"PYTHONPATH": os.pathsep.join(_import_path())}
                    ),
                )
            with suppress(BrokenPipeError):  # the first wait for it finds that it has ended
                ours.sendall(pipe.to_frame(_hello()))
        except BaseException:
            ours.close()
            raise

    def has_ended(self) -> bool:
        """Return True if there is to be another server."""
        if self._failure:
            return clock.monotonic() > self._failed_at + FAILED_SECONDS
        return self._process.poll() is not None

    def make_child(self) -> Child:
        """Return a new child. Wait for the server.

        Raise ServerFailed if it makes none, ServerEnded if it does not live, and OSError if this
        process has too many files open.
        """
        self._wait_until_ready()
        data, their_data = _blocking_pair()
        end, their_end = _blocking_pair()
        notes = Notes.create()
        with ExitStack() as failed:
            for each in (data, end, notes):
                failed.callback(each.close)
            try:
                with their_data, their_end:
                    theirs = [their_end.fileno(), their_data.fileno(), notes.descriptor]
                    socket.send_fds(self._control, [b"c"], theirs)
                end.settimeout(MADE_SECONDS)
                process_id = int(_receive_line(end))
            except (OSError, ValueError) as exc:
                raise self._ended() from exc
            if process_id < 0:
                raise ServerFailed(f"no process can be made: {os.strerror(-process_id)}")
            failed.pop_all()
        return Child(process_id, data=data, end=end, notes=notes)

    def _wait_until_ready(self) -> None:
        if self._failure:
            raise ServerFailed(self._failure)
        if self._is_ready:
            return
        self._control.settimeout(READY_SECONDS)
        try:
            answer = _receive_frame(self._control)
        except TimeoutError:
            answer = {"error": f"it takes more than {READY_SECONDS:g} s"}
        except (OSError, ValueError) as exc:
            raise self._ended() from exc
        if "error" in answer:
            raise self.fail(str(answer["error"]).strip().rpartition("\n")[2])
        self._is_ready = True

    def _ended(self) -> ServerEnded:
        self._process.kill()
        self._process.wait()
        return ServerEnded()

    def fail(self, reason: str) -> ServerFailed:
        """End the server, and return the error of everyone who asks for a child for some time."""
        self._failure, self._failed_at = reason, clock.monotonic()
        self._process.kill()
        return ServerFailed(reason)

    def abandon(self) -> None:
        """Release the server without ending it, in a process that its parent has forked."""
        self._control.close()
        self._process.returncode = 0

    def close(self) -> None:
        """End the server with its children, and wait for it."""
        self._control.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Child:
    """A child, which works for one thread at a time."""

    def __init__(
        self, process_id: int, *, data: socket.socket, end: socket.socket, notes: Notes
    ) -> None:
        self.process_id = process_id
        self._data, self._end, self._notes = data, end, notes
        # With a timeout of Python's instead, each read would be two system calls.
        data.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _to_timeval(CHECK_SECONDS))
        data.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _to_timeval(_SEND_SECONDS))

    def note_ending(self) -> None:
        """Let a long task of the child know that its parent is about to end."""
        self._notes.is_ending = True

    def work(self, request: bytes, seconds: float, watch: Callable[[], str]) -> Any:
        """Send a request, and return the child's answer, or its Ended.

        ``seconds``: how long it may take until it says itself how long. ``watch`` is called from
        time to time, and returns why the child is to be ended.
        """
        self._notes.has_begun = self._notes.is_ending = False
        self._notes.write_expected_end(clock.monotonic() + seconds)
        try:
            self._data.sendall(request)
        except OSError as exc:
            return self.end(f"it could not be reached: {type(exc).__name__}")
        frames = Frames()
        while True:
            try:
                if (answer := self._read_answer(frames)) is not None:
                    return answer
            except Exception:  # such as a RecursionError
                return self.end("its answer makes no sense")
            if self._has_ended_within(0):
                return self._read_late_answer(frames) or self._ended("")
            if not clock.monotonic() < self._notes.expected_end:  # NaN, which a task may write, too
                return self.end("it ran on after its time limit and could not be interrupted")
            if why := watch():
                return self.end(why)

    def _read_answer(self, frames: Frames) -> Any:
        """Return the answer once all of it has arrived, or else None, after CHECK_SECONDS.

        Raise any exception for anything else.
        """
        part = b""
        try:
            part = self._data.recv(1 << 16)  # more would be mapped and unmapped each time
        except BlockingIOError:
            return None
        except ConnectionError:  # it has ended before it has read the request
            pass
        if part:
            return frames.feed(part)
        self._has_ended_within(CHECK_SECONDS)  # there is nothing else to wait for
        return None

    def _read_late_answer(self, frames: Frames) -> Any:
        """Return the answer that has come since the last look, with the child's end; else None."""
        with suppress(Exception):  # the end of the child says enough
            while part := self._data.recv(1 << 16):
                if (answer := frames.feed(part)) is not None:
                    return answer
        return None

    def end(self, why: str) -> Ended:
        """End the child by a signal that writes its stacks, or else by one that nothing stops."""
        for number, seconds in ((signal.SIGABRT, _ABORT_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
            with suppress(OSError):
                self._end.send(bytes([number]))
            if self._has_ended_within(seconds):
                break
        else:  # the server does not answer, so the process id is still the child's
            with suppress(OSError):
                os.kill(self.process_id, signal.SIGKILL)
        return self._ended(why)

    def _has_ended_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def _ended(self, why: str) -> Ended:
        self._end.settimeout(_KILL_SECONDS)
        exit_code: int | None
        try:
            exit_code = int(_receive_line(self._end))
        except (OSError, ValueError):
            exit_code = None  # its server has ended, too
        return Ended(
            exit_code=exit_code, has_begun=self._notes.has_begun, why=why,
            stacks=self._notes.stacks(),
        )  # fmt: skip

    def close(self) -> None:
        """Release the child. If it is idle, it ends, and its server waits for that."""
        with suppress(OSError):
            self._end.send(b"\0")
        for each in (self._data, self._end, self._notes):
            each.close()


def _to_timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _receive_line(connection: socket.socket) -> bytes:
    """Read a line. Raise OSError if it does not come; return what came if it is not complete."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = connection.recv(1)
        if not part:
            break
        line += part
    return bytes(line)


def _receive_frame(connection: socket.socket) -> Any:
    """Read a frame. Raise OSError if it does not come, and ValueError if it is none."""
    content = pipe.receive_from(connection.recv)
    if content is None:
        raise ConnectionError("the server has ended")
    return content


def _hello() -> dict[str, Any]:
    return {
        "path": _import_path(),
        "environment": {
            "PYTHONPATH": environment.variable("PYTHONPATH"),
            "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE,
        },
        "output": shown(),
    }


def _import_path() -> list[str]:
    """Return ``sys.path``, with the working directory by its name."""
    return [each or os.getcwd() for each in sys.path]


def _python() -> str:
    """Return the path of Python. ``sys.executable`` is that of a server that embeds it."""
    if Path(sys.executable or "").name.startswith("python"):
        return sys.executable
    return shutil.which("python3", path=str(Path(sys.prefix) / "bin")) or "python3"
