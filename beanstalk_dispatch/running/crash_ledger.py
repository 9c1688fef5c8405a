"""The crash ledger: a small file that lists the running tasks of each process.

A process that is killed cannot log its running tasks. So each running task has a slot in a
memory-mapped file, which outlives the process. The next process that opens the file reports the
slots of processes that have ended.

The file is a header, a table of tasks that were cut off, and blocks of slots. A process owns one
block, and holds a lock on one byte of the file for it. The kernel releases the lock when the
process ends, however it ends. A block that can be locked is therefore free, and each task left in
it was cut off. Process ids are not compared: another process can have the same one later, and a
container has its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import re
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from django.conf import settings

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.process import clock

_MAGIC: Final = b"bdledger"
_VERSION: Final = 3
_HEADER: Final = struct.Struct("<8sI")  # magic, version
_OWNER: Final = struct.Struct("<I")  # process id, for the log
# Start, receive count, task id, function, SQS's message id, queue, and the state of the slot. The
# state is written last, so that a slot that is only half written does not count.
_SLOT: Final = struct.Struct("<dI128s128s64s80sB")
_STATE: Final = _SLOT.size - 1
_FREE: Final = 0
_ID_LENGTH: Final = 128


class TaskPlace(IntEnum):
    """The place where a task runs: the state of a slot in use."""

    THREAD = 1
    """A thread of the process that has the slot. Each of its tasks may be the reason if it ends."""
    CHILD = 2
    """A process of its own. The task cannot be the reason if the process that has the slot ends."""


SLOTS_IN_BLOCK: Final = 100
"""The number of slots in a block: the HttpConnections that a daemon has at most."""
BLOCKS: Final = 64
MAX_CUTS: Final = 3
"""The times that a task is cut off before it goes to the dead-letter queue.

The last time it must have run in a process of its own, so that no other task can be the reason.
"""
MAX_CUT_TASKS: Final = 256
"""The number of tasks in the table.

When it is full, the task that was cut off longest ago is forgotten.
"""
LOCK_SECONDS: Final = 2.0
"""The longest wait of a process while another one changes the table of cut tasks."""

# A byte that changes whenever the table does. A process then reads the table again.
_GENERATION_AT: Final = _HEADER.size
_CUTS_AT: Final = 64
_CUTS_END: Final = 1 << 18
_BLOCK_SIZE: Final = _OWNER.size + SLOTS_IN_BLOCK * _SLOT.size
SIZE: Final = _CUTS_END + BLOCKS * _BLOCK_SIZE
"""The size of the file in bytes, about three mebibytes."""

# The bytes that are locked, not read: one for the table, then one for each block.
_TABLE_LOCK: Final = 0
_FIRST_BLOCK_LOCK: Final = 1
_LOCK: Final = struct.Struct("hhqqi0q")  # Linux's struct flock: kind, origin, start, length, 0


class LedgerError(Exception):
    """The error of a file that cannot be trusted, or cannot be used now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutTask:
    """A task that was running when its process ended."""

    id: str
    function: str
    message_id: str
    """The id that SQS gave the message; empty if the consumer did not know it."""
    queue: str
    receive_count: int
    seconds: float
    """The seconds from the start of the task to the moment in which it was found."""
    process_id: int
    times_cut: int
    """The number of times that the task was cut off on this machine, this time included."""


def default_path() -> str:
    """Return the path of the file of this user and this project.

    It is in memory if the system has such a directory.
    """
    module = getattr(settings, "SETTINGS_MODULE", None) or ""
    project = re.sub(r"[^\w.]", "_", module or "settings")[:100]
    # Two projects may both have a config.settings. The name is the same after a deployment.
    place = getattr(sys.modules.get(module), "__file__", None) or ""
    project += "-" + hashlib.sha256(os.fsencode(os.path.abspath(place))).hexdigest()[:12]
    shared_memory = "/dev/shm"  # noqa: S108 - the file is created safely there
    directory = shared_memory if os.access(shared_memory, os.W_OK) else tempfile.gettempdir()
    return f"{directory}/beanstalk_dispatch-{os.geteuid()}-{project}.ledger{_VERSION}"


