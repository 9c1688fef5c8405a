"""observe: surround an attempt with its observers."""

from __future__ import annotations

from beanstalk_dispatch.observers import observed
from beanstalk_dispatch.running.run import Run, Surround

from .contain import send_cut_task


def observe(run: Run) -> Surround:
    """Enter and leave the observers' ``attempting``; at its end the message's fate is known.

    A task that was cut off too often does not run. Its observers see an attempt that has the
    outcome CUT from its start.
    """
    cut = send_cut_task(run)
    task, observers = run.task, run.entry.observers
    with observed(observers, "attempting", lambda each: each.attempting(task, run)):
        run.set_fate(cut or (yield))
    return cut
