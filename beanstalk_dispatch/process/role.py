"""The role of this process, where it is not to do all that Django's start makes others do."""

from __future__ import annotations


class _Role:
    is_server = False
    """True in the server of isolation, which forks and runs no task."""


NOW = _Role()
