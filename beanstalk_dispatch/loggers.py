"""The loggers of the package. A line that cannot be written costs no task."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, Final

from .log_lines import quoted_error
from .refusals import REFUSALS

LOGGERS: Final = tuple(
    f"beanstalk_dispatch{name}"
    for name in (
        "", ".endpoint", ".lambda", ".scheduling", ".sentry", ".task", ".task.connections",
        ".task.dead_letters", ".task.hooks", ".task.lease", ".task.observers", ".task.time_limit",
        ".worker",
    )
)  # fmt: skip
"""The loggers of the package."""


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
