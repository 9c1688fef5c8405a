"""The check that asks the database: ``manage.py check --database default``, and ``migrate``.

https://docs.djangoproject.com/en/stable/topics/checks/#builtin-tags
"""

from __future__ import annotations

from collections.abc import Sequence
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
    return [each for database in databases or () for each in _of_database(database)]


def _of_database(database: str) -> list[CheckMessage]:
    try:
        age = oldest_expired(database)
    except DatabaseError:  # before the migration the table does not exist
        return []
    if age is None or age <= MAX_AGE:
        return []
    return [problem("W019", database=database, days=age.days)]
