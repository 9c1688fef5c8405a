"""The check that asks the database: ``manage.py check --database default``, and ``migrate``.

https://docs.djangoproject.com/en/stable/topics/checks/#builtin-tags
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from django.core.checks import CheckMessage
from django.db import DatabaseError

from beanstalk_dispatch.problems.findings import problem

from .pruning import oldest_expired

MAX_AGE: Final = timedelta(days=2)
"""The age of expired rows that is reported. A daily run may fail once before."""


def check(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for each database with expired results that nothing deletes."""
    found = []
    for database in databases or ():
        with suppress(DatabaseError):  # before the migration the table does not exist
            age = oldest_expired(database)
            if age is not None and age > MAX_AGE:
                found.append(problem("W019", database=database, days=age.days))
    return found
