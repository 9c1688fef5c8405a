"""The name of a process that no other process of any machine has, and whether that process lives.

A process id alone is used again, and each container counts its own. So the name also has the boot
of the kernel, the namespace of the process ids, and the moment in which the process started.
Linux has all of these under /proc: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

from beanstalk_dispatch.conf import is_on_lambda

_PROC: Final = Path("/proc")
_STATE, _START = 0, 19
"""The places in a process's ``stat`` after its name: fields 3 and 22 of the page above."""
_ENDED: Final = frozenset("ZXx")
"""The states of a process that has ended, and that its parent has not asked for yet."""


def process_name() -> str:
    """Return this process's name.

    Return the empty string if there is none, or if it can be another's. There is none without
    /proc, as on macOS. On Lambda, processes start from copies of one memory, so two of them can
    have the same name.
    """
    return _process_name(os.getpid())


def has_ended(name: str) -> bool:
    """Return True if ``name`` is of a process of this machine that has ended.

    Return False for one that is alive, and for one of which this process cannot know.
    """
    place, _, process = name.rpartition("/")
    process_id, _, start = process.partition(":")
    if not place or place != process_name().rpartition("/")[0]:
        return False
    try:
        os.kill(int(process_id), 0)
        fields = _stat_fields(process_id)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's, and may be hidden from this one
        return False
    return fields[_START] != start or fields[_STATE] in _ENDED


@functools.lru_cache(maxsize=1)  # a forked child has another id
def _process_name(process_id: int) -> str:
    if is_on_lambda():
        return ""
    try:
        if os.readlink(_PROC / "self") != str(process_id):
            return ""  # it shows the processes of another namespace
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").stat().st_ino
        start = _stat_fields("self")[_START]
    except OSError:
        return ""
    return f"{boot}/{namespace}/{process_id}:{start}"


def _stat_fields(process_id: str) -> list[str]:
    """Return the fields after the name of the program, which may contain spaces and brackets."""
    return (_PROC / process_id / "stat").read_text().rpartition(")")[2].split()
