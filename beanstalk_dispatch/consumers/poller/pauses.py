"""Pauses: finds the queues that are paused, so that nothing is received from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import LeaseUnavailable
from beanstalk_dispatch.logging.log_lines import quoted_error
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.sqs.opening import resolve_address

from .prefetch import Prefetch
from .queue_state import QueueState

logger = logging.getLogger("beanstalk_dispatch.worker")


class Pauses:
    """The pauses of all queues of a worker, as the lease's cache has them."""

    def __init__(self, queues: Sequence[QueueState], prefetch: Prefetch) -> None:
        config = get_config()
        self._queues = [(resolve_address(each.name, config).name, each) for each in queues]
        self._prefetch = prefetch
        self._is_answered = True

    def refresh(self) -> None:
        """Ask the cache once. Without an answer, every queue stays as it was."""
        try:
            paused = record.paused_since((name for name, _ in self._queues), get_config())
        except LeaseUnavailable as exc:
            if self._is_answered:
                logger.warning("not known which queues are paused error=%s", quoted_error(exc))
            self._is_answered = False
            return
        self._is_answered = True
        for name, queue in self._queues:
            if queue.is_paused != (name in paused):
                self._prefetch.set_paused(queue, is_paused=name in paused)
                verb = "paused" if queue.is_paused else "resumed"
                logger.info("queue %s queue=%s", verb, queue.name)
