"""The crash ledger: a small file that lists the running tasks of each process.

A process that is killed cannot log its running tasks. So each running task has a slot in a
memory-mapped file, which outlives the process. The next process that opens the file reports the
slots of processes that have ended.

The file is a header, a table of tasks that were cut off, and blocks of slots. A process owns one
block or more, and holds a lock on one byte of the file for each of them. The kernel releases the
lock when the process ends, however it ends. A block that can be locked is therefore free, and each
task left in it was cut off. Process ids are not compared: another process can have the same one
later, and a container has its own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from django.conf import settings

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.process import clock

_MAGIC: Final = b"bdledger"
_VERSION: Final = 2
_HEADER: Final = struct.Struct("<8sI")  # magic, version
_CUT: Final = struct.Struct("<128sId")  # task id, how often it was cut off, when it last was
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


SLOTS_IN_BLOCK: Final = 16
"""The number of slots in a block. A process with more tasks owns several blocks.

gunicorn has 15 threads on Elastic Beanstalk.
"""
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
_CUTS_END: Final = _CUTS_AT + MAX_CUT_TASKS * _CUT.size
_BLOCK_SIZE: Final = _OWNER.size + SLOTS_IN_BLOCK * _SLOT.size
SIZE: Final = _CUTS_END + BLOCKS * _BLOCK_SIZE
"""The size of the file in bytes, about half a mebibyte."""

# The bytes that are locked, not read: one for the table, then one for each block.
_TABLE_LOCK: Final = 0
_FIRST_BLOCK_LOCK: Final = 1


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
        self._blocks: set[int] = set()
        self._free: list[int] = []
        self._generation = -1
        self._times_cut: dict[bytes, int] = {}

    def is_whole(self) -> bool:
        """Return False if the file was truncated: to touch its pages would end the process."""
        return os.fstat(self._descriptor).st_size == SIZE

    def _check_whole(self) -> None:
        if not self.is_whole():
            raise LedgerError("truncated")

    # --- what runs ---------------------------------------------------------------------------

    def begin(self, message: Message, delivery: Delivery, *, place: TaskPlace) -> int | None:
        """Note that a task runs. Return its slot, or None if the file has no more room."""
        try:
            slot = self._free.pop()
        except IndexError:
            more = self._claim_more()
            if more is None:
                return None
            slot = more
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
            if not self.is_whole():
                return
            self._view[slot + _STATE] = _FREE
        except (OSError, ValueError):  # closed since: a forked child, or another configuration
            return
        self._free.append(slot)

    def close(self) -> None:
        """Release the file. Slots that are in use stay, as if the process had ended."""
        self._view.close()
        os.close(self._descriptor)

    def _claim_more(self) -> int | None:
        with self._lock:
            if self._free:  # another thread has claimed a block meanwhile
                with suppress(IndexError):  # and a third one has taken its last slot
                    return self._free.pop()
            for block in range(BLOCKS):
                if block not in self._blocks and self._lock_block(block):
                    if not self._used_slots(block):
                        self._claim_block(block)
                        return self._free.pop()
                    # The process that opens the file next reports what is in it.
                    self._unlock_block(block)
        return None

    def _claim_block(self, block: int) -> None:
        self._blocks.add(block)
        _OWNER.pack_into(self._view, _block_at(block), os.getpid())
        self._free += reversed(_slots_of(block))

    def _lock_block(self, block: int) -> bool:
        """Lock a block, unless its process lives. Return True if it is locked.

        The process's own blocks can always be locked.
        """
        return _try_lock(self._descriptor, _FIRST_BLOCK_LOCK + block)

    def _unlock_block(self, block: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _FIRST_BLOCK_LOCK + block)

    def _used_slots(self, block: int) -> list[int]:
        return [slot for slot in _slots_of(block) if self._view[slot + _STATE]]

    # --- what was cut off --------------------------------------------------------------------

    def take_cut_tasks(self) -> list[CutTask]:
        """Remove the tasks of processes that have ended and return them. Claim a block.

        The caller holds the lock of the table.
        """
        cut = []
        for block in range(BLOCKS):
            if not self._lock_block(block):
                continue
            for slot in self._used_slots(block):
                cut.append(self._count_cut(block, slot))
                self._view[slot + _STATE] = _FREE
            if self._blocks:
                self._unlock_block(block)
            else:
                self._claim_block(block)
        return cut

    def times_cut(self, task_id: str) -> int:
        """Return the number of times that this task was cut off.

        It is known from the processes on this machine.
        """
        if self._view[_GENERATION_AT] != self._generation:
            self._read_times_cut()
        return self._times_cut.get(_ledger_key(task_id), 0) if self._times_cut else 0

    def count_as_cut(self, task_id: str, *, place: TaskPlace) -> int:
        """Count a task as cut off by this process, which does not end. Return the count.

        Raise LedgerError if another process has locked the table for too long, or if the file was
        truncated.
        """
        self._check_whole()
        with self._lock, _table_locked(self._descriptor):
            return self._add_cut(_ledger_key(task_id), time.time(), place, is_own=True)

    def forget_cuts(self, task_id: str) -> None:
        """Forget that a task was cut off. Raise as ``count_as_cut``."""
        self._check_whole()
        with self._lock, _table_locked(self._descriptor):
            for at, found, _, _ in self._cut_table():
                if found == _ledger_key(task_id):
                    _CUT.pack_into(self._view, at, b"", 0, 0.0)
            self._change_generation()

    def _count_cut(self, block: int, slot: int) -> CutTask:
        (process_id,) = _OWNER.unpack_from(self._view, _block_at(block))
        started, receive_count, key, *strings, state = _SLOT.unpack_from(self._view, slot)
        task_id, function, message_id, queue = map(_to_string, (key, *strings))
        now = time.time()
        return CutTask(
            id=task_id,
            function=function,
            message_id=message_id,
            queue=queue,
            receive_count=receive_count,
            seconds=max(now - started, 0.0),
            process_id=process_id,
            times_cut=self._add_cut(key.rstrip(b"\0"), now, state),
        )

    def _add_cut(self, key: bytes, now: float, place: int, *, is_own: bool = False) -> int:
        rows = list(self._cut_table())
        oldest = min(rows, key=lambda row: row[3])  # or one that is free
        at, found, times, _ = next((row for row in rows if row[1] == key), oldest)
        times = times if found == key else 0
        if place == TaskPlace.CHILD and not is_own:
            return times
        times += 1
        if place == TaskPlace.THREAD:  # another task may have been the reason
            times = min(times, MAX_CUTS - 1)
        _CUT.pack_into(self._view, at, key, times, now)
        self._change_generation()
        return times

    def _cut_table(self) -> Iterator[tuple[int, bytes, int, float]]:
        """Yield the position, key, count and last time of each row.

        In a free row they are 0 and empty.
        """
        for at in range(_CUTS_AT, _CUTS_END, _CUT.size):
            key, times, last = _CUT.unpack_from(self._view, at)
            yield at, key.rstrip(b"\0"), times, last

    def _read_times_cut(self) -> None:
        generation = self._view[_GENERATION_AT]
        self._times_cut = {key: times for _, key, times, _ in self._cut_table() if times}
        self._generation = generation

    def _change_generation(self) -> None:
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
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, _TABLE_LOCK)


def _try_lock(descriptor: int, byte: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):  # POSIX allows both for "another process has it"
        return False
    return True


def _block_at(block: int) -> int:
    return _CUTS_END + block * _BLOCK_SIZE


def _slots_of(block: int) -> range:
    start = _block_at(block) + _OWNER.size
    return range(start, start + SLOTS_IN_BLOCK * _SLOT.size, _SLOT.size)


def _ledger_key(task_id: str) -> bytes:
    """Return a task's id as it is in the file: cut to the length of its field."""
    return task_id.encode("utf-8", "replace")[:_ID_LENGTH]


def _to_string(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")
