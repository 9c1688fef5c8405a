"""attempt: start the task."""

from __future__ import annotations

from functools import partial

from beanstalk_dispatch import safe_task
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
from beanstalk_dispatch.safe_task import SafeTask


def attempt(run: Run) -> Result:
    """Call the task's ``process``, which runs it with its hooks. Raise exceptions for the process.

    The ``process`` of the configured class surrounds that of a listed class that does not inherit
    from it.
    """
    hooked, message = run.hooked, run.message
    before = connections.aliases_in_transaction()
    # In the context of this delivery. Few tasks ask for their leg.
    LEG.set(partial(RunLeg, run, in_transaction=before, started=clock.monotonic()))
    is_own_process = {type(each).process for each in hooked} != {SafeTask.process}
    if is_own_process:
        run.on_success = None  # more than ``run`` has to succeed
    else:
        run.in_transaction = before
    safe_task.PROCESSES[id(run.task)] = partial(execute, run)
    if run.configured is not None:
        safe_task.PROCESSES[id(run.configured)] = partial(_process_listed, run)
    args, kwargs = run.rebuilt if message.typed else (message.args, message.kwargs)
    starter = LEFT.begin(message)
    try:
        try:
            if is_own_process:
                call_within_outer_limit(hooked[-1].process, *args, **kwargs)
            else:
                hooked[-1].process(*args, **kwargs)
        finally:
            LEFT.end(starter)
        if is_own_process and (error := connections.drop_left_open(before)):
            raise error
    except BaseException as exc:  # from a process() of the project's own
        if is_for_the_process(exc) or isinstance(exc, TimeLimitExceeded):
            raise
        fail_outside(run, exc)
        connections.drop_left_open(before)
    finally:
        for each in hooked:
            del safe_task.PROCESSES[id(each)]
    return run.attempted


def _process_listed(
    run: Run, task: SafeTask, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    run.task.process(*args, **kwargs)
