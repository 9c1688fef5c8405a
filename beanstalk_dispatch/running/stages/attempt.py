"""attempt: start the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from beanstalk_dispatch.messages.outcomes import Result
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.resuming import LEG
from beanstalk_dispatch.running.attempt import execute, fail_outside
from beanstalk_dispatch.running.left_behind import connections
from beanstalk_dispatch.running.left_behind.threads import LEFT
from beanstalk_dispatch.running.legs import RunLeg
from beanstalk_dispatch.running.limits.outer_limit import call_within_outer_limit
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded
from beanstalk_dispatch.running.process_exceptions import is_for_the_process
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.safe_task import PROCESSES, SafeTask

_PROCESS: Final = SafeTask.process


def attempt(run: Run) -> Result:
    """Call the task's ``process``, which runs it with its hooks. Raise exceptions for the process.

    The ``process`` of the configured class surrounds that of a listed class that does not inherit
    from it.
    """
    hooked, message = run.hooked, run.message
    before = connections.aliases_in_transaction()
    has_own_process = [
        each for each in hooked if type(each).process is not _PROCESS or "process" in vars(each)
    ]
    # In the context of this delivery. Few tasks ask for their leg.
    LEG.set(partial(RunLeg, run, in_transaction=before, started=clock.monotonic()))
    args, kwargs = run.rebuilt if message.typed else (message.args, message.kwargs)
    starter = LEFT.begin(message)
    try:
        try:
            if has_own_process:
                _call_process(run, args, kwargs)
            else:
                run.in_transaction = before
                execute(run, run.task, args, kwargs)
        finally:
            LEFT.end(starter)
        if has_own_process and (error := connections.drop_left_open(before)):
            raise error
    except BaseException as exc:  # from a process() of the project's own
        if is_for_the_process(exc) or isinstance(exc, TimeLimitExceeded):
            raise
        fail_outside(run, exc)
        connections.drop_left_open(before)
    return run.attempted


def _call_process(run: Run, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Call the ``process`` of the project's own, whose ``super().process`` runs the task."""
    run.on_success = None  # more than ``run`` has to succeed
    PROCESSES[id(run.task)] = partial(execute, run)
    if run.configured is not None:
        PROCESSES[id(run.configured)] = partial(_process_listed, run)
    try:
        call_within_outer_limit(run.hooked[-1].process, *args, **kwargs)
    finally:
        for each in run.hooked:
            del PROCESSES[id(each)]


def _process_listed(
    run: Run, task: SafeTask, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    run.task.process(*args, **kwargs)
