"""Attempt: one start of a task with its hooks, within its time limit.

Nothing is read from or written to private names of the task, which is a project's object.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import TaskCancelled, TaskTimeout
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.process.state import FORKS
from beanstalk_dispatch.resuming import NextLeg
from beanstalk_dispatch.safe_task import Retry, SafeTask
from beanstalk_dispatch.signals import task_finished, task_started, task_stuck

from .consumer import NOBODY
from .coroutines import run_to_end
from .definitions.entries import entries_by_name
from .definitions.options import time_limit_of
from .definitions.parameters import explain_mismatch, read_parameters
from .left_behind import connections
from .limits.expected_end import expect_end
from .limits.outer_limit import (
    allow,
    call_within_outer_limit,
    expect_rest,
    send_signal,
    speakable,
)
from .limits.time_limit import GRACE, TimeLimitExceeded, time_limit
from .process_exceptions import is_for_the_process
from .retries import RetryDecision, decide
from .run import DONE, Run, failure_of

logger = logging.getLogger("beanstalk_dispatch.task")
hook_logger = logging.getLogger("beanstalk_dispatch.task.hooks")


_DEPLOY_FIRST: Final = "if the sender has a newer version of the task, deploy the worker, too"
HOOK_SECONDS: Final = 0.2
"""The seconds that each hook may take after the deadline of a delivery that has one."""
_KILL_SECONDS: Final = 2.0
"""The seconds from the report that a call is stuck to the end of the child that makes it."""
_EMPTY_HOOKS: Final = {
    name: getattr(SafeTask, name) for name in ("on_error", "on_success", "on_completion")
}
"""The hooks of SafeTask itself, which do nothing and need no time limit around them."""


def process_alone(task: SafeTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run a task whose ``process`` is called by a project, and not for a delivery."""
    run = undelivered()
    run.task, run.hooked = task, (task,)
    execute(run, task, args, kwargs)


def undelivered(message: Message | None = None) -> Run:
    """Return the run of a task that a project runs by itself, of a message that nobody received."""
    run = Run(Delivery(), get_config(), NOBODY)
    run.message = message
    return run


