"""The tasks that this process runs now, and the memory of those that were cut off.

A task is *cut off* when its process ends while it runs. A task that fails because its process can
open no more files counts as cut off, too. The crash ledger remembers that. This module opens it,
reports its tasks, and acts on them: a task that was cut off twice runs alone, and if it is cut off
again it goes to the dead-letter queue, if there is one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.process import clock, state

from .crash_ledger import (
    BLOCKS,
    MAX_CUTS,
    SLOTS_IN_BLOCK,
    Company,
    CrashLedger,
    CutTask,
    default_path,
    open_ledger,
)
from .open_files import FILES
from .outer_limit import allow
from .process_exceptions import is_for_the_process

logger = logging.getLogger("beanstalk_dispatch.task")

OFF: Final = "off"
ALONE_AFTER: Final = MAX_CUTS - 1
"""The number of times that a task is cut off before it runs alone.

The tasks that ran beside it were cut off as often. Each of them then runs alone as well, ends, and
is forgotten. So only the task that ends its process is cut off a third time. A task that has waited
for too long, and begins beside one that runs alone, is not counted as cut off with it.
"""
MAX_WAIT_SECONDS: Final = 30.0
"""The longest wait of a task to be alone, and of other tasks for one that is, in seconds.

It is long enough to see a call that hangs: gunicorn ends a process that does not answer for 30
seconds.
"""
ANSWER_SECONDS: Final = 1.0
"""The seconds that a task that is alone waits for others.

