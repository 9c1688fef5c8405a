"""count: number the attempts of a message that is retried without a copy."""

from __future__ import annotations

from dataclasses import replace

from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.unrun_receives import UNRUN


def count(run: Run) -> None:
    """Add the earlier receives that have started the task to the message's attempt."""
    earlier = max(run.delivery.earlier_runs - UNRUN.start(run.delivery), 0)
    run.message = replace(run.message, attempt=run.message.attempt + earlier)
