"""Attempt: one run of one task with its hooks, and what came of it.

Nothing is read from or written to private names of the task, which is a project's object.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from beanstalk_dispatch import clock
from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import TaskCancelled, TaskTimeout
from beanstalk_dispatch.log_lines import quoted, quoted_error
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.safe_task import Retry, SafeTask
from beanstalk_dispatch.signals import task_finished, task_started, task_stuck

from . import connections
from .coroutines import run_to_end
from .process_exceptions import is_for_the_process
from .retries import RetryDecision, decide
from .task_options import time_limit_of
from .time_limit import TimeLimitExceeded, time_limit

logger = logging.getLogger("beanstalk_dispatch.task")
hook_logger = logging.getLogger("beanstalk_dispatch.task.hooks")


HOOK_SECONDS: Final = 0.2
"""How long each hook may take after the deadline of a delivery that has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one run."""

    outcome: Outcome
    exception: BaseException | None = None
    retry_after: float | None = None
    """Seconds until the task runs again, as a retry or as a redelivery."""
    is_final: bool = False
    """Whether the task's retries are spent."""


_DONE: Final = Attempt(outcome=Outcome.DONE)
_EMPTY_HOOKS: Final = {
    name: getattr(SafeTask, name) for name in ("on_error", "on_success", "on_completion")
}
"""SafeTask's own hooks, which do nothing and need no time limit around them."""


def run_attempt(
    task: SafeTask,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    delivery: Delivery,
    configured: SafeTask | None = None,
    on_done: Callable[[], None] | None = None,
) -> Attempt:
    """Run a listed task once, with its hooks. Raises what is for the process only.

    ``configured``: an instance of the class that BEANSTALK_DISPATCH_SAFE_TASK names, if ``task``
    does not inherit from that class. Its ``process`` surrounds the task's, and its hooks run
    after the task's. ``on_done`` is called as soon as ``run`` has succeeded, before the hooks.
    """
    hooked = (task,) if configured is None else (task, configured)
    before = connections.aliases_in_transaction()
    is_own_process = any(map(has_own_process, hooked))
    known = None if is_own_process else before
    run = _TaskRun(task, delivery=delivery, hooked=hooked, on_done=on_done, in_transaction=known)
    for each in hooked:
        _runs[id(each)] = run
    try:
        hooked[-1].process(*args, **kwargs)
        if is_own_process and (error := connections.drop_left_open(before)):
            raise error
    except BaseException as exc:  # from a process() of the project's own
        if is_for_the_process(exc) or isinstance(exc, TimeLimitExceeded):
            raise
        run.fail_outside(exc)
        connections.drop_left_open(before)
    finally:
        for each in hooked:
            del _runs[id(each)]
    return run.attempt


def has_own_process(task: SafeTask) -> bool:
    """Whether the task's ``process`` is the project's own."""
    return type(task).process is not SafeTask.process


