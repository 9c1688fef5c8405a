"""observe: surround an attempt with its observers."""

from __future__ import annotations

from beanstalk_dispatch.observers import observed
from beanstalk_dispatch.running.run import Run, Surround


def observe(run: Run) -> Surround:
    """Enter and leave the observers' ``attempting``; at its end the message's fate is known."""
    task, observers = run.task, run.entry.observers
    with observed(observers, "attempting", task, run):
        run.set_fate((yield))
    return None
