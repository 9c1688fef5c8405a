"""The reasons for which a process runs no other task, and another process takes its place.

A stuck task is another reason. Each consumer decides how many of them are too many.
"""

from __future__ import annotations

from typing import NamedTuple

from .open_files import can_open_files
from .threads import LEFT


class Spoiled(NamedTuple):
    """A reason that tasks have left behind in this process."""

    why: str
    """The reason in words."""
    fields: str
    """The template of the fields of the log line, which loggers of JSON write, too."""
    values: tuple[object, ...]
    """The values of the fields."""
    advice: str
    """The rest of the log line: what it means, and what most likely caused it."""


def why_spoiled() -> Spoiled | None:
    """Return why this process is to be replaced; None if it may run other tasks."""
    if LEFT.are_too_many():
        return Spoiled(
            "tasks have left too many threads behind",
            "reason=threads threads=%d left_by=%r",
            (len(LEFT.left()), LEFT.summary()),
            "tasks have left these threads behind, each of which may keep a database connection",
        )
    if not can_open_files():
        return Spoiled(
            "the process can open no more files",
            "reason=no-files",
            (),
            "this process can open no more files, so every task would fail; a task most likely "
            "keeps files or connections open",
        )
    return None
