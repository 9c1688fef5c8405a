"""Later: where calls wait that are not sent at once, and in which order these places are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from .batching import BLOCKS, open_blocks
from .commits import COMMITS, on_commit_by_policy
from .destination import Destination
from .outbox import OUTBOX
from .prepare import Prepared
from .send import Send


class Later(Protocol):
    """A place where calls wait. ``on_commit`` is that of ``schedule``."""

    def takes(self, destination: Destination, on_commit: bool | str | None) -> bool:
        """Return True if calls to this destination wait here. Change nothing."""

    def take(
        self,
        destination: Destination,
        prepared: Sequence[Prepared],
        on_commit: bool | str | None,
        send: Send,
    ) -> bool:
        """Keep calls until they are sent. Return False if the place has closed meanwhile.

        A place that sends in the caller's thread uses ``send``.
        """


PLACES: Final[Mapping[bool, Sequence[Later]]] = {
    False: (OUTBOX, COMMITS, BLOCKS),
    True: (COMMITS,),
}
"""``Destination.is_local`` → the places that are asked, in order."""


def keep(
    destination: Destination, prepared: Sequence[Prepared], on_commit: bool | str | None, send: Send
) -> bool:
    """Have calls wait in the first place that takes them. Return False if they are sent now.

    Raise UnknownQueue or SendError if they would wait for a queue that cannot be opened.
    """
    config = destination.config
    if on_commit is None and config.policies:
        on_commit = on_commit_by_policy({each.message.function for each in prepared}, config)
    waits = destination.waits_for_commits if on_commit is None else on_commit is not False
    if not (prepared and (waits or open_blocks())):
        return False
    is_unique = any(each.message.unique for each in prepared)
    for place in PLACES[destination.is_local]:
        if is_unique and place is BLOCKS:  # the answer has to be known now
            continue
        if place.takes(destination, on_commit):
            destination.open_early()
            if place.take(destination, prepared, on_commit, send):
                return True
    return False
