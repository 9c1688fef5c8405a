"""Calls that wait for a commit. Those of the same commit are sent together, in batches.

Django's own bookkeeping decides which are sent: each registers a callback, and Django drops the
callback when its savepoint or its transaction is rolled back. The first callback that runs sends
its own calls and those of every later callback that Django still holds.
https://docs.djangoproject.com/en/stable/topics/db/transactions/#savepoints
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from beanstalk_dispatch.conf import Config

from . import outbox
from .destination import Destination
from .prepare import Prepared
from .send import Send, Unsent, log_unsent, send_what_can_be


class WaitingCalls:
    """An on_commit callback: the calls of one ``schedule`` or ``schedule_many``."""

    __slots__ = ("__weakref__", "_send", "_using", "_waiting", "destination", "is_sent", "number",
                 "prepared")  # fmt: skip

    def __init__(
        self, destination: Destination, prepared: Sequence[Prepared], *,
        using: str, waiting: WeakValueDictionary[int, WaitingCalls], send: Send,
    ) -> None:  # fmt: skip
        self.destination = destination
        self.prepared = prepared
        self.number = next_number()
        """Callbacks are numbered in the order of their registration."""
        self.is_sent = False
        self._using = using
        self._waiting = waiting
        self._send = send

    def __call__(self) -> None:
        """Send these calls, and the later ones of the same commit. Log those that are not sent."""
        if self.is_sent:
            return
        if self.destination.is_local:
            together = [self]
        else:
            together = [
                each for number, each in sorted(self._waiting.items())
                if number >= self.number and not each.is_sent
            ]  # fmt: skip
        for each in together:
            each.is_sent = True
        calls = _by_destination(together).items()
        for destination, unsent in send_what_can_be(calls, self._send):
            _keep_or_log(destination, unsent, using=self._using)


# The values are weak references. Django's list has the only other reference to a callback, so a
# callback that Django has dropped is not in here. That includes one whose savepoint was rolled
# back, for which Django has no signal.
_waiting_by_connection: Final[
    WeakKeyDictionary[BaseDatabaseWrapper, WeakValueDictionary[int, WaitingCalls]]
] = WeakKeyDictionary()
_numbers: Final = itertools.count()


def next_number() -> int:
    """Return a number that is higher than that of every callback registered before."""
    return next(_numbers)


class _Commits:
    """The calls that wait for a commit: a place of ``later``."""

    def takes(self, destination: Destination, on_commit: bool | str | None) -> bool:
        """Return True if a transaction has begun for whose commit the calls are to wait."""
        if not (destination.waits_for_commits if on_commit is None else on_commit):
            return False
        connection = transaction.get_connection(outbox.database_of(on_commit))
        # get_autocommit() would connect, which may fail, only to repeat the settings.
        is_connected = connection.connection is not None
        is_autocommit = (
            connection.autocommit if is_connected else connection.settings_dict["AUTOCOMMIT"]
        )
        # Without autocommit on_commit() raises an error that says so.
        return connection.in_atomic_block or not is_autocommit

    def take(
        self,
        destination: Destination,
        prepared: Sequence[Prepared],
        on_commit: bool | str | None,
        send: Send,
    ) -> bool:
        """Send the calls when the current transaction commits."""
        using = outbox.database_of(on_commit)
        connection = transaction.get_connection(using)
        waiting = _waiting_by_connection.setdefault(connection, WeakValueDictionary())
        calls = WaitingCalls(destination, prepared, using=using, waiting=waiting, send=send)
        connection.on_commit(calls)
        waiting[calls.number] = calls
        return True


COMMITS: Final = _Commits()


def on_commit_by_policy(names: Collection[str], config: Config) -> bool | None:
    """Return ``on_commit`` for calls of these tasks. All of them wait if one of them is to."""
    wanted = {config.policy(each).get("on_commit") for each in names}
    return True if True in wanted else False if wanted == {False} else None


def _by_destination(waiting: Iterable[WaitingCalls]) -> dict[Destination, list[Prepared]]:
    """Return the calls for each destination, in order."""
    found: dict[Destination, list[Prepared]] = {}
    for each in waiting:
        found.setdefault(each.destination, []).extend(each.prepared)
    return found


def _keep_or_log(destination: Destination, unsent: list[Unsent], *, using: str) -> None:
    """Keep calls that were not sent in the outbox, or log them if there is none."""
    if unsent and destination.config.uses_outbox:
        unsent = outbox.keep(destination, unsent, using=using)
    log_unsent(destination, unsent, when="after its commit")
