"""Calls that wait for a commit. What waits for the same commit is sent together, in batches.

Django's own bookkeeping decides what is sent: each call registers a callback, and Django drops the
callback when its savepoint or its transaction is rolled back. The first callback that runs sends
its own calls and those of every later callback that Django still holds.
https://docs.djangoproject.com/en/stable/topics/db/transactions/#savepoints
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error

from . import outbox
from .send import Prepared, SendMany, Unsent, is_local, try_to_send_all

logger = logging.getLogger("beanstalk_dispatch.scheduling")


class WaitingCalls:
    """An on_commit callback: the calls of one ``schedule`` or ``schedule_many``."""

    __slots__ = ("__weakref__", "_send_many", "_using", "_waiting", "config", "is_sent", "number",
                 "prepared", "queue")  # fmt: skip

    def __init__(
        self, queue: str, prepared: Sequence[Prepared], config: Config, *,
        using: str, waiting: WeakValueDictionary[int, WaitingCalls], send_many: SendMany,
    ) -> None:  # fmt: skip
        self.queue = queue
        self.prepared = prepared
        self.config = config
        self.number = next_number()
        """Callbacks are numbered in the order of their registration."""
        self.is_sent = False
        self._using = using
        self._waiting = waiting
        self._send_many = send_many

    def __call__(self) -> None:
        """Send these calls, and the later ones of the same commit. Logs what cannot be sent."""
        if self.is_sent:
            return
        if is_local(self.config):
            together = [self]
        else:
            together = [
                each for number, each in sorted(self._waiting.items())
                if number >= self.number and not each.is_sent
            ]  # fmt: skip
        for each in together:
            each.is_sent = True
        calls = [(*key, prepared) for key, prepared in _by_queue(together).items()]
        for queue, config, unsent in try_to_send_all(calls, self._send_many):
            _keep_or_log(queue, unsent, config, using=self._using)


# The values are weak references. Django's list has the only other reference to a callback, so a
# callback that Django has dropped is not in here. That includes one whose savepoint was rolled
# back, for which Django has no signal.
_waiting_by_connection: Final[
    WeakKeyDictionary[BaseDatabaseWrapper, WeakValueDictionary[int, WaitingCalls]]
] = WeakKeyDictionary()
_numbers: Final = itertools.count()


def next_number() -> int:
    """A number that is higher than that of every callback registered before."""
    return next(_numbers)


def send_after_commit(
    queue: str, prepared: Sequence[Prepared], config: Config, *, using: str, send_many: SendMany
) -> None:
    """Send the calls when the current transaction of the database ``using`` commits."""
    connection = transaction.get_connection(using)
    waiting = _waiting_by_connection.setdefault(connection, WeakValueDictionary())
    calls = WaitingCalls(queue, prepared, config, using=using, waiting=waiting, send_many=send_many)
    connection.on_commit(calls)
    waiting[calls.number] = calls


def _by_queue(waiting: Iterable[WaitingCalls]) -> dict[tuple[str, Config], list[Prepared]]:
    """The calls for each queue, in order."""
    found: dict[tuple[str, Config], list[Prepared]] = {}
    for each in waiting:
        found.setdefault((each.queue, each.config), []).extend(each.prepared)
    return found


def _keep_or_log(queue: str, unsent: list[Unsent], config: Config, *, using: str) -> None:
    """Keep in the outbox what could not be sent, or log it if there is none."""
    if unsent and config.uses_outbox:
        unsent = outbox.keep(queue, unsent, config, using=using)
    for each in unsent:
        message = each.prepared.message
        logger.error(
            "not sent after its commit id=%s function=%s queue=%s error=%s",
            message.id, quoted(message.function), quoted(queue), quoted_error(each.reason),
        )  # fmt: skip
