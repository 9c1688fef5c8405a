"""Checks that ask the database: ``manage.py check --database default``, and ``migrate``.

https://docs.djangoproject.com/en/stable/topics/checks/#builtin-tags
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.core import checks
from django.core.checks import CheckMessage, Tags
from django.db import DatabaseError

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import ConfigurationError

from .status import waiting_in

ID: Final = "beanstalk_dispatch"
MAX_WAIT_SECONDS: Final = 300
"""Seconds that a message may wait before it is reported."""


def register() -> None:
    """Add the check to those of ``manage.py check --database``."""
    checks.register(check, Tags.database)


def check(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for each outbox in these databases with messages that wait too long."""
    try:
        config = conf.get_config()
    except ConfigurationError:  # E001 reports it
        return []
    found: list[CheckMessage] = []
    for database in databases or ():
        if config.uses_outbox and database in config.outbox_databases:
            found += _of_database(database)
    return found


def _of_database(database: str) -> Iterator[CheckMessage]:
    try:
        waiting = waiting_in(database)
    except DatabaseError:  # before the migration the table does not exist
        return
    for each in waiting:
        if each.oldest_seconds > MAX_WAIT_SECONDS:
            yield checks.Warning(
                f"{each.count} messages for the queue {each.queue!r} wait in the outbox of the "
                f"database {database!r}, the oldest for {each.oldest_seconds:.0f} s.",
                hint="Run 'manage.py beanstalk_outbox --status' to see why, and let a relay run.",
                id=f"{ID}.W017",
            )
