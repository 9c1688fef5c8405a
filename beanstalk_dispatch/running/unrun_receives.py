"""Receives of FIFO messages that have not started their tasks, as far as is known.

On a FIFO queue a retry is another receive of the same message, so receives count as attempts. With
a lease all processes know them, such as those of Lambda; otherwise each knows its own.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of, errors_logged
from beanstalk_dispatch.process import state

from .leases.lease import ENDED_SECONDS

logger = logging.getLogger("beanstalk_dispatch.task")

_MAX_REMEMBERED: Final = 10_000
"""The number of messages whose receives are remembered."""


class UnrunReceives:
    """The numbers of receives without a start, by the id that SQS gave the message."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget all receives: a forked child cannot trust a lock that it did not make."""
        self._lock = threading.Lock()
        self._numbers: dict[str, set[int]] = {}

    def note(self, delivery: Delivery, *, is_shared: bool = True) -> None:
        """Note that this receive has not started the task. Without ``is_shared`` ask no cache."""
        if delivery.message_id is None or not is_fifo(delivery.queue):
            return
        with self._lock:
            self._numbers.setdefault(delivery.message_id, set()).add(delivery.receive_count)
            if len(self._numbers) > _MAX_REMEMBERED:
                del self._numbers[next(iter(self._numbers))]
            numbers = self._numbers.get(delivery.message_id, set())
        if is_shared and (alias := get_config().lease_cache) is not None:
            with errors_logged(logger, "receive not noted cache=%s", alias):
                cache, key = cache_of(alias), _key(delivery)
                cache.set(key, sorted(numbers.union(cache.get(key, ()))), ENDED_SECONDS)

    def start(self, delivery: Delivery) -> int:
        """Note that this receive starts the task.

        Return the number of earlier ones that have not.
        """
        with self._lock:
            numbers = self._numbers.get(delivery.message_id or "", set())
            numbers.discard(delivery.receive_count)
        alias, shared = get_config().lease_cache, ()
        if delivery.receive_count > 1 and delivery.message_id and alias is not None:
            with errors_logged(logger, "receives not known cache=%s", alias):
                shared = cache_of(alias).get(_key(delivery), ())
        return len(numbers.union(shared) - {delivery.receive_count})


def _key(delivery: Delivery) -> str:
    return cache_key("unrun", f"{delivery.queue}\n{delivery.message_id}")


UNRUN: Final = UnrunReceives()
state.declare(UNRUN.forget)
