"""The end of a delivery without its task: sent again, cancelled, or expired."""

from __future__ import annotations

import logging
from dataclasses import replace

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import (
    BeanstalkDispatchError,
    ConfigurationError,
    NotImportable,
    TaskCancelled,
    UnknownFunction,
)
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, now
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.observers import observed
from beanstalk_dispatch.safe_task import SafeTask

from .consumer import NOBODY
from .definitions.configured import configured_observers
from .definitions.dispatch_table import entry
from .definitions.entries import Entry
from .leases.lease import WHY_CANCELLED
from .run import Run

logger = logging.getLogger("beanstalk_dispatch.task")


def cancelled(run: Run, reason: str = WHY_CANCELLED) -> Result:
    """End a cancelled task, whose child has ended if there was one."""
    return unwanted(run, Outcome.CANCELLED, TaskCancelled(reason))


def end_unsent(message: Message, queue: str, config: Config) -> None:
    """End a cancelled task whose message no queue has. Its observers see that as on a worker."""
    run = Run(Delivery(queue=queue), config, NOBODY)
    run.message = message
    try:
        run.entry = entry(message.function, config)
    except (UnknownFunction, ConfigurationError):  # such as in a web process without the table
        run.entry = Entry(task_class=SafeTask, observers=configured_observers(config))
    cancelled(run, "it was cancelled before it was sent")
    logger.info(
        "cancelled in the outbox id=%s function=%s", quoted(message.id), quoted(message.function)
    )


def unwanted(run: Run, outcome: Outcome, error: Exception) -> Result:
    """End a task that does not run. Observers see that before the message is deleted."""
    run.outcome, run.exception = outcome, error
    with observed(run.entry.observers, "cancelling", run):
        return Result(outcome=outcome, reason=str(error))


def sent_again(
    run: Run, message: Message, delay: float, outcome: Outcome, *, waits_because: str = ""
) -> Result:
    """Send the message again in ``delay`` seconds, and acknowledge it only if that was done.

    ``waits_because`` is the first part of the Result's reason. If the send fails, an earlier
    failure of the run stays its exception.

    With MAX_AGE the copy says that it was sent now, because its signature is its own. The copy of
    an unknown name keeps its time, which limits its wait.
    """
    is_unknown = isinstance(run.exception, UnknownFunction)
    if run.config.max_age and (not is_unknown or isinstance(run.exception, NotImportable)):
        message = replace(message, sent_at=now())
    try:
        run.consumer.resend(message, delay, run.delivery)
    except BeanstalkDispatchError as exc:
        logger.error(
            "message could not be sent again id=%s function=%s error=%s",
            quoted(message.id), quoted(message.function), quoted_error(exc),
        )  # fmt: skip
        if run.exception is None:
            run.exception = exc
        return Result(outcome=Outcome.FAILED, reason="could not be sent again")
    reason = f"{waits_because}; the message waits for {delay:.0f} s" if waits_because else ""
    return Result(outcome=outcome, reason=reason, successor=Successor.COPY)
