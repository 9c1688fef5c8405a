"""Checks that ask the database: ``manage.py check --database default``, and ``migrate``.

https://docs.djangoproject.com/en/stable/topics/checks/#builtin-tags
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
    found: list[CheckMessage] = []
    own = config.outbox_databases if config.uses_outbox else ()
    for database in (each for each in databases or () if each in own):
        with suppress(DatabaseError):  # before the migration the table does not exist
            found += [
                problem("W017", waiting=each, database=database)
                for each in waiting_in(database)
                if each.oldest_seconds > MAX_WAIT_SECONDS
            ]
    return found
