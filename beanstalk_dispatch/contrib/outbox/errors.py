"""What may be shown of a database's error."""

from __future__ import annotations

from django.db import DatabaseError


def first_line(exc: DatabaseError) -> str:
    """The type and the first line of an error. A further line may show the values of a row."""
    return f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}"
