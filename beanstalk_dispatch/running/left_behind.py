"""Traces of a task in its process that would harm other tasks: removed, and logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from beanstalk_dispatch.logging.log_lines import joined, quoted
from beanstalk_dispatch.messages.message import Message

from .left_threads import LEFT
from .log_locks import release_left_locked
from .logging_state import LoggingState
from .running_tasks import RUNNING

logger = logging.getLogger("beanstalk_dispatch.task")


def put_right(message: Message, before: LoggingState) -> Sequence[str]:
    """Release the locks that the task holds, end its event loop, and restore logging.

    Return what was put right, in words. Django's ORM refuses to work in a thread in which an event
    loop runs.
    """
    found = []
    if handlers := release_left_locked():
        logger.error(
            "log lock left locked id=%s function=%s handlers=%s",
            quoted(message.id), quoted(message.function), quoted(handlers),
        )  # fmt: skip
        found.append("a locked log handler")
    # asyncio's own functions for those who write event loops; all versions of Python have them.
    if (loop := asyncio._get_running_loop()) is not None:  # noqa: SLF001
        asyncio._set_running_loop(None)  # noqa: SLF001
        logger.error(
            "event loop left running id=%s function=%s loop=%s: stop what the task has started",
            quoted(message.id), quoted(message.function), type(loop).__name__,
        )  # fmt: skip
        found.append("an event loop")
    LEFT.report()
    if restored := before.restore():
        beside = {each.message.function for each in RUNNING.now() if each.message is not message}
        logger.error(
            "process state restored id=%s function=%s changed=%s beside=%s",
            quoted(message.id), quoted(message.function), quoted(joined(restored)),
            quoted(joined(beside)),
        )  # fmt: skip
        found.append("logging turned off")
    return found
