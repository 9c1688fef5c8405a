"""The server of isolation: imports the project, runs no task, and forks a child for each request.

    python -m beanstalk_dispatch.isolation.server DESCRIPTOR

A process that runs tasks starts it, and writes to DESCRIPTOR, a socket, how to import the project.
Nothing here imports that process's ``__main__``. A fork is safe only in a process of one thread.
If the project's modules start others, children are made by exec instead, which import the project
again.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import select
import selectors
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

import django

from beanstalk_dispatch.conf import environment
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.process.role import PROCESS
from beanstalk_dispatch.process.state import FORKS, declare

logger = logging.getLogger("beanstalk_dispatch.isolation")

HANDED_OVER: Final = 3
"""The number of descriptors of a request: for the child's end, its tasks, and its notes."""
RELEASED_SECONDS: Final = 7.0
"""The seconds that an idle child may take to end when its parent ends, which takes five at most."""
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_DEFAULTS: Final[tuple[Any, ...]] = (signal.SIG_DFL, signal.default_int_handler, signal.SIG_DFL)
_TASKS: Final = "/proc/self/task"


class Server:
    """The server of one parent, with its children."""

    def __init__(self, control: socket.socket, hello: Mapping[str, Any]) -> None:
        self._control = control
        self._hello = hello
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, socket.socket | None] = {}
        """The process ids of the children that live, with the sockets for their ends."""
        self._released: set[int] = set()
        """The children that end by themselves."""
        self._wakeup, wakes = socket.socketpair()
        self._wakeup.setblocking(False)
        wakes.setblocking(False)
        self._wakes = wakes
        self.forks = True
        """True if children are made by fork."""

    def serve(self) -> None:
        """Make children, and report their ends, until the parent ends."""
        ignore_stops()  # the project may have set handlers of its own
        signal.signal(signal.SIGCHLD, _do_nothing)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        try:
            while self._handle_next():
                pass
        finally:
            self._end_children()

    def _handle_next(self) -> bool:
        """Handle what has arrived. Return False once the parent has ended."""
        for key, _ in self._selector.select():
            if key.fileobj is self._control:
                try:
                    request, descriptors, *_ = socket.recv_fds(self._control, 1, HANDED_OVER)
                except ConnectionError:  # the parent has not read the last answer
                    return False
                if not request:
                    return False
                self._make_child(descriptors)
            elif key.fileobj is self._wakeup:
                self._note_ends()
            else:
                self._end_child(key.data)
        return True

    def _make_child(self, descriptors: Sequence[int]) -> None:
        """Make a child, and tell its parent the process id, or minus the number of the error."""
        if not descriptors:  # this process has as many files open as it may have
            return
        end, *others = descriptors
        connection = socket.socket(fileno=end)
        try:
            if len(descriptors) < HANDED_OVER:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            data, notes = others
            start = self._fork if self.forks else self._exec
            process_id = start(data, notes, connection)
        except OSError as exc:
            logger.error("child not made error=%s", exc)
            _send_line(connection, -(exc.errno or errno.EIO))
            connection.close()
        else:
            self._children[process_id] = connection
            self._selector.register(connection, selectors.EVENT_READ, process_id)
            _send_line(connection, process_id)
        finally:
            for each in others:
                os.close(each)

    def _fork(self, data: int, notes: int, end: socket.socket) -> int:
        server = os.getpid()
        if process_id := os.fork():
            return process_id
        try:
            end.close()
            self._forget_server()
            run_child(data, notes, server=server)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _forget_server(self) -> None:
        """Close what a forked child has of this process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for connection in (self._control, self._wakeup, self._wakes, *self._children.values()):
            if connection is not None:
                connection.close()

    def _exec(self, data: int, notes: int, end: socket.socket) -> int:
        reader, writer = os.pipe()
        command = [sys.executable, "-P", "-m", __spec__.name, *map(str, (data, notes, reader))]
        process = subprocess.Popen(command, pass_fds=(data, notes, reader))  # noqa: S603 - itself
        process.returncode = 0  # its end is noted here
        os.close(reader)
        from . import pipe  # noqa: PLC0415 - it imports the project's settings

        with suppress(BrokenPipeError):
            pipe.send(writer, {**self._hello, "server": os.getpid()})
        os.close(writer)
        return process.pid

    def _end_child(self, process_id: int) -> None:
        """Send a child the signal that its parent asks for, or forget a parent's thread.

        The signal 0 says that the child ends by itself.
        """
        connection = self._children.get(process_id)
        if connection is None:  # it has just ended
            return
        number = b""
        with suppress(ConnectionError):
            number = connection.recv(1, socket.MSG_DONTWAIT)
        if number == b"\0":
            self._released.add(process_id)
        elif number:
            os.kill(process_id, number[0])
        else:
            self._forget_end(process_id)

    def _end_children(self) -> None:
        """End the children that work, and wait for those that end by themselves."""
        for process_id in self._children:
            with suppress(BlockingIOError):
                self._end_child(process_id)
            if process_id not in self._released:
                os.kill(process_id, signal.SIGKILL)
        until = time.monotonic() + RELEASED_SECONDS
        while self._children and (left := until - time.monotonic()) > 0:
            if select.select([self._wakeup], [], [], left)[0]:
                self._note_ends()
        for process_id in self._children:
            os.kill(process_id, signal.SIGKILL)

    def _forget_end(self, process_id: int) -> None:
        connection, self._children[process_id] = self._children[process_id], None
        if connection is not None:
            self._selector.unregister(connection)
            connection.close()

    def _note_ends(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup.recv(4096)
        for process_id in list(self._children):
            ended, status = os.waitpid(process_id, os.WNOHANG)
            if ended:
                exit_code = os.waitstatus_to_exitcode(status)
                if exit_code:  # it could not end the programs that its task has started
                    with suppress(ProcessLookupError, PermissionError):  # of another user
                        os.killpg(process_id, signal.SIGKILL)
                connection = self._children[process_id]
                if connection is not None:
                    _send_line(connection, exit_code)
                self._forget_end(process_id)
                del self._children[process_id]
                self._released.discard(process_id)  # another child may have its id later


def _send_line(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # the parent's thread has ended
        connection.sendall(b"%d\n" % number)


def ignore_stops() -> None:
    """Ignore the signals that stop a worker, which a terminal or systemd sends to all processes.

    Only the end of its parent ends the server. A handler, unlike SIG_IGN, is not inherited by a
    program that a task starts.
    """
    for number in _STOPS:
        signal.signal(number, _do_nothing)


def heed_stops() -> None:  # pragma: no cover - in a process that a task forks, and that is killed
    """Let those signals end this process, which a task has forked. Its task may send them to it."""
    for number, default in zip(_STOPS, _DEFAULTS, strict=True):
        if signal.getsignal(number) is _do_nothing:
            signal.signal(number, default)


def _do_nothing(signum: int, frame: object) -> None:
    """Handle a signal, which then wakes the server or is ignored."""


def import_project(hello: Mapping[str, Any]) -> None:
    """Import the project as the parent did, and everything that a first task would import."""
    sys.path[:] = hello["path"]
    environment.set_variables(hello["environment"])
    PROCESS.is_server = True
    django.setup()
    from .preloading import preload  # noqa: PLC0415 - models are ready by now

    preload(hello["output"])


def why_no_fork(before: Collection[int]) -> list[str]:
    """Return the names of the threads and connections that a forked child would share.

    ``before``: the descriptors that were open before the project was imported.
    """
    names = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    with suppress(OSError):
        if len(os.listdir(_TASKS)) - 1 > len(names):
            time.sleep(0.1)  # a thread that has just ended is listed for a moment
        unknown = len(os.listdir(_TASKS)) - 1 - len(names)
        if unknown > 0:
            names.append(f"{unknown} of a C library")
    peers = (_peer(each) for each in open_descriptors() if each not in before)
    return [*names, *(f"connection to {each}" for each in peers if each)]


def open_descriptors() -> list[int]:
    """Return the descriptors of this process, without the one that lists them."""
    return [each for each in map(int, os.listdir("/dev/fd")) if _is_open(each)]


def _is_open(descriptor: int) -> bool:
    with suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def _peer(descriptor: int) -> str:
    """Return the address that a stream socket is connected to; the empty string for others."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as connection:
                address = connection.getpeername()
                if connection.type == socket.SOCK_STREAM and address:
                    is_path = isinstance(address, (str, bytes))
                    return os.fsdecode(address) if is_path else f"{address[0]}:{address[1]}"
    return ""


