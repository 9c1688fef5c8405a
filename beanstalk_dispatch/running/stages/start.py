"""start: make the task, and ask the consumer whether there is time for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beanstalk_dispatch.exceptions import MalformedMessage, NoTimeLeft
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.definitions.options import apply_received_options, time_limit_of
from beanstalk_dispatch.running.limits.outer_limit import call_within_outer_limit, set_task_limit
from beanstalk_dispatch.running.refusing import failed_outside
from beanstalk_dispatch.running.run import Run


def _rebuild(run: Run) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a message of which its sender has converted some."""
    # It imports Django's models, and is needed for such a message only.
    from beanstalk_dispatch.running.definitions.typed_arguments import Annotations, rebuilt  # noqa: PLC0415

    message = run.message
    function, skipped = run.entry.signed
    try:
        known = Annotations(function, skipped=skipped)
    except Exception as exc:
        raise MalformedMessage(f"the task's parameters cannot be read: {exc}") from None
    return rebuilt(message.args, message.kwargs, message.typed, known)


def start(run: Run) -> Result | None:
    """Set ``run.task`` and its time limit. Raise MalformedMessage for options that are wrong."""
    message = run.message
    is_plain, make_task = run.entry.is_plain, run.entry.make_task
    try:
        run.task, run.configured = make_task() if is_plain else call_within_outer_limit(make_task)
    except BaseException as exc:  # from an __init__() of the project's own
        return failed_outside(run, exc)
    if message.typed:
        run.rebuilt = call_within_outer_limit(_rebuild, run)
    if message.options:
        apply_received_options(run.task, message.options)
    run.hooked = (run.task,) if run.configured is None else (run.task, run.configured)
    for each in run.hooked:
        each.delivery = run
    try:
        if is_plain:
            run.time_limit = time_limit_of(run.task)
        else:
            run.time_limit = call_within_outer_limit(time_limit_of, run.task)
    except Exception as exc:  # from a timeout_timedelta of the project's own
        return failed_outside(run, exc)
    set_task_limit(run.time_limit)
    try:
        run.consumer.task_starts(run.time_limit)
    except NoTimeLeft as exc:
        return Result(outcome=Outcome.OVERDUE, reason=str(exc))
    return None
