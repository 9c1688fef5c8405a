"""What every log line of the package does alike: quote and shorten values, and count refusals.

Function names come from messages, ids from headers, and errors from anywhere. A value must not look
like another field of its line, or like another line, and must not fill the log. A line that cannot
be written costs no task.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

LOGGERS: Final = tuple(
    f"beanstalk_dispatch{name}"
    for name in (
        "", ".endpoint", ".lambda", ".scheduling", ".sentry", ".task", ".task.connections",
        ".task.dead_letters", ".task.hooks", ".task.lease", ".task.observers", ".task.time_limit",
        ".worker",
    )
)  # fmt: skip
"""The loggers of the package."""

INTERVAL_SECONDS: Final = 60.0
"""Between two lines about refusals of one kind."""
MAX_VALUE: Final = 4_000
"""Characters of a value that are logged."""
MAX_TRACEBACK: Final = 20_000
"""Characters of a traceback that are kept in a result and in a dead letter."""

_OTHER_FIELD: Final = re.compile(r"\s\S*=")


def quoted(value: object) -> str:
    """A value of a field, in quotes if it contains a space or what is not printable.

    Python reads it back from the quotes with ``ast.literal_eval``.
    """
    string = _to_string(value)
    is_plain = string.isprintable() and " " not in string and string[:1] not in {"'", '"'}
    return string if is_plain else repr(string)


def quoted_error(value: object, *, with_type: bool = False) -> str:
    """The value of the last field, ``error=``: it may contain spaces, but no other field."""
    string = f"{type(value).__name__}: {_to_string(value)}" if with_type else _to_string(value)
    return string if string.isprintable() and not _OTHER_FIELD.search(string) else repr(string)


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
    """The string, or its start and its end if it has more than ``limit`` characters."""
    if len(string) <= limit:
        return string
    left_out = f" [{len(string) - limit:,} characters] "
    half = limit // 2
    return f"{string[:half]}{left_out}{string[-half:]}"


def traceback_of(exception: BaseException | None) -> str:
    """The traceback as a string. It is shortened in the middle: its end names the error."""
    try:
        return shortened("".join(traceback.format_exception(exception)), MAX_TRACEBACK)
    except Exception:  # from a __class__ of the project's own
        return type(exception).__name__


def failed_line(exception: BaseException) -> str:
    """The line of a module whose import has failed, as `` at FILE:LINE``.

    Empty if no module has begun to run, as when there is none.
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
    """Stands in a log for an exception whose message is too long for one. Shows both ends of it."""


def to_log(exception: BaseException) -> BaseException:
    """The exception for ``exc_info``, or what stands for it if a message in it is very long.

    Something also stands for one that cannot be looked at.
    """
    with suppress(Exception):
        if all(len(_whole_string(each)) <= MAX_TRACEBACK for each in _exception_chain(exception)):
            return exception
    return LongTraceback(traceback_of(exception))


def _exception_chain(exception: BaseException) -> Iterator[BaseException]:
    """The exception, and all that a traceback shows with it."""
    waiting: list[BaseException | None] = [exception]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]
            waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else []


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


# --- lines that cannot be written ------------------------------------------------------------


def protect_loggers() -> None:
    """Have no log line of the package raise, whatever a handler, a filter or the factory does.

    A task can add a handler that raises, or close the stream of one. Without this, what is logged
    about the next tasks would fail them.
    """
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if "handle" not in vars(logger):
            _protect_logger(logger)


def _protect_logger(logger: logging.Logger) -> None:
    handle, make_record = logger.handle, logger.makeRecord

    def handle_safely(record: logging.LogRecord) -> None:
        try:
            handle(record)
        except Exception as exc:
            report_unwritten(exc)

    def make_record_safely(*values: Any, **options: Any) -> logging.LogRecord:
        try:
            return make_record(*values, **options)
        except Exception as exc:  # of logging.setLogRecordFactory()
            report_unwritten(exc)
            return logging.LogRecord(*values[:8])

    logger.handle = handle_safely  # type: ignore[method-assign]
    logger.makeRecord = make_record_safely  # type: ignore[method-assign]


def report_unwritten(exc: Exception) -> None:
    """Say on stderr, at most once a minute, that lines could not be written."""
    if (repeated := REFUSALS.repeated("unwritten")) is not None:
        with suppress(Exception):  # a task may have closed it
            print(
                f"log line not written{repeated} error={quoted_error(exc, with_type=True)}",
                file=sys.__stderr__,
            )
