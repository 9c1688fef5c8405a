"""look up: find the message's function in the dispatch table."""

from __future__ import annotations

from beanstalk_dispatch import dispatch_table
from beanstalk_dispatch.running.run import Run


def look_up(run: Run) -> None:
    """Set ``run.entry``. Raise UnknownFunction."""
    run.entry = dispatch_table.entry(run.accepted.function, run.config)