def open_ledger(path: str) -> tuple[CrashLedger, list[CutTask]]:
    """Open the file, or create it. Return it with the tasks cut off since it was last opened.

    Raise LedgerError if the file cannot be trusted, or an OSError of the file.
    """
    descriptor = _open_file(path)
    try:
        _check_file(os.fstat(descriptor))
        with _table_locked(descriptor):
            _create_or_check_content(descriptor)
            ledger = CrashLedger(descriptor)
            return ledger, ledger.take_cut_tasks()
    except BaseException:
        os.close(descriptor)
        raise


class CrashLedger:
    """The open file, as one process uses it. Threads may share it; a forked child must not."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._view = mmap.mmap(descriptor, SIZE)
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._seen: tuple[int, dict[str, int]] = (-1, {})
        """The table of cut tasks, with its generation: one value, which threads replace at once."""

    # --- what runs ---------------------------------------------------------------------------

    def begin(self, message: Message, delivery: Delivery, *, place: TaskPlace) -> int | None:
        """Note that a task runs. Return its slot, or None if the process has no more."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        _SLOT.pack_into(
            self._view,
            slot,
            time.time(),
            delivery.receive_count & 0xFFFFFFFF,
            message.id.encode("utf-8", "replace"),
            message.function.encode("utf-8", "replace"),
            (delivery.message_id or "").encode("utf-8", "replace"),
            delivery.queue.encode("utf-8", "replace"),
            place,
        )
        return slot

    def end(self, slot: int) -> None:
        """Note that the task of this slot has ended."""
        try:
            self._view[slot + _STATE] = _FREE
        except ValueError:  # closed since: a forked child, or another configuration
            return
        self._free.append(slot)

    def close(self) -> None:
        """Release the file. Slots that are in use stay, as if the process had ended."""
        self._view.close()
        os.close(self._descriptor)

    # --- what was cut off --------------------------------------------------------------------

    def take_cut_tasks(self) -> list[CutTask]:
        """Remove the tasks of processes that have ended and return them. Claim a block.

        The caller holds the lock of the table. Raise LedgerError if no block is free.
        """
        cut = []
        for block in range(BLOCKS):
            if not _try_lock(self._descriptor, _FIRST_BLOCK_LOCK + block):
                continue  # its process lives
            slots = _slots_of(block)
            for slot in slots:
                if self._view[slot + _STATE]:
                    cut.append(self._count_cut(block, slot))
                    self._view[slot + _STATE] = _FREE
            if self._free:
                _unlock(self._descriptor, _FIRST_BLOCK_LOCK + block)
            else:
                _OWNER.pack_into(self._view, _block_at(block), os.getpid())
                self._free += reversed(slots)
        if not self._free:
            raise LedgerError(f"{BLOCKS} processes use it")
        return cut

    def times_cut(self, task_id: str) -> int:
        """Return the number of times that this task was cut off.

        It is known from the processes on this machine.
        """
        generation = self._view[_GENERATION_AT]
        if generation != self._seen[0]:
            self._seen = generation, self._read_cuts()
        times_cut = self._seen[1]
        return times_cut.get(_ledger_key(task_id), 0) if times_cut else 0

    def count_as_cut(self, task_id: str, *, place: TaskPlace) -> int:
        """Count a task as cut off by this process, which does not end. Return the count.

        Raise LedgerError if another process has locked the table for too long.
        """
        with self._lock, _table_locked(self._descriptor):
            return self._add_cut(_ledger_key(task_id), place)

    def forget_cuts(self, task_id: str) -> None:
        """Forget that a task was cut off. Raise as ``count_as_cut``."""
        with self._lock, _table_locked(self._descriptor):
            cuts = self._read_cuts()
            cuts.pop(_ledger_key(task_id), None)
            self._write_cuts(cuts)

    def _count_cut(self, block: int, slot: int) -> CutTask:
        (process_id,) = _OWNER.unpack_from(self._view, _block_at(block))
        started, receive_count, *strings, state = _SLOT.unpack_from(self._view, slot)
        task_id, function, message_id, queue = map(_to_string, strings)
        if state == TaskPlace.THREAD:
            times = self._add_cut(task_id, state)
        else:
            times = self._read_cuts().get(task_id, 0)
        return CutTask(
            id=task_id,
            function=function,
            message_id=message_id,
            queue=queue,
            receive_count=receive_count,
            seconds=max(time.time() - started, 0.0),
            process_id=process_id,
            times_cut=times,
        )

    def _add_cut(self, key: str, place: int) -> int:
        cuts = self._read_cuts()
        times = cuts.pop(key, 0) + 1
        if place == TaskPlace.THREAD:  # another task may have been the reason
            times = min(times, MAX_CUTS - 1)
        cuts[key] = times  # the last one
        if len(cuts) > MAX_CUT_TASKS:
            del cuts[next(iter(cuts))]
        self._write_cuts(cuts)
        return times

    def _read_cuts(self) -> dict[str, int]:
        """Return how often each task was cut off; the one that was cut off last is the last."""
        data = self._view[_CUTS_AT : self._view.find(b"\0", _CUTS_AT)]
        try:
            cuts: dict[str, int] = json.loads(data or b"{}")
        except ValueError:  # a process has ended while it wrote them
            return {}
        return cuts

    def _write_cuts(self, cuts: dict[str, int]) -> None:
        data = json.dumps(cuts).encode() + b"\0"
        self._view[_CUTS_AT : _CUTS_AT + len(data)] = data
        self._view[_GENERATION_AT] = (self._view[_GENERATION_AT] + 1) % 256


