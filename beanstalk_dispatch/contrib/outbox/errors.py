"""What is shown of a database's error."""

from __future__ import annotations

from typing import Final

from django.db import DatabaseError

_MISSING_TABLE: Final = ("no such table", "does not exist", "doesn't exist")
"""As SQLite, PostgreSQL and MySQL say it."""


def describe_error(exc: DatabaseError) -> str:
    """The type and the first line of an error. A further line may show the values of a row."""
    line = f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}"
    is_missing = any(words in line for words in _MISSING_TABLE)
    return f"{line}; run 'manage.py migrate'" if is_missing else line
