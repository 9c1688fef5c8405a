"""limit: surround a delivery with the outer limit."""

from __future__ import annotations

from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.running.limits.outer_limit import OuterLimit
from beanstalk_dispatch.running.run import Run, Surround


def limit(run: Run) -> Surround:
    """Keep the project's code from hanging, with the time limit that the task most likely has."""
    with OuterLimit(run.config.task_timeout.total_seconds(), lambda: label(run)):
        yield
    return None


def label(run: Run) -> str:
    """Return the name of a stuck delivery in the log."""
    if run.message is None:
        return f"message_id={quoted(run.message_id)}"
    return f"{quoted(run.message.function)} id={quoted(run.message.id)}"
