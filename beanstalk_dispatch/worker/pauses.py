"""Pauses: looks which queues are paused, so that nothing is received from them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from beanstalk_dispatch import marks
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import LeaseUnavailable
from beanstalk_dispatch.log_lines import quoted_error
from beanstalk_dispatch.service_thread import ServiceThread
from beanstalk_dispatch.sqs.opening import resolve_address

from .options import WorkerTimes
from .prefetch import Prefetch, QueueState

logger = logging.getLogger("beanstalk_dispatch.worker")


class Pauses:
    """A thread that asks the lease's cache about all queues of a worker, every few seconds."""

    def __init__(
        self,
        queues: Sequence[QueueState],
        prefetch: Prefetch,
        *,
        on_first_look: Callable[[], None],
        times: WorkerTimes,
    ) -> None:
        """``on_first_look`` is called when it is known for the first time which are paused."""
        config = get_config()
        self._queues = {resolve_address(each.name, config).name: each for each in queues}
        self._prefetch = prefetch
        self._on_first_look = on_first_look
        self._times = times
        self._closing = threading.Event()
        self._is_answered = True
        self._thread = ServiceThread(
            self._look_until_closed, name="pauses", restart_delay=times.restart_delay
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Have the thread end."""
        self._closing.set()

    def _look_until_closed(self) -> None:
        self.look()
        self._on_first_look()
        while not self._closing.wait(self._times.pause_check_interval):
            self.look()

    def look(self) -> None:
        """Ask once. Without an answer, everything stays as it was."""
        try:
            paused = marks.paused_since(self._queues, get_config())
        except LeaseUnavailable as exc:
            if self._is_answered:
                logger.warning("not known which queues are paused error=%s", quoted_error(exc))
            self._is_answered = False
            return
        self._is_answered = True
        for name, queue in self._queues.items():
            if queue.is_paused != (name in paused):
                self._prefetch.set_paused(queue, is_paused=name in paused)
                verb = "paused" if queue.is_paused else "resumed"
                logger.info("queue %s queue=%s", verb, queue.name)