def process(task: SafeTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """What SafeTask.process() does: run the task and its hooks."""
    run = _runs.get(id(task)) or _TaskRun(task, delivery=task.delivery, hooked=(task,))
    if task is run.task:
        run.execute(args, kwargs)
    else:  # the configured class's process() surrounds the task's
        run.task.process(*args, **kwargs)


# The run of each task that a consumer runs now, by the task's id(): a project's class need not
# be hashable, and its process() may continue in another thread.
_runs: Final[dict[int, _TaskRun]] = {}


class _ForkCount:
    """How often this process and its parents were forked; asking for its id is a system call."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1


_forks: Final = _ForkCount()
os.register_at_fork(after_in_child=_forks.add)


class _TaskRun:
    """One run of one task: what SafeTask would have to remember, were it not the project's."""

    __slots__ = (
        "_delivery",
        "_hooked",
        "_in_transaction",
        "_kind",
        "_message",
        "_on_done",
        "attempt",
        "task",
    )

    def __init__(
        self,
        task: SafeTask,
        *,
        delivery: Delivery | None,
        hooked: Sequence[SafeTask],
        on_done: Callable[[], None] | None = None,
        in_transaction: Collection[str] | None = None,
    ) -> None:
        """``in_transaction``: the databases that were in a transaction before; None if unknown."""
        self.task = task
        self.attempt = _DONE
        self._delivery = delivery
        self._message = delivery.message if delivery else None
        self._hooked = hooked
        self._on_done = on_done
        self._in_transaction = in_transaction
        self._kind = type(task)

    def execute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the task and its hooks, and set ``attempt``."""
        started = clock.monotonic()
        if task_started.receivers:
            task_started.send_robust(sender=self._kind, delivery=self._delivery)
        try:
            value = self._call_limited(self.task.run, args, kwargs)
        except BaseException as exc:
            if not self._is_failure(exc):
                raise
            self._handle_failure(exc)
            is_granted_retry = isinstance(exc, Retry) and self.attempt.outcome is Outcome.RETRY
            if not is_granted_retry and self.attempt.outcome is not Outcome.CANCELLED:
                self._call_hooks("on_error", (exc, *args), kwargs)
        else:
            if self._delivery:
                self._delivery.return_value = value
            self._end_attempt(_DONE)
            if self._on_done:
                self._on_done()
            self._call_hooks("on_success", args, kwargs)
        finally:
            self._call_hooks("on_completion", args, kwargs)
        if task_finished.receivers:
            task_finished.send_robust(
                sender=self._kind,
                delivery=self._delivery,
                outcome=self.attempt.outcome,
                exception=self.attempt.exception,
                duration=clock.monotonic() - started,
            )

    def fail_outside(self, exc: BaseException) -> None:
        """The task's ``process`` has failed, outside of its ``run`` and hooks."""
        logger.error(
            "SafeTask failed outside of its run() %s error=%s",
            self._log_label(),
            quoted_error(exc),
            exc_info=exc,
        )
        self._end_attempt(Attempt(outcome=Outcome.FAILED, exception=exc))

    def _is_failure(self, exc: BaseException) -> bool:
        """A TimeLimitExceeded that comes out of ``_call`` is that of an enclosing time limit."""
        return not (is_for_the_process(exc) or isinstance(exc, TimeLimitExceeded))

    def _call_limited(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_hook: bool = False,
    ) -> object:
        """Call ``run`` or a hook within the task's time limit; return what it returns, awaited.

        Raises TaskTimeout, and TransactionManagementError if it leaves a transaction open.
        """
        before = self._in_transaction
        if before is None:
            before = connections.aliases_in_transaction()
        limit = time_limit(
            self._limit_seconds(is_hook), label=self._stuck_label, on_stuck=self._send_task_stuck
        )
        forks = _forks.count
        try:
            try:
                value = self._call_within(limit, function, args, kwargs)
            finally:
                if _forks.count != forks:
                    self._end_forked_process()
        except BaseException as exc:
            if limit.struck or isinstance(exc, TaskTimeout):
                connections.drop_interrupted(before)
            elif error := connections.drop_left_open(before):
                logger.error(
                    "transaction left open %s error=%s", self._log_label(), quoted_error(error)
                )
            raise
        if error := connections.drop_left_open(before):
            raise error
        return value

    def _limit_seconds(self, is_hook: bool) -> float:
        """The task's time limit, or what its consumer has left for ``run`` or for a hook."""
        seconds = time_limit_of(self.task)
        if self._delivery is None or self._delivery.deadline is None:
            return seconds
        left = max(self._delivery.deadline - clock.monotonic(), 0.0)
        return min(seconds, left + HOOK_SECONDS if is_hook else left)

    def _end_forked_process(self) -> None:
        """End a process that the task has forked and that leaves the task.

        It would answer the message a second time, and share the connections of its parent.
        """
        exc = sys.exception()
        is_exit = isinstance(exc, SystemExit)
        logger.warning(
            "forked process left its task %s process_id=%d: end such a process with os._exit()",
            self._log_label(),
            os.getpid(),
            exc_info=None if is_exit else exc,
        )
        code = exc.code if isinstance(exc, SystemExit) else exc and 1
        os._exit(code if isinstance(code, int) else int(code is not None))

    def _call_within(
        self,
        limit: time_limit,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> object:
        result, has_returned = None, False
        try:
            with limit:
                result = function(*args, **kwargs)
                has_returned = True
        except TimeLimitExceeded:  # came out in the instant the block ended
            limit.end()
            if not limit.fires:
                raise  # raised by an enclosing time limit
            if not has_returned:
                raise limit.timeout() from None
        except TaskTimeout as exc:
            struck_after_return = has_returned and isinstance(exc.__cause__, TimeLimitExceeded)
            if not struck_after_return:
                raise
        return None if result is None else run_to_end(result, limit)

    def _handle_failure(self, exc: BaseException) -> None:
        if isinstance(exc, TaskCancelled):
            self._end_attempt(Attempt(outcome=Outcome.CANCELLED, exception=exc))
            return
        outcome = Outcome.TIMED_OUT if isinstance(exc, TaskTimeout) else Outcome.FAILED
        number = self._message.counted_attempt if self._message else 1
        try:
            decision = decide(self.task, exc, number)
        except Exception as error:  # wrong options; the checks name them too
            logger.error(
                "retry options are wrong %s error=%s", self._log_label(), quoted_error(error)
            )
            decision = RetryDecision(is_retried=False, is_final=False, delay=0.0)
        is_retried = decision.is_retried and self._message is not None
        self._end_attempt(
            Attempt(
                outcome=Outcome.RETRY if is_retried else outcome,
                exception=exc,
                retry_after=decision.delay,
                is_final=decision.is_final and self._message is not None,
            )
        )
        if self.task.verbose:
            self._log_failure(exc)

    def _end_attempt(self, attempt: Attempt) -> None:
        self.attempt = attempt
        if self._delivery:
            self._delivery.outcome = attempt.outcome
            self._delivery.exception = attempt.exception

    def _log_failure(self, exc: BaseException) -> None:
        details = self._log_label(), quoted_error(exc)
        if self.attempt.outcome is Outcome.RETRY:
            traceback = None if isinstance(exc, Retry) else exc
            logger.warning("SafeTask will be retried %s error=%s", *details, exc_info=traceback)
        elif self.attempt.outcome is Outcome.TIMED_OUT:
            logger.error("SafeTask timed out %s error=%s", *details, exc_info=exc)
        else:
            logger.error("SafeTask failed %s error=%s", *details, exc_info=exc)

    def _call_hooks(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for task in self._hooked:
            if getattr(type(task), name) is _EMPTY_HOOKS[name] and name not in vars(task):
                continue
            try:
                self._call_limited(getattr(task, name), args, kwargs, is_hook=True)
            except BaseException as exc:
                if not self._is_failure(exc):
                    raise
                hook_logger.error("hook failed hook=%s %s", name, self._log_label(), exc_info=exc)

    def _send_task_stuck(self, thread_id: int) -> None:
        if task_stuck.receivers:
            task_stuck.send_robust(sender=self._kind, delivery=self._delivery, thread_id=thread_id)

    def _stuck_label(self) -> str:
        message = self._message
        return (
            f"{quoted(message.function)} id={quoted(message.id)}"
            if message
            else self._kind.__name__
        )

    def _log_label(self) -> str:
        if self._message is None:
            return f"function={self._kind.__name__}"
        return f"id={quoted(self._message.id)} function={quoted(self._message.function)}"
