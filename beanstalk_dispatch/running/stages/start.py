"""start: make the task, and ask the consumer whether there is time for it."""

from __future__ import annotations

from dataclasses import replace

from beanstalk_dispatch.exceptions import NoTimeLeft
from beanstalk_dispatch.outcomes import Outcome, Result
from beanstalk_dispatch.running.outer_limit import call_within, set_task_limit
from beanstalk_dispatch.running.refusing import failed_outside
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.task_options import apply_received_options, time_limit_of
from beanstalk_dispatch.running.unrun_receives import UNRUN


def start(run: Run) -> Result | None:
    """Set ``run.task`` and its time limit. Raise MalformedMessage for options that are wrong."""
    message = run.accepted
    if run.retries_by_hiding:
        earlier = max(run.delivery.earlier_runs - UNRUN.start(run.delivery), 0)
        run.message = message = replace(message, attempt=message.attempt + earlier)
    try:
        run.task, run.configured = call_within(run.entry.make_task)
    except BaseException as exc:  # from an __init__() of the project's own
        return failed_outside(run, exc)
    if message.options:
        apply_received_options(run.task, message.options)
    for each in run.hooked:
        each.delivery = run
    try:
        run.time_limit = call_within(time_limit_of, run.task)
    except Exception as exc:  # from a timeout_timedelta of the project's own
        return failed_outside(run, exc)
    set_task_limit(run.time_limit)
    try:
        run.consumer.task_starts(run.time_limit)
    except NoTimeLeft as exc:
        return Result(outcome=Outcome.OVERDUE, reason=str(exc))
    return None
