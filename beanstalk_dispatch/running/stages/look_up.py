"""look up: find the message's function in the dispatch table."""

from __future__ import annotations

from beanstalk_dispatch.exceptions import NotImportable, TaskTimeout
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.definitions.entries import entries_by_name
from beanstalk_dispatch.running.limits.outer_limit import call_import
from beanstalk_dispatch.running.process_exceptions import is_for_the_process
from beanstalk_dispatch.running.run import Run


def look_up(run: Run) -> None:
    """Set ``run.entry``. Raise UnknownFunction if the table has no such name.

    Raise NotImportable, which is one, also for an import that exits or takes too long.
    """
    name = run.message.function
    if (made := entries_by_name(run.config).get(name)) is not None:
        run.entry = made
        return
    try:
        run.entry = call_import(dispatch_table.entry, name, run.config)
    except (SystemExit, TaskTimeout) as exc:
        if is_for_the_process(exc):
            raise
        raise NotImportable(f"the import of {name} raises {exc!r}") from exc
