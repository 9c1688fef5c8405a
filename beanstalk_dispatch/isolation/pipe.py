"""The traffic between a parent and its child: JSON in frames, and three facts in a page of memory.

Nothing is pickled. A child writes with the functions that are bound here, before any task can
replace them in their modules.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable
from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
MAX_FRAME: Final = 1 << 26
"""The longest frame. A message of SQS has a mebibyte at most, and six times that as JSON."""
_END_SIZE: Final = struct.calcsize("d")
_BEGUN_AT: Final = _END_SIZE
_ENDING_AT: Final = _BEGUN_AT + 1
_STACKS_AT: Final = mmap.PAGESIZE
_MAX_STACKS: Final = 20_000

_read, _write = os.read, os.write
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def to_frame(content: object) -> bytes:
    """Return the content as JSON, with its length before it."""
    data = _encode(content).encode()
    return _LENGTH.pack(len(data)) + data


def send(descriptor: int, content: object) -> None:
    """Write a frame. Raise OSError if nobody can read it."""
    view = memoryview(to_frame(content))
    while view:
        view = view[_write(descriptor, view) :]


class Frames:
    """The frame that arrives in parts. No other follows it before it is answered."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, part: bytes) -> Any:
        """Add a part, and return the content once the frame is complete, or else None.

        Raise ValueError for anything that is not a frame.
        """
        data = self._data = self._data + part
        if len(data) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        if end > MAX_FRAME:
            raise ValueError("the frame is too long")
        return None if len(data) < end else _decode(data[_LENGTH.size : end].decode())


def receive(descriptor: int) -> Any:
    """Read a frame, and return its content; None if there is no other.

    Raise ValueError for anything that is not a frame.
    """
    try:
        return receive_from(lambda size: _read(descriptor, size))
    except ConnectionResetError:  # the other process has ended before it has read all
        return None


def receive_from(read: Callable[[int], bytes]) -> Any:
    """Do as ``receive``. ``read`` returns up to a number of bytes, and none at the end."""
    frames = Frames()
    while part := read(1 << 16):
        if (content := frames.feed(part)) is not None:
            return content
    return None


class Notes:
    """A small file in memory that parent and child share.

    Its first page has the time by which the child's work should have ended, whether the task has
    begun, and whether the parent is about to end. Behind it Python writes the stacks of a child
    that a signal ends.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        # It is written at once. struct.pack_into() would write zeros first, and a parent that reads
        # them would end a child that is on time.
        self._end = memoryview(self._page)[:_END_SIZE].cast("d")

    @classmethod
    def create(cls) -> Notes:
        """Return the notes of a new child."""
        if not hasattr(os, "memfd_create"):
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
            os.ftruncate(descriptor, _STACKS_AT)
            return cls(descriptor)
        # Unlike a file in /dev/shm, it needs no room there.
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        descriptor = os.memfd_create("beanstalk_dispatch-notes", flags)
        os.ftruncate(descriptor, _STACKS_AT)
        # If a task truncated it, the next look at it would end the parent.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return cls(descriptor)

    def write_expected_end(self, moment: float) -> None:
        """Note the time, by the monotonic clock, by which the present work should have ended."""
        self._end[0] = moment

    @property
    def expected_end(self) -> float:
        """Return the time by which the child's present work should have ended."""
        return self._end[0]

    @property
    def has_begun(self) -> bool:
        """Return True if the child has begun the work that it was sent last."""
        return bool(self._page[_BEGUN_AT])

    @has_begun.setter
    def has_begun(self, value: bool) -> None:
        self._page[_BEGUN_AT] = value

    @property
    def is_ending(self) -> bool:
        """Return True if the parent is about to end, so that a long task should stop."""
        return bool(self._page[_ENDING_AT])

    @is_ending.setter
    def is_ending(self, value: bool) -> None:
        self._page[_ENDING_AT] = value

    def stacks(self) -> str:
        """Return the stacks that Python has written at the child's end."""
        return os.pread(self.descriptor, _MAX_STACKS, _STACKS_AT).decode("utf-8", "replace")

    def seek_stacks(self) -> None:
        """Let what is written to the file next be the stacks."""
        os.lseek(self.descriptor, _STACKS_AT, os.SEEK_SET)

    def close(self) -> None:
        """Release the file."""
        self._end.release()
        self._page.close()
        os.close(self.descriptor)
