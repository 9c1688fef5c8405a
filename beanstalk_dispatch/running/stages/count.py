"""count: number the attempts of a message that is retried without a copy."""

from __future__ import annotations

from dataclasses import replace

from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.unrun_receives import UNRUN


def count(run: Run) -> None:
    """Add the earlier receives that have started the task to the message's attempt."""
    if run.retries_by_hiding:
        earlier = max(run.delivery.earlier_runs - UNRUN.start(run.delivery), 0)
        run.message = replace(run.accepted, attempt=run.accepted.attempt + earlier)
