"""Quote, escape and shorten values for log lines, tables, tracebacks and pages.

Function names come from messages, ids from headers, and errors from anywhere. A value must not look
like another field of its line, or like another line, and must not fill the log.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

MAX_VALUE: Final = 4_000
"""The number of characters of a value that are logged."""
MAX_TRACEBACK: Final = 20_000
"""The number of characters of a traceback that are kept in a result and in a dead letter."""
MAX_CHAIN: Final = 50
"""The number of exceptions whose tracebacks are logged in full if they are shown together."""

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_OTHER_FIELD: Final = r"\s\S*="


def joined(names: Iterable[str], limit: int = 20) -> str:
    """Return the sorted names with commas between them, or ``none``. Show ``limit`` of them."""
    shown = sorted(names)
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return (", ".join(shown[:limit]) or "none") + more


def quoted(value: object) -> str:
    """Return a field's value, in quotes if it contains a space or an unprintable character.

    Python reads it back from the quotes with ``ast.literal_eval``.
    """
    string = value if type(value) is str and len(value) <= MAX_VALUE else _to_string(value)
    is_plain = string.isprintable() and " " not in string and string[:1] not in {"'", '"'}
    return string if is_plain else repr(string)


def quoted_error(value: object, *, with_type: bool = False) -> str:
    """Return the value of the last field, ``error=``: it may contain spaces, but no other field."""
    string = f"{type(value).__name__}: {_to_string(value)}" if with_type else _to_string(value)
    return string if string.isprintable() and not re.search(_OTHER_FIELD, string) else repr(string)


def _to_string(value: object) -> str:
    return shortened(_whole_string(value), MAX_VALUE)


def _whole_string(value: object) -> str:
    try:
        return str(value)
    except Exception:  # from a __str__() of the project's own
        return type(value).__name__
    except BaseException:  # from there too, such as the panic of an extension
        if threading.current_thread() is threading.main_thread():
            raise  # it may be Ctrl-C
        return type(value).__name__


def shortened(string: str, limit: int) -> str:
    """Return the string, or its start and end if it has more than ``limit`` characters."""
    if len(string) <= limit:
        return string
    left_out = f" [{len(string) - limit:,} characters] "
    half = limit // 2
    return f"{string[:half]}{left_out}{string[-half:]}"


def escaped(string: str) -> str:
    """Return the string with an escape for each character that is not printable.

    Such a character begins another line, moves the cursor of a terminal, or turns the direction in
    which the rest is read (U+202E).
    """
    if string.isprintable():
        return string
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in string)


def escaped_lines(string: str) -> str:
    """Return the string with its line breaks, and with other unprintable characters escaped."""
    return "\n".join(map(escaped, string.split("\n")))


def duration(seconds: float) -> str:
    """Return a time in its largest units: ``3d 4h``, ``12m``."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for size, unit in _UNITS:
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts) or "0s"


def indented(string: str) -> str:
    """Return the string escaped, with each of its lines indented.

    So no string of a stranger looks like a line of the log.
    """
    lines = escaped_lines(string).split("\n")
    return "\n".join(each if each[:1] == " " else f"  {each}" for each in lines)


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], *, is_cut: bool = True
) -> Iterator[str]:
    """Yield the lines of a table, with its heading in capitals.

    With ``is_cut``, each is cut off at the width of the terminal if there is one.
    """
    has_width = is_cut and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if has_width else None
    cells = [[each.upper() for each in heading], *([escaped(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()[:width]


def traceback_of(exception: BaseException | None) -> str:
    """Return the traceback as a string, shortened in the middle: its end names the error."""
    try:
        return shortened("".join(traceback.format_exception(exception)), MAX_TRACEBACK)
    except Exception:  # from a __class__ of the project's own
        return type(exception).__name__


def failed_line(exception: BaseException) -> str:
    """Return the line of a module whose import has failed, as `` at FILE:LINE``.

    Return an empty string if no module has begun to run, as when there is none.
    """
    frames = [
        each
        for each in traceback.extract_tb(exception.__traceback__)
        if not each.filename.startswith("<frozen")  # those of the import system
    ]
    if all(each.name != "<module>" for each in frames):
        return ""
    return f" at {frames[-1].filename}:{frames[-1].lineno}"


class LongTraceback(Exception):
    """A stand-in for an exception whose message or chain is too long for a log.

    It shows both ends of the traceback.
    """


def to_log(exception: BaseException) -> BaseException:
    """Return the exception for ``exc_info``, or a LongTraceback if it would fill the log.

    That is one with a very long message, or with more than MAX_CHAIN exceptions that led to it.
    Return a LongTraceback for an exception that cannot be read, too.
    """
    with suppress(Exception):
        chain = list(islice(_exception_chain(exception), MAX_CHAIN + 1))
        is_short = len(chain) <= MAX_CHAIN
        if is_short and all(len(_whole_string(each)) <= MAX_TRACEBACK for each in chain):
            return exception
    return LongTraceback(traceback_of(exception))


def _exception_chain(exception: BaseException) -> Iterator[BaseException]:
    """Yield the exception, and each exception that a traceback shows with it."""
    waiting: list[BaseException | None] = [exception]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]
            waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else []