def execute(run: Run, task: SafeTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Run the task and its hooks, and set ``run.attempted``."""
    started = clock.monotonic()
    kind = type(task)
    if task_started.receivers:
        send_signal("task_started", task_started, sender=kind, delivery=task.delivery)
    try:
        value = call_within_task_limit(run, task.run, args, kwargs)
        if isinstance(value, Retry):
            raise TypeError("the task has returned a Retry, and does not run again; raise it")
        if run.leg is not None:
            run.leg.check()
    except BaseException as raised:
        if not _is_failure(raised):
            raise
        exc = speakable(raised)
        _handle_failure(run, exc)
        is_granted_retry = isinstance(exc, Retry) and run.attempted.outcome is Outcome.RETRY
        if not is_granted_retry and run.attempted.outcome is not Outcome.CANCELLED:
            _call_hooks(run, "on_error", (exc, *args), kwargs)
    else:
        run.return_value = value
        run.attempted, run.outcome, run.exception = DONE, DONE.outcome, None
        if run.on_success:
            run.on_success()
        _call_hooks(run, "on_success", args, kwargs)
    finally:
        _call_hooks(run, "on_completion", args, kwargs)
    if task_finished.receivers:
        send_signal(
            "task_finished",
            task_finished,
            sender=kind,
            delivery=task.delivery,
            outcome=run.attempted.outcome,
            exception=run.exception,
            duration=clock.monotonic() - started,
        )


def fail_outside(run: Run, raised: BaseException) -> None:
    """Note that the task's ``process`` has failed, outside of its ``run`` and hooks."""
    exc = speakable(raised)
    logger.error(
        "SafeTask failed outside of its run() id=%s function=%s error=%s",
        *_names_of(run), quoted_error(exc), exc_info=exc,
    )  # fmt: skip
    _end_attempt(run, failure_of(exc), exc)


def _is_failure(exc: BaseException) -> bool:
    """Return True unless the exception ends the process, or is of a time limit around the run."""
    return not (is_for_the_process(exc) or isinstance(exc, TimeLimitExceeded))


def call_within_task_limit(
    run: Run,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    is_hook: bool = False,
) -> object:
    """Call ``run`` or a hook within the task's time limit. Return its value, awaited if needed.

    The consumer may have less time left than that. Raise TaskTimeout if it takes longer, and
    TransactionManagementError if it leaves a transaction open.
    """
    before = run.in_transaction
    if before is None:
        before = connections.aliases_in_transaction()
    seconds = time_limit_of(run.task)
    if run.delivery.deadline is not None:
        left = max(run.delivery.deadline - clock.monotonic(), 0.0)
        seconds = min(seconds, left + HOOK_SECONDS if is_hook else left)
    allow(seconds)
    expect_end(seconds + GRACE + _KILL_SECONDS)
    limit = time_limit(
        seconds,
        label=lambda: _stuck_label(run),
        on_stuck=lambda thread_id: _send_task_stuck(run, thread_id),
    )
    try:
        value = _call_and_end_limit(run, limit, function, args, kwargs)
    except BaseException as exc:
        if limit.struck or isinstance(exc, TaskTimeout):
            connections.drop_interrupted(before)
        elif error := connections.drop_left_open(before):
            logger.error(
                "transaction left open id=%s function=%s error=%s",
                *_names_of(run), quoted_error(error),
            )  # fmt: skip
        raise
    finally:
        expect_rest()
    if error := connections.drop_left_open(before):
        raise error
    return value


def _call_and_end_limit(
    run: Run,
    limit: time_limit,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> object:
    forks, result, has_returned = FORKS.count, None, False
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
    finally:
        if FORKS.count != forks:
            _end_forked_process(run)
    return None if result is None else run_to_end(result, limit)


def _end_forked_process(run: Run) -> None:
    """End a process that the task has forked and that leaves the task.

    It would answer the message a second time, and share the connections of its parent.
    """
    exc = sys.exception()
    is_exit = isinstance(exc, SystemExit)
    logger.warning(
        "forked process left its task id=%s function=%s process_id=%d: end such a process with "
        "os._exit()",
        *_names_of(run), os.getpid(), exc_info=None if is_exit else exc,
    )  # fmt: skip
    code = exc.code if isinstance(exc, SystemExit) else exc and 1
    os._exit(code if isinstance(code, int) else int(code is not None))


def _handle_failure(run: Run, exc: BaseException) -> None:
    if isinstance(exc, TaskCancelled):
        reason = str(exc) or "the task has ended itself"
        _end_attempt(run, Result(outcome=Outcome.CANCELLED, reason=reason), exc)
        return
    if isinstance(exc, NextLeg):
        _end_attempt(run, Result(outcome=Outcome.RETRY, reason=str(exc), retry_after=0.0), exc)
        return
    message = run.message
    if type(exc) is TypeError and message is not None:
        _explain_wrong_arguments(exc, message, run)
    try:
        number = message.counted_attempt if message else 1
        earlier = 0 if run.retries_by_hiding else run.delivery.earlier_runs  # it is in the number
        decision = call_within_outer_limit(decide, run.task, exc, number, earlier)
    except Exception as error:  # wrong options; the checks name them too
        logger.error(
            "retry options are wrong id=%s function=%s error=%s",
            *_names_of(run), quoted_error(error),
        )  # fmt: skip
        decision = RetryDecision(is_retried=False, is_final=False, delay=None)
    if decision.is_retried and message is not None:
        result = Result(outcome=Outcome.RETRY, retry_after=decision.delay)
    else:
        result = replace(
            failure_of(exc),
            retry_after=decision.delay,
            is_final=decision.is_final and message is not None,
        )
    _end_attempt(run, result, exc)
    if run.task.verbose:
        _log_failure(run, exc)


def _explain_wrong_arguments(exc: TypeError, message: Message, run: Run) -> None:
    """Note it in the error if the task does not take the arguments of its message."""
    task = entries_by_name(run.config).get(message.function)
    parameters = read_parameters(task) if task else None
    if parameters is None:
        return
    if problem := explain_mismatch(message.function, message.args, message.kwargs, parameters):
        exc.add_note(f"{problem}; {_DEPLOY_FIRST}")


def _end_attempt(run: Run, result: Result, exc: BaseException | None) -> None:
    run.attempted, run.outcome, run.exception = result, result.outcome, exc


def _log_failure(run: Run, exc: BaseException) -> None:
    names, error = _names_of(run), quoted_error(exc)
    if run.attempted.outcome is Outcome.RETRY:
        traceback = None if isinstance(exc, Retry) else exc
        logger.warning(
            "SafeTask will be retried id=%s function=%s error=%s", *names, error,
            exc_info=traceback,
        )  # fmt: skip
    elif run.attempted.outcome is Outcome.TIMED_OUT:
        logger.error("SafeTask timed out id=%s function=%s error=%s", *names, error, exc_info=exc)
    else:
        logger.error("SafeTask failed id=%s function=%s error=%s", *names, error, exc_info=exc)


def _call_hooks(run: Run, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for task in run.hooked:
        if getattr(type(task), name) is _EMPTY_HOOKS[name] and name not in vars(task):
            continue
        try:
            call_within_task_limit(run, getattr(task, name), args, kwargs, is_hook=True)
        except BaseException as exc:
            if not _is_failure(exc):
                raise
            hook_logger.error(
                "hook failed hook=%s id=%s function=%s", name, *_names_of(run),
                exc_info=speakable(exc),
            )  # fmt: skip


def _send_task_stuck(run: Run, thread_id: int) -> None:
    if task_stuck.receivers:
        task_stuck.send_robust(
            sender=type(run.task), delivery=run.task.delivery, thread_id=thread_id
        )


def _stuck_label(run: Run) -> str:
    message = run.message
    if message is None:
        return type(run.task).__name__
    return f"{quoted(message.function)} id={quoted(message.id)}"


def _names_of(run: Run) -> tuple[str, str]:
    """Return the id and the function of a task, for its lines.

    The id is ``-`` if a project has called the task's ``process`` itself.
    """
    message = run.message
    if message is None:
        return "-", type(run.task).__name__
    return quoted(message.id), quoted(message.function)
