"""The memory that the children of a worker need, against that of their machine or container."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.isolation.leftovers import in_mebibytes
from beanstalk_dispatch.isolation.server_process import MODULE

from .findings import ok, problem

TYPICAL_CHILD: Final = 15 * 2**20
"""The private memory of a child that has used the ORM, templates, boto3 and Sentry's SDK.

Measured with Django 6.1, the admin and 66 tasks in each of 15 children: 14.4 MiB. A child whose
tasks only call Python has 6.7 MiB.
"""
_PARENT: Final = re.compile(rb"^PPid:\s+(\d+)$", re.MULTILINE)
_FIELD: Final = re.compile(rb"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def examine(connections: int, proc: Path, cgroup: Path) -> Iterator[CheckMessage]:
    """Yield the cost of a child, and whether those of this many connections fit into memory."""
    if (available := _available(proc, cgroup)) is None:
        return  # as on macOS
    running = [size for each in _children(proc) if (size := _private_memory(each))]
    one, how = TYPICAL_CHILD, "typically"
    if running:
        one, how = sum(running) // len(running), f"mean of {len(running)}"
    fitting = (available + sum(running)) // one
    facts = f"a child process uses {in_mebibytes(one)} ({how}); there is memory for {fitting}"
    if connections <= fitting:
        yield ok("memory", facts)
        return
    yield problem("W307", "memory", connections=connections, facts=facts, fitting=max(fitting, 1))


def _available(proc: Path, cgroup: Path) -> int | None:
    """Return the bytes that processes can still use; None if the system does not say that."""
    found = _fields(proc / "meminfo").get("MemAvailable")
    limit, used = (_number(cgroup / f"memory.{name}") for name in ("max", "current"))
    if found is None or limit is None or used is None:
        return found
    return min(found, max(limit - used, 0))


def _children(proc: Path) -> list[Path]:
    """Return the directories of the children: each has the command line of its server."""
    named = {
        each.parent.name: each.parent for each in proc.glob("[0-9]*/cmdline") if _is_ours(each)
    }
    return [each for each in named.values() if _parent_of(each) in named]


def _is_ours(file: Path) -> bool:
    return MODULE.encode() in _read(file).split(b"\0")


def _parent_of(directory: Path) -> str:
    found = _PARENT.search(_read(directory / "status"))
    return found[1].decode() if found else ""


def _private_memory(directory: Path) -> int:
    """Return the bytes that a process shares with no other; 0 if this user may not know."""
    fields = _fields(directory / "smaps_rollup")
    return fields.get("Private_Clean", 0) + fields.get("Private_Dirty", 0)


def _fields(file: Path) -> Mapping[str, int]:
    """Return the sizes of a file of the kernel, in bytes."""
    return {name.decode(): int(size) * 1024 for name, size in _FIELD.findall(_read(file))}


def _number(file: Path) -> int | None:
    content = _read(file).strip()
    return int(content) if content.isdigit() else None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return b""
