"""Poller: the threads of one queue. They alone talk to it, so no queue has to wait for another.

Most receive; two delete; one hides what failed and extends what is held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.sqs.errors import failed_on_missing_queue
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .prefetch import MAX_POLLS, Intake, Poll, Source

logger = logging.getLogger("beanstalk_dispatch.worker")

_DELETERS: Final = 3  # besides the one that also deletes less than a batch
_TICK: Final = 0.3  # seconds a message waits for others to be deleted or hidden with it
_PAUSE: Final = 1.0  # seconds after an error nobody thought of


def unending(step: Callable[[], bool]) -> None:
    """Repeat ``step`` while it says so. No error ends a thread that others count on."""
    goes_on = True
    while goes_on:
        try:
            goes_on = step()
        except BaseException:
            logger.exception("thread failed; it goes on")
            time.sleep(_PAUSE)


class Poller:
    """Receives from one queue into an intake, and gives SQS what it is owed for that."""

    def __init__(self, source: Source, intake: Intake, *, visibility: int, heartbeat: bool) -> None:
        self.source = source
        self._intake = intake
        self._visibility = visibility
        self._heartbeat = heartbeat
        self._turn = threading.Lock()  # one of the receivers at a time asks whether it may
        self._closing = threading.Event()
        self.receivers = [self._thread("receive", self._receive) for _ in range(MAX_POLLS)]
        self.keepers = [
            self._thread("delete", self._delete),
            self._thread("keep", self._keep),
            *(self._thread("delete-more", self._delete_full_batches) for _ in range(_DELETERS)),
        ]

    def _thread(self, name: str, step: Callable[[], bool]) -> threading.Thread:
        return threading.Thread(
            target=unending,
            args=(step,),
            name=f"beanstalk_dispatch-{name}-{self.source.name}",
            daemon=True,
        )

    def start(self) -> None:
        for thread in self.receivers + self.keepers:
            thread.start()

    def close(self) -> None:
        """Have the keepers give SQS what is owed, once more at most, and end."""
        self._closing.set()
        self.source.holdings.wake()

    def _receive(self) -> bool:
        with self._turn:
            poll = self._intake.grant(self.source)
        if poll is None:
            return False
        received = None
        try:
            received = self._received(poll)
        finally:
            self._intake.put(self.source, poll, received)
        return True

    def _received(self, poll: Poll) -> list[Received] | None:
        source = self.source
        try:
            received = open_queue(source.name).receive(
                count=poll.ask, wait=poll.wait, visibility=self._visibility
            )
        except Exception as exc:
            source.is_missing = isinstance(exc, SchedulingError) and failed_on_missing_queue(exc)
            source.polling.failed(exc)
            return None
        source.polling.worked()
        return received

    def _delete(self) -> bool:
        holdings = self.source.holdings
        holdings.await_batch(_TICK)
        is_last = self._closing.is_set()
        if is_last:
            holdings.deleting.retry_at = 0.0
        while holdings.delete():
            pass
        return not is_last

    def _delete_full_batches(self) -> bool:
        self.source.holdings.await_batch()
        while self.source.holdings.delete(MAX_BATCH_ENTRIES):
            pass
        return not self._closing.is_set()

    def _keep(self) -> bool:
        holdings = self.source.holdings
        is_last = self._closing.wait(_TICK)
        if is_last:
            holdings.hiding.retry_at = 0.0
        while holdings.hide():
            self._extend()
        self._extend()
        return not is_last

    def _extend(self) -> None:
        if self._heartbeat and not self._closing.is_set():
            self.source.holdings.extend()
