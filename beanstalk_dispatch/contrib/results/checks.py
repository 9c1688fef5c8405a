"""The check that asks the database: ``manage.py check --database default``, and ``migrate``.

https://docs.djangoproject.com/en/stable/topics/checks/#builtin-tags
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django.core import checks
from django.core.checks import CheckMessage, Tags
from django.db import DatabaseError

from .pruning import oldest_expired

ID: Final = "beanstalk_dispatch"
MAX_AGE: Final = timedelta(days=2)
"""The age of expired rows that is reported. A daily run may fail once before."""


def register() -> None:
    """Add the check to those of ``manage.py check --database``."""
    checks.register(check, Tags.database)


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
    return [
        checks.Warning(
            f"Nothing deletes the results that have expired: the oldest in the database "
            f"{database!r} has expired {age.days} days ago.",
            hint="Run 'manage.py beanstalk_results prune' every day, or the periodic task "
            "beanstalk_dispatch.contrib.results.pruning.prune_results.",
            id=f"{ID}.W019",
        )
    ]
