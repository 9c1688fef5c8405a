"""The part of a database's error that may be shown."""

from __future__ import annotations

from typing import Final

from django.db import DatabaseError

_MISSING_TABLE: Final = ("no such table", "does not exist", "doesn't exist")
"""The words for a missing table in errors of SQLite, PostgreSQL and MySQL."""


def describe_error(exc: DatabaseError) -> str:
    """Return the type and the first line of an error.

    A further line may show the values of a row.
    """
    line = f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}"
    is_missing = any(words in line for words in _MISSING_TABLE)
    return f"{line}; run 'manage.py migrate'" if is_missing else line
