"""look up: find the message's function in the dispatch table."""

from __future__ import annotations

from beanstalk_dispatch import dispatch_table
from beanstalk_dispatch.exceptions import NotImportable
from beanstalk_dispatch.running.process_exceptions import is_for_the_process
from beanstalk_dispatch.running.run import Run


def look_up(run: Run) -> None:
    """Set ``run.entry``. Raise UnknownFunction, also for a module that exits at its import."""
    name = run.accepted.function
    try:
        run.entry = dispatch_table.entry(name, run.config)
    except SystemExit as exc:
        if is_for_the_process(exc):
            raise
        raise NotImportable(f"the import of {name} raises {exc!r}") from exc