The answers of tasks that have just ended are sent meanwhile.
"""
_PAUSE: Final = 0.02  # seconds between two checks


class RunningTask:
    """A task while it runs: a context manager, which may wait before it begins."""

    __slots__ = (
        "_ledger",
        "_slot",
        "_tasks",
        "delivery",
        "message",
        "started",
        "thread_id",
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
        self.started = 0.0
        """The time when the task began, by the monotonic clock."""
        self.times_cut = ledger.times_cut(message.id) if ledger else 0
        """The number of times that the task was cut off before, as far as this machine knows."""
        self.thread_id = threading.get_ident()
        self._tasks = tasks
        self._ledger = ledger
        self._slot: int | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds that the task has been running."""
        return clock.monotonic() - self.started

    def __enter__(self) -> Self:
        company = self._tasks.begin(self)
        if self._ledger is not None:
            # What is to blame is not this task if the process is out of files before it begins.
            if company is Company.NONE and FILES.are_suspect:
                company = Company.OTHERS
            self._slot = self._ledger.begin(self.message, self.delivery, company=company)
            if self._slot is None:
                self._tasks.log_full_ledger()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks.end(self)
        # What ends the process cuts the task off, so its slot stays.
        is_cut = exc is not None and is_for_the_process(exc)
        if self._ledger is not None and self._slot is not None and not is_cut:
            self._ledger.end(self._slot)

    def count_as_cut(self) -> None:
        """Count the task as cut off: it has failed in a process that is out of files."""
        if self._ledger is not None and self._slot is not None:
            with suppress(Exception):  # no file of ours may cost a task
                self._ledger.count_as_cut(self.message.id, self._slot)

    def leave(self) -> None:
        """Have the end of the process not count as a cut of this task."""
        slot, self._slot = self._slot, None
        if self._ledger is not None and slot is not None:
            self._ledger.end(slot)

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
        self._running: set[RunningTask] = set()
        self._alone: RunningTask | None = None
        """The task that waits to be alone, or is."""
        self._began_alone: RunningTask | None = None
        """The same task, if nothing ran beside it when it began."""
        self._is_full_logged = False
        self._close_ledger()

    def task(self, message: Message, delivery: Delivery, config: Config) -> RunningTask:
        """Return a task that is about to run."""
        return RunningTask(message, delivery, tasks=self, ledger=self.ledger(config))

    def now(self) -> list[RunningTask]:
        """Return the tasks that run now. A signal handler may call this."""
        return list(self._running)

    def acquit(self, *, except_in: Collection[int]) -> None:
        """Before the process ends itself, have that count for none but the tasks in these threads.

        The others only run beside the one that is to blame.
        """
        for task in self.now():
            if task.thread_id not in except_in:
                task.leave()

    # --- one alone, or many ------------------------------------------------------------------

    def begin(self, task: RunningTask) -> Company:
        """Note that a task runs. Return the company in which it begins.

        Wait before that if the task is to run alone, or if another one does. A task is noted first
        and sees the others afterwards, so of two that begin at the same time at least one sees the
        other.
        """
        task.started = clock.monotonic()
        self._running.add(task)
        if task.times_cut < ALONE_AFTER and self._alone is None:
            return Company.OTHERS
        until = task.started + MAX_WAIT_SECONDS
        allow(2 * MAX_WAIT_SECONDS)
        if task.times_cut >= ALONE_AFTER:
            self._wait_to_be_alone(task, until=until)
        else:
            self._wait_for_the_one_alone(task, until=until)
        task.started = clock.monotonic()
        if self._began_alone is task:
            return Company.NONE
        return Company.OTHERS if self._began_alone is None else Company.SUSPECT

    def end(self, task: RunningTask) -> None:
        """Note that a task has ended."""
        self._running.discard(task)
        if self._alone is task:
            self._alone = self._began_alone = None

    def _wait_to_be_alone(self, task: RunningTask, *, until: float) -> None:
        while not self._reserve_process(task) and clock.monotonic() < until:
            self._wait_for_the_one_alone(task, until=until)
        while self._alone is task and len(self._running) > 1 and clock.monotonic() < until:
            clock.sleep(_PAUSE)
        clock.sleep(ANSWER_SECONDS)
        beside = len(self._running) - 1
        logger.warning(
            "task was cut off before id=%s function=%s times_cut=%d beside=%d",
            quoted(task.message.id), quoted(task.message.function), task.times_cut, beside,
        )  # fmt: skip
        if self._alone is task and not beside:
            self._began_alone = task

    def _reserve_process(self, task: RunningTask) -> bool:
        with self._lock:
            if self._alone is None:
                self._alone = task
        return self._alone is task

    def _wait_for_the_one_alone(self, task: RunningTask, *, until: float) -> None:
        while self._alone is not None and clock.monotonic() < until:
            self._running.discard(task)
            clock.sleep(_PAUSE)
            self._running.add(task)

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
        if (ledger := self._ledger) is not None and not ledger.is_whole():
            self._ledger = None  # not closed: tasks that run may still look at it
            logger.warning("crash ledger not used path=%s error=%s", _path(config), "truncated")
        return self._ledger

    def _open_ledger(self, config: Config) -> None:
        cut: list[CutTask] = []
        with self._lock:
            if config is self._config:
                return
            self._close_ledger()
            if config.worker and not config.execute_synchronously and config.crash_ledger != OFF:
                try:
                    self._ledger, cut = open_ledger(_path(config))
                except Exception as exc:  # no file of ours may cost a task
                    logger.warning(
                        "crash ledger not used path=%s error=%s", _path(config), quoted_error(exc)
                    )
            self._config = config
        for each in cut:
            _log_cut(each)

    def log_full_ledger(self) -> None:
        """Log once that the file has no slot left for a task."""
        if not self._is_full_logged:
            self._is_full_logged = True
            logger.warning("crash ledger full tasks=%d", BLOCKS * SLOTS_IN_BLOCK)

    def _close_ledger(self) -> None:
        self._config = None
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()


def _path(config: Config) -> str:
    return config.crash_ledger or default_path()


def _log_cut(task: CutTask) -> None:
    logger.error(
        "cut id=%s function=%s receive_count=%d seconds=%.0f times_cut=%d queue=%s message_id=%s "
        "process_id=%d",
        quoted(task.id), quoted(task.function), task.receive_count, task.seconds, task.times_cut,
        quoted(task.queue), quoted(task.message_id), task.process_id,
    )  # fmt: skip


RUNNING: Final = RunningTasks()
state.declare(RUNNING.forget)