# --- the file --------------------------------------------------------------------------------


def _open_file(path: str) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise LedgerError("it is a symbolic link") from exc
        raise


def _check_file(status: os.stat_result) -> None:
    """Raise LedgerError unless nobody else can have prepared or can change the file."""
    if not stat.S_ISREG(status.st_mode):
        raise LedgerError("it is not a regular file")
    if status.st_uid != os.geteuid():
        raise LedgerError(f"it belongs to user {status.st_uid}, not to user {os.geteuid()}")
    if (mode := stat.S_IMODE(status.st_mode)) & 0o077:
        raise LedgerError(f"its mode is {mode:o}, so that other users can use it; write 600")
    if status.st_nlink != 1:
        raise LedgerError(f"it has {status.st_nlink} names; it must have one")


def _create_or_check_content(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    header = _HEADER.pack(_MAGIC, _VERSION)
    if size == 0:
        # Written in full: in a sparse file, a page that the disk has no room for ends the process.
        if os.pwrite(descriptor, header.ljust(SIZE, b"\0"), 0) != SIZE:
            os.ftruncate(descriptor, 0)
            raise LedgerError("there is no space left for it")
    elif size != SIZE:
        raise LedgerError(f"it has {size} bytes, not {SIZE}; remove it")
    elif os.pread(descriptor, len(header), 0) != header:
        raise LedgerError("it is not a crash ledger of this version; remove it")


@contextmanager
def _table_locked(descriptor: int) -> Iterator[None]:
    deadline = clock.monotonic() + LOCK_SECONDS
    while not _try_lock(descriptor, _TABLE_LOCK):
        if clock.monotonic() > deadline:
            raise LedgerError(f"another process has locked it for {LOCK_SECONDS:g} s")
        clock.sleep(0.01)
    try:
        yield
    finally:
        _unlock(descriptor, _TABLE_LOCK)


def _try_lock(descriptor: int, byte: int) -> bool:
    try:
        _set_lock(descriptor, fcntl.F_WRLCK, byte)
    except (BlockingIOError, PermissionError):  # POSIX allows both for "another process has it"
        return False
    return True


def _unlock(descriptor: int, byte: int) -> None:
    _set_lock(descriptor, fcntl.F_UNLCK, byte)


def _set_lock(descriptor: int, kind: int, byte: int) -> None:
    """Lock or unlock a byte, for as long as this descriptor is open.

    A lock of the process would end when one of its tasks closes the same file, such as after a copy
    of its folder. A forked child shares the lock, and closes the descriptor at once.

    https://www.gnu.org/software/libc/manual/html_node/Open-File-Description-Locks.html
    """
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    else:  # pragma: no cover - the tests run on Linux
        flags = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
        fcntl.lockf(descriptor, flags, 1, byte)


def _block_at(block: int) -> int:
    return _CUTS_END + block * _BLOCK_SIZE


def _slots_of(block: int) -> range:
    start = _block_at(block) + _OWNER.size
    return range(start, start + SLOTS_IN_BLOCK * _SLOT.size, _SLOT.size)


def _ledger_key(task_id: str) -> str:
    """Return a task's id as it is in the file: cut to the length of its field."""
    return _to_string(task_id.encode("utf-8", "replace")[:_ID_LENGTH])


def _to_string(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")