def run_child(data: int, notes: int, *, server: int) -> NoReturn:
    """Run as a child."""
    from . import child, pipe  # noqa: PLC0415 - they import the project's settings

    FORKS.held_signals = _STOPS
    declare(heed_stops, in_tests=False)
    child.main(data, pipe.Notes(notes), server=server)


def main(arguments: Sequence[str]) -> None:
    """Run as the server, or with three descriptors as a child that was made by exec."""
    ignore_stops()
    before = open_descriptors()
    from . import pipe  # noqa: PLC0415 - it imports the project's settings

    if len(arguments) == HANDED_OVER:
        data, notes, reader = map(int, arguments)
        hello = pipe.receive(reader)
        import_project(hello)
        run_child(data, notes, server=hello["server"])
    control = socket.socket(fileno=int(arguments[0]))
    if (hello := pipe.receive(control.fileno())) is None:  # the parent has ended
        control.close()
        return
    try:
        import_project(hello)
    except BaseException:  # pragma: no cover - the parent kills this process once it has read it
        pipe.send(control.fileno(), {"error": traceback.format_exc()})
        raise SystemExit(1) from None
    server = Server(control, hello)
    from .child import end_process, flush_output  # noqa: PLC0415 - models are ready by now

    if shared := why_no_fork(before):
        server.forks = False
        logger.warning(
            "isolation by exec shared=%s: the project starts these threads, or opens these "
            "connections, when it is imported, so its children cannot be forked; each of them "
            "imports the project again. Start or open them when they are first used",
            quoted(", ".join(shared)),
        )
    flush_output()  # or each child would write it again
    gc.collect()
    gc.freeze()  # what exists now stays shared: the collector writes to what it visits
    with suppress(BrokenPipeError):  # the parent has ended meanwhile
        pipe.send(control.fileno(), {})
        server.serve()
    end_process()


if __name__ == "__main__":
    main(sys.argv[1:])
