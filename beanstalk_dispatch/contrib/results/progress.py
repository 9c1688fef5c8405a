"""Keeps the progress of a task while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.db import connections

from beanstalk_dispatch.messages.shared_cache import errors_logged
from beanstalk_dispatch.process import clock

from .record import Progress, TaskRecord

logger = logging.getLogger("beanstalk_dispatch.task")

_SAVE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 10.0


class ProgressKeeper:
    """A function that ``progress`` calls: it keeps values in the record, and saves some of them.

    The last one is saved with the end of the attempt.
    """

    def __init__(self, record: TaskRecord, save: Callable[[], bool | None]) -> None:
        self._record = record
        self._save = save
        self._next_at = clock.monotonic() + _SAVE_SECONDS

    def __call__(self, n: float, of: float | None) -> None:
        """Note how far the task is. Log a wrong value."""
        with errors_logged(logger, "progress not kept id=%s", self._record.id):
            self._record.progress = Progress.checked(n, of)
        if (now := clock.monotonic()) >= self._next_at:
            is_saved = _call_outside_of_coroutines(self._save)
            self._next_at = now + (_SAVE_SECONDS if is_saved else _RETRY_SECONDS)


def _call_outside_of_coroutines(save: Callable[[], bool | None]) -> bool | None:
    """Call ``save`` in a thread of its own if this one runs coroutines, where Django refuses it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return save()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_call_and_disconnect, save).result()


def _call_and_disconnect(save: Callable[[], bool | None]) -> bool | None:
    try:
        return save()
    finally:
        connections.close_all()
