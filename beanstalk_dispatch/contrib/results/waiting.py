"""Waits for the end of a task, by looking at its result again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from asgiref.sync import sync_to_async
from django.db import connections

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.variables import RESULTS
from beanstalk_dispatch.exceptions import ConfigurationError, UnknownResult
from beanstalk_dispatch.messages.message import is_name
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.definitions.options import seconds_of

from .record import Status, TaskRecord
from .stores import store_of

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_GROWTH: Final = 1.5

_REMEDIES: Final = {
    Status.READY: "no worker runs it; 'manage.py beanstalk_queues' shows what waits",
    Status.RUNNING: "it runs; wait longer, or type 'manage.py beanstalk_cancel {}'",
}


def get_result(task_id: str) -> TaskRecord:
    """Return the record of the task that ``schedule_function`` returned this id for.

    Raise UnknownResult if nothing is kept under this id, and ConfigurationError if
    BEANSTALK_DISPATCH_RESULTS is not set. Errors of the cache or the database are raised as they
    are.
    """
    store = store_of(get_config())
    if store is None:
        raise ConfigurationError(f"{RESULTS.variable} is not set: no result is kept")
    # A database may refuse an id that no task has, such as one with a zero character.
    record = store.load(task_id) if is_name(task_id) else None
    if record is None:
        raise UnknownResult(f"no result is kept under the id {task_id[:100]!r}")
    return record


async def aget_result(task_id: str) -> TaskRecord:
    """Return the record of a task as ``get_result`` does, awaitable."""
    return await sync_to_async(get_result)(task_id)


def wait(task_id: str, timeout: float | timedelta) -> TaskRecord:
    """Wait until a task has succeeded or has failed permanently, and return its record.

    The result is looked at after 0.05 seconds, and then less often, up to once a second. Raise
    TimeoutError after ``timeout`` seconds, and RuntimeError inside of ``transaction.atomic()``, for
    whose commit the call may wait. See get_result() for other errors.
    """
    pauses = _pauses(seconds_of(timeout))
    while not (record := _look(task_id)).is_finished:
        clock.sleep(_next_pause(pauses, record, timeout))
    return record


async def await_result(task_id: str, timeout: float | timedelta) -> TaskRecord:  # noqa: ASYNC109
    """Do as ``wait``, awaitable."""
    pauses = _pauses(seconds_of(timeout))
    while not (record := await sync_to_async(_look)(task_id)).is_finished:  # noqa: ASYNC110
        await asyncio.sleep(_next_pause(pauses, record, timeout))
    return record


def _look(task_id: str) -> TaskRecord:
    """Return the record. Raise RuntimeError in a transaction if the task is not known to be over.

    Such a transaction may see no later state, and its commit may send the call.
    """
    try:
        record = get_result(task_id)
    except UnknownResult:
        _refuse_transactions(task_id)
        raise
    if not record.is_finished:
        _refuse_transactions(task_id)
    return record


def _refuse_transactions(task_id: str) -> None:
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            raise RuntimeError(
                f"the task {task_id} may be sent by the commit of this transaction in the database "
                f"{connection.alias!r}: wait for it after the block of transaction.atomic()"
            )


def _pauses(seconds: float) -> Iterator[float]:
    ends_at, pause = clock.monotonic() + seconds, _FIRST_PAUSE
    while (left := ends_at - clock.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)


def _next_pause(pauses: Iterator[float], record: TaskRecord, timeout: float | timedelta) -> float:
    pause = next(pauses, None)
    if pause is None:
        remedy = _REMEDIES[record.status].format(record.id)
        raise TimeoutError(
            f"the task {record.id} ({record.function}) is {record.status} after "
            f"{seconds_of(timeout):g} s: {remedy}"
        )
    return pause
