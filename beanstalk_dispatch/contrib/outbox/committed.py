"""The messages that this process has committed to the outbox and not sent yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_REMEMBERED: Final = 10_000
"""The number of messages that a process remembers while SQS takes none.

A relay sends the others.
"""


class StoredRow(NamedTuple):
    """The place of a message in the outbox."""

    database: str
    queue: str
    fifo_group: str
    id: int


@dataclass(slots=True)
class Place:
    """The place of the messages that wait for one queue in one database."""

    database: str
    queue: str
    ids: list[int] = field(default_factory=list)
    """The messages without a FIFO group."""
    groups: dict[str, None] = field(default_factory=dict)
    """The FIFO groups that have got messages, in order. The values mean nothing."""


class Committed:
    """The messages by queue. It belongs to one thread."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], Place] = {}

    def __len__(self) -> int:
        return sum(len(each.ids) + len(each.groups) for each in self._places.values())

    def add(self, rows: Sequence[StoredRow]) -> None:
        """Remember messages, or forget them if there are too many."""
        if len(self) + len(rows) > MAX_REMEMBERED:
            return
        for row in rows:
            key = (row.database, row.queue)
            place = self._places.setdefault(key, Place(row.database, row.queue))
            if row.fifo_group:
                place.groups[row.fifo_group] = None
            else:
                place.ids.append(row.id)

    def places(self) -> Sequence[Place]:
        """Return the places where something waits."""
        self._places = {key: each for key, each in self._places.items() if each.ids or each.groups}
        return list(self._places.values())
