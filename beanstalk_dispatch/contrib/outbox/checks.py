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
from beanstalk_dispatch.problems.findings import problem

from .status import waiting_in

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
            yield problem("W017", waiting=each, database=database)
