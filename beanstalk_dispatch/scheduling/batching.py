"""Collects the calls of a block, and sends them in batches of ten."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.sqs.fifo import queue_rules
from beanstalk_dispatch.sqs.opening import resolve_address
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .send import Prepared, Unsent, send_many, try_to_send, try_to_send_all
from .threads import sending_executor

_open_collections: Final[ContextVar[tuple[CollectedCalls, ...]]] = ContextVar(
    "open_collections", default=()
)
"""The calls of the blocks around the running code, those of the innermost block last."""


class CollectedCalls:
    """The calls of one block. Several threads and coroutines may add to it."""

    def __init__(self, queues: Collection[str]) -> None:
        """``queues``: the queues whose calls are collected, as callers name them; none for all."""
        self._queues = frozenset(queues)
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._is_open = True
        self._calls: list[tuple[str, Prepared]] = []
        """Every call with its queue, in order."""
        self._waiting: dict[str, list[Prepared]] = {}
        """The calls of each queue that are not being sent yet."""
        self._sending: list[Future[list[Unsent]]] = []

    def check_queues(self, config: Config) -> None:
        """Raise UnknownQueue if one of the queues is not configured."""
        for queue in self._queues:
            resolve_address(queue, config)

    def add(self, queue: str, prepared: Sequence[Prepared], config: Config) -> bool:
        """Take calls. False if they are of another queue, or if the block has ended.

        False in a forked process, too, which may end without leaving the block.

        On a standard queue every ten of them are sent at once, in another thread.
        """
        if (self._queues and queue not in self._queues) or self._is_of_parent():
            return False
        keeps_order = queue_rules(resolve_address(queue, config).name).keeps_order
        with self._lock:
            if not self._is_open:
                return False
            for each in prepared:
                self._calls.append((queue, each))
                waiting = self._waiting.setdefault(queue, [])
                waiting.append(each)
                if len(waiting) >= MAX_BATCH_ENTRIES and not keeps_order:
                    self._send_in_thread(queue, config)
        return True

    def close(self, config: Config) -> Sequence[tuple[str, Prepared, Unsent | None]]:
        """Send the rest, and wait for everything. Returns each call with why it was not sent.

        In a forked process it sends nothing: the parent sends these calls.
        """
        if self._is_of_parent():
            return []
        with self._lock:
            self._is_open = False
        waiting = [(queue, config, calls) for queue, calls in self._waiting.items()]
        unsent = [each for *_, left in try_to_send_all(waiting, send_many) for each in left]
        for future in self._sending:
            unsent += future.result()
        by_id = {each.prepared.message.id: each for each in unsent}
        return [(queue, each, by_id.get(each.message.id)) for queue, each in self._calls]

    def _is_of_parent(self) -> bool:
        return os.getpid() != self._process_id

    def _send_in_thread(self, queue: str, config: Config) -> None:
        run = copy_context().run  # traces of the requests belong to the caller's
        calls = self._waiting[queue]
        try:
            future = sending_executor().submit(
                run, try_to_send, queue, calls, config, send_many, is_kept=config.uses_outbox
            )
        except RuntimeError:  # the interpreter is ending: they are sent with the rest
            return
        del self._waiting[queue]
        self._sending.append(future)


def open_collections() -> Sequence[CollectedCalls]:
    """The calls of the blocks around the running code, those of the innermost block first."""
    return _open_collections.get()[::-1]


class Collecting:
    """Has calls collected, from ``start`` to ``stop`` in the same context."""

    def __init__(self, calls: CollectedCalls) -> None:
        self._calls = calls
        self._was_started = False

    def start(self) -> None:
        """From now on, calls are collected.

        Raises RuntimeError the second time, and UnknownQueue for an alias that is not configured.
        """
        if self._was_started:
            raise RuntimeError("each block needs a batching() of its own")
        self._calls.check_queues(get_config())
        self._was_started = True
        self._token = _open_collections.set((*_open_collections.get(), self._calls))

    def stop(self) -> None:
        """No call is collected any more."""
        with suppress(ValueError):  # a generator is closed in another thread or task
            _open_collections.reset(self._token)
