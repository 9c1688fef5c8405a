"""The tasks that this process runs now, and the memory of those that were cut off.

A task is *cut off* when its process ends while it runs. The crash ledger remembers that. This
module opens it and reports its tasks.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.process import clock, state

from .crash_ledger import (
    SLOTS_IN_BLOCK,
    CrashLedger,
    CutTask,
    TaskPlace,
    default_path,
    open_ledger,
)
from .process_exceptions import is_for_the_process

logger = logging.getLogger("beanstalk_dispatch.task")

OFF: Final = "off"


class RunningTask:
    """A task while it runs, as a context manager."""

    __slots__ = (
        "_ledger",
        "_slot",
        "_tasks",
        "delivery",
        "message",
        "place",
        "started",
        "times_cut",
    )

    def __init__(
        self,
        message: Message,
        delivery: Delivery,
        *,
        tasks: RunningTasks,
        ledger: CrashLedger | None,
    ) -> None:
        self.message = message
        self.delivery = delivery
        self.place = TaskPlace.THREAD
        self.started = 0.0
        """The time when the task began, by the monotonic clock."""
        self.times_cut = ledger.times_cut(message.id) if ledger else 0
        """The number of times that the task was cut off before, as far as this machine knows."""
        self._tasks = tasks
        self._ledger = ledger
        self._slot: int | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds that the task has been running."""
        return clock.monotonic() - self.started

    def __enter__(self) -> Self:
        self.started = clock.monotonic()
        self._tasks.running.add(self)
        if self._ledger is not None:
            self._slot = self._ledger.begin(self.message, self.delivery, place=self.place)
            if self._slot is None:
                self._log_unlisted()
        return self

    def _log_unlisted(self) -> None:
        if (repeated := THROTTLE.repeated("ledger-full")) is not None:
            logger.warning(
                "crash ledger full id=%s function=%s%s: this process runs more than %d tasks, and "
                "would not be said to have cut this one off",
                quoted(self.message.id), quoted(self.message.function), repeated, SLOTS_IN_BLOCK,
            )  # fmt: skip

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks.running.discard(self)
        # An exception that ends the process cuts the task off, so its slot stays.
        is_cut = exc is not None and is_for_the_process(exc)
        if self._ledger is not None and self._slot is not None and not is_cut:
            self._ledger.end(self._slot)

    def count_as_cut(self) -> int:
        """Count the task as cut off, although this process does not end. Return the count."""
        self._tasks.add_cut(self.delivery.queue, self.message.function)
        if self._ledger is not None:
            with suppress(Exception):  # no file of ours may cost a task
                self.times_cut = self._ledger.count_as_cut(self.message.id, place=self.place)
        return self.times_cut

    def forget_cuts(self) -> None:
        """Forget that the task was cut off: it is done, or somebody is to look at it."""
        if self.times_cut and self._ledger is not None:
            with suppress(Exception):  # the count is for the worst case only
                self._ledger.forget_cuts(self.message.id)


class RunningTasks:
    """The tasks that this process runs now."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._ledger: CrashLedger | None = None
        self.forget()

    def forget(self) -> None:
        """Forget all tasks: a forked child runs none, and must not write to its parent's slots."""
        self._lock = threading.Lock()
        self.cuts: Counter[tuple[str, str]] = Counter()
        """The tasks known here to be cut off, also in other processes, by queue and function."""
        self.running: set[RunningTask] = set()
        self._close_ledger()

    def task(self, message: Message, delivery: Delivery, config: Config) -> RunningTask:
        """Return a task that is about to run."""
        return RunningTask(message, delivery, tasks=self, ledger=self.ledger(config))

    def now(self) -> list[RunningTask]:
        """Return the tasks that run now. A signal handler may call this."""
        return list(self.running)

    # --- the ledger --------------------------------------------------------------------------

    def report_cut_tasks(self, config: Config) -> None:
        """Log the tasks cut off in other processes, unless this process has done so before."""
        self.ledger(config)

    def ledger(self, config: Config) -> CrashLedger | None:
        """Return the open ledger; None if there is none.

        The first call opens it, and logs the tasks that were cut off in other processes.
        """
        if config is not self._config:
            self._open_ledger(config)
        return self._ledger

    def _open_ledger(self, config: Config) -> None:
        cut: list[CutTask] = []
        with self._lock:
            if config is self._config:
                return
            self._close_ledger()
            if config.worker and not config.execute_synchronously and config.crash_ledger != OFF:
                path = config.crash_ledger or default_path()
                try:
                    self._ledger, cut = open_ledger(path)
                except Exception as exc:  # no file of ours may cost a task
                    logger.warning(
                        "crash ledger not used path=%s error=%s", path, quoted_error(exc)
                    )
            self._config = config
        for each in cut:
            self.add_cut(each.queue, each.function)
            _log_cut(each)

    def add_cut(self, queue: str, function: str) -> None:
        """Count a task that was cut off, in this process or in another."""
        with self._lock:
            self.cuts[queue, function] += 1

    def _close_ledger(self) -> None:
        self._config = None
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()


def _log_cut(task: CutTask) -> None:
    logger.error(
        "cut id=%s function=%s receive_count=%d seconds=%.0f times_cut=%d queue=%s message_id=%s "
        "process_id=%d",
        quoted(task.id), quoted(task.function), task.receive_count, task.seconds, task.times_cut,
        quoted(task.queue), quoted(task.message_id), task.process_id,
    )  # fmt: skip


RUNNING: Final = RunningTasks()
state.declare(RUNNING.forget)
