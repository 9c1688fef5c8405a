"""The loggers of the package.

A line that cannot be written costs no task. A string of a stranger does not look like a line.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, Final

from .fields import add_fields
from .log_lines import escaped, indented, quoted_error, to_log, traceback_of
from .throttle import THROTTLE

LOGGERS: Final = tuple(
    f"beanstalk_dispatch{name}"
    for name in (
        "", ".endpoint", ".isolation", ".lambda", ".scheduling", ".sentry", ".task",
        ".task.connections", ".task.dead_letters", ".task.hooks", ".task.lease", ".task.observers",
        ".task.time_limit", ".worker",
    )
)  # fmt: skip
"""The names of the package's loggers."""
_LOGGERS_OF_TASKS: Final = ("django.tasks", "django_tasks")
"""The names of the loggers of Django's task framework and its backport, which log task errors."""


def protect_loggers() -> None:
    """Protect each logger of the package, so that no log line raises.

    A task can add a handler that raises, or close the stream of a handler. A filter or the
    record factory can raise, too. Without protection, the log lines of the next tasks would
    fail them.
    """
    for name in _LOGGERS_OF_TASKS:
        logging.getLogger(name).addFilter(_keep_from_margin)
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

    logger.addFilter(_complete)  # after those in LOGGING, which see the record as it was logged
    logger.handle = handle_safely  # type: ignore[method-assign]
    logger.makeRecord = make_record_safely  # type: ignore[method-assign]


def _complete(record: logging.LogRecord) -> bool:
    """Give a record its fields, and keep its message from the margin. Return True."""
    add_fields(record)
    return _keep_from_margin(record)


def _keep_from_margin(record: logging.LogRecord) -> bool:
    """Escape a record's message, and indent every line after its first. Return True.

    A logging.Formatter takes the traceback from ``exc_text``, where an earlier one has left it:
    https://docs.python.org/3/library/logging.html#logging.Formatter.format
    """
    line = record.getMessage()
    if not line.isprintable():
        if record.args and isinstance(
            record.args, tuple
        ):  # the template stays, for Sentry's groups
            record.args = tuple(map(_escaped_argument, record.args))
        else:
            record.msg, record.args = _escaped_argument(line), ()
    if record.exc_info and (exception := record.exc_info[1]):
        shown = to_log(exception)
        record.exc_info = type(shown), shown, shown.__traceback__
        record.exc_text = indented(traceback_of(shown).removesuffix("\n"))
    return True


def _escaped_argument(value: object) -> object:
    """Return a number as it is, and any other argument of a record as an escaped string."""
    if isinstance(value, int | float):
        return value
    first, separator, others = str(value).partition("\n")
    return escaped(first) + separator + (indented(others) if others else "")


def report_unwritten(exc: Exception) -> None:
    """Print on stderr, at most once a minute, that lines could not be written."""
    if (repeated := THROTTLE.repeated("unwritten")) is not None:
        with suppress(Exception):  # a task may have closed it
            print(
                f"log line not written{repeated} error={quoted_error(exc, with_type=True)}",
                file=sys.__stderr__,
            )
