"""Keeps the progress of a task while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from beanstalk_dispatch.messages.shared_cache import errors_logged
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.coroutines import call_outside_of_loop

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
            is_saved = call_outside_of_loop(self._save)
            self._next_at = now + (_SAVE_SECONDS if is_saved else _RETRY_SECONDS)
