"""What every log line of the package does alike: quote values, and count frequent refusals.

Function names come from messages, ids from headers, and errors from anywhere. A value must not look
like another field of its line, or like another line.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Final

INTERVAL_SECONDS: Final = 60.0
"""Between two lines about refusals of one kind."""


_OTHER_FIELD: Final = re.compile(r"\s\S*=")


def quoted(value: object) -> str:
    """A value of a field, in quotes if it contains a space or what is not printable.

    Python reads it back from the quotes with ``ast.literal_eval``.
    """
    string = _string(value)
    is_plain = string.isprintable() and " " not in string and string[:1] not in {"'", '"'}
    return string if is_plain else repr(string)


def quoted_error(value: object, *, with_type: bool = False) -> str:
    """The value of the last field, ``error=``: it may contain spaces, but no other field."""
    string = f"{type(value).__name__}: {_string(value)}" if with_type else _string(value)
    return string if string.isprintable() and not _OTHER_FIELD.search(string) else repr(string)


def _string(value: object) -> str:
    try:
        return str(value)
    except Exception:  # from a __str__() of the project's own
        return type(value).__name__


class Refusals:
    """Counts refusals by their kind. The kinds are words of this package, so they are few."""

    def __init__(self) -> None:
        self.forget_all()

    def forget_all(self) -> None:
        """A forked child has refused nothing yet, and cannot trust a lock it did not make."""
        self._lock = threading.Lock()
        self._logged_at: dict[str, float] = {}
        self._repeated: dict[str, int] = {}

    def repeated(self, kind: str) -> str | None:
        """Count a refusal. None if it is not to be logged.

        If it is to be logged, this is what its line says of those that were not, or nothing.
        """
        count = self.count(kind)
        return f" repeated={count}" if count else (None if count is None else "")

    def count(self, kind: str) -> int | None:
        """Count a refusal: how many were not reported since the last report; None: nor is this."""
        now = time.monotonic()
        with self._lock:
            logged_at = self._logged_at.get(kind)
            if logged_at is not None and now - logged_at < INTERVAL_SECONDS:
                self._repeated[kind] = self._repeated.get(kind, 0) + 1
                return None
            self._logged_at[kind] = now
            return self._repeated.pop(kind, 0)


REFUSALS: Final = Refusals()
os.register_at_fork(after_in_child=REFUSALS.forget_all)
