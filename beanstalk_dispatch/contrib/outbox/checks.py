"""Checks that ask the database: ``manage.py check --database default``, and ``migrate``.

https://docs.djangoproject.com/en/stable/topics/checks/#builtin-tags
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.core.checks import CheckMessage
from django.db import DatabaseError

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.problems.findings import problem

from .status import waiting_in

MAX_WAIT_SECONDS: Final = 300
"""Seconds that a message may wait before it is reported."""


def check(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for each outbox in these databases with messages that wait too long."""
    try:
        config = conf.get_config()
    except ConfigurationError:  # E001 reports it
        return []
    own = set(config.outbox_databases if config.uses_outbox else ()).intersection(databases or ())
    return [each for database in sorted(own) for each in _of_database(database)]


def _of_database(database: str) -> Iterator[CheckMessage]:
    try:
        waiting = waiting_in(database)
    except DatabaseError:  # before the migration the table does not exist
        return
    for each in waiting:
        if each.oldest_seconds > MAX_WAIT_SECONDS:
            yield problem("W017", waiting=each, database=database)
