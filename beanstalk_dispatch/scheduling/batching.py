"""Collects the calls of a block, and sends them in batches of ten."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .destination import Destination, resolve
from .prepare import Prepared
from .send import Send, SendResult, Unsent, publish, send_batches, send_what_can_be
from .threads import sending_executor

_open_collections: Final[ContextVar[tuple[CollectedCalls, ...]]] = ContextVar(
    "open_collections", default=()
)
"""The calls of the blocks around the running code, those of the innermost block last."""


open_blocks: Final = _open_collections.get
"""Returns these calls."""


class CollectedCalls:
    """The calls of one block. Several threads and coroutines may add to it."""

    def __init__(self, queues: Collection[str]) -> None:
        """``queues``: the queues whose calls are collected, as callers name them; none for all."""
        self._queues = queues
        self._was_started = False
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._is_open = True
        self._calls: list[tuple[Destination, Prepared]] = []
        """Every call with its destination, in order."""
        self._waiting: dict[Destination, list[Prepared]] = {}
        """The calls for each destination that are not being sent yet."""
        self._sending: list[Future[list[Unsent]]] = []

    def start(self) -> None:
        """Begin to collect calls, until ``stop`` in the same context.

        Raise RuntimeError the second time, and UnknownQueue for an alias that is not configured.
        """
        if self._was_started:
            raise RuntimeError("each block needs a batching() of its own")
        for queue in self._queues:
            resolve(queue, get_config())
        self._was_started = True
        self._token = _open_collections.set((*open_blocks(), self))

    def stop(self) -> None:
        """Stop collecting calls."""
        with suppress(ValueError):  # a generator is closed in another thread or task
            _open_collections.reset(self._token)

    def collects(self, destination: Destination) -> bool:
        """Return True if calls to this destination wait for the end of the block.

        Calls of a forked process do not, because it may end without leaving the block.
        """
        is_named = not self._queues or destination.name in self._queues
        return is_named and self._is_open and not self._is_of_parent()

    def add(self, destination: Destination, prepared: Sequence[Prepared]) -> bool:
        """Take calls. Return False if another thread has ended the block meanwhile.

        On a standard queue every ten of them are sent at once, in another thread.
        """
        with self._lock:
            if not self._is_open:
                return False
            for each in prepared:
                self._calls.append((destination, each))
                waiting = self._waiting.setdefault(destination, [])
                waiting.append(each)
                if len(waiting) >= MAX_BATCH_ENTRIES and not destination.is_fifo:
                    self._send_in_thread(destination)
        return True

    def close(self) -> Sequence[tuple[Destination, Prepared, Unsent | None]]:
        """Send the rest, and wait for everything. Return each call with why it was not sent.

        In a forked process send nothing: the parent sends these calls.
        """
        if self._is_of_parent():
            return []
        with self._lock:
            self._is_open = False
        unsent = _send(self._waiting.items())
        for future in self._sending:
            unsent += future.result()
        by_id = {each.prepared.message.id: each for each in unsent}
        return [(where, each, by_id.get(each.message.id)) for where, each in self._calls]

    def _is_of_parent(self) -> bool:
        return os.getpid() != self._process_id

    def _send_in_thread(self, destination: Destination) -> None:
        run = copy_context().run  # traces of the requests belong to the caller's
        calls = [(destination, self._waiting[destination])]
        try:
            future = sending_executor().submit(run, _send, calls)
        except RuntimeError:  # the interpreter is ending: they are sent with the rest
            return
        del self._waiting[destination]
        self._sending.append(future)


def _send(calls: Iterable[tuple[Destination, Sequence[Prepared]]]) -> list[Unsent]:
    """Send calls, and return those that were not sent. The end of the block announces the rest."""
    return [each for _, unsent in send_what_can_be(calls, _publish) for each in unsent]


def _publish(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
    return publish(destination, prepared, send_batches)


class _Blocks:
    """The blocks around the running code, the innermost first: a place of ``later``."""

    def takes(self, destination: Destination, on_commit: bool | str | None) -> bool:
        """Return True if a block collects the calls of this destination."""
        return any(each.collects(destination) for each in open_blocks())

    def take(
        self,
        destination: Destination,
        prepared: Sequence[Prepared],
        on_commit: bool | str | None,
        send: Send,
    ) -> bool:
        """Add calls to the innermost block that collects them."""
        blocks = reversed(open_blocks())
        return any(each.add(destination, prepared) for each in blocks if each.collects(destination))


BLOCKS: Final = _Blocks()
