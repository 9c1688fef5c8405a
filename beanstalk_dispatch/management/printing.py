"""The bases of the commands that print, which people need most when something is wrong."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Iterable
from typing import Any, Final, TextIO

from django.core.checks import ERROR, WARNING, CheckMessage
from django.core.management.base import BaseCommand, CommandError

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, ConfigurationError
from beanstalk_dispatch.problems.findings import as_dict, lines
from beanstalk_dispatch.queues.waiting import problem_of

_FAIL_LEVELS: Final = {"ERROR": ERROR, "WARNING": WARNING}

EXIT_NO_READER: Final = 141
"""The exit code that a shell shows for a program that SIGPIPE has ended: 128 + 13."""


class PrintingCommand(BaseCommand):
    """A command that ends without a message once nobody reads its output, as ``head`` does.

    Closed streams are opened, and a full disk is one sentence.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the streams that a cron job or a supervisor has closed."""
        sys.stdout = sys.stdout or _nowhere()
        sys.stderr = sys.stderr or _nowhere()
        super().__init__(*args, **kwargs)

    def check(self, *args: Any, **options: Any) -> None:
        """Run no system check: a failing one is a reason to use the command."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command. An error of this package is one line, and not a traceback."""
        if conf.wants_no_color() and not options["force_color"]:
            options["no_color"] = True
        try:
            return super().execute(*args, **options)
        except ConfigurationError as exc:
            raise CommandError(str(exc)) from exc
        except BeanstalkDispatchError as exc:
            raise CommandError(problem_of(exc)) from exc
        except EOFError:
            raise CommandError("the input has ended before a question was answered") from None

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command. The rest of its buffer is written here, and not at Python's exit."""
        try:
            try:
                super().run_from_argv(argv)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
            sys.exit(EXIT_NO_READER)
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            _discard_output()
            self.stderr.write(f"CommandError: {exc}")
            sys.exit(1)


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def _discard_output() -> None:
    """Let Python's exit write what is left of the buffer to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ReportingCommand(PrintingCommand):
    """A command that reports problems and their hints, as ``manage.py check`` does."""

    def add_report_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of every report."""
        # fmt: off
        parser.add_argument("--json", action="store_true", help="write JSON, for programs")
        parser.add_argument("--fail-level", type=str.upper, choices=_FAIL_LEVELS, default="ERROR",
            help="what makes the exit code 1 (default %(default)s)")
        # fmt: on

    def report(self, findings: Iterable[CheckMessage], options: dict[str, Any]) -> None:
        """Write each finding as it is made, or all as JSON. Exit with 1 if one is that bad.

        The ids in SILENCED_SYSTEM_CHECKS are left out.
        """
        found: list[CheckMessage] = []
        for finding in findings:
            if finding.is_silenced():
                continue
            found.append(finding)
            if not options["json"]:
                self.stdout.write("\n".join(lines([finding])))
        if options["json"]:
            self.stdout.write(json.dumps(as_dict(found), indent=2))
        if any(finding.level >= _FAIL_LEVELS[options["fail_level"]] for finding in found):
            sys.exit(1)
