"""Later: where calls wait that are not sent at once, and in which order these places are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from .batching import BLOCKS
from .commits import COMMITS
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
