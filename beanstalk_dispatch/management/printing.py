"""The base of the commands that print, which people need most when something is wrong."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from beanstalk_dispatch.exceptions import ConfigurationError

EXIT_NO_READER: Final = 141
"""What a shell shows for a program that SIGPIPE has ended: 128 + 13."""


class PrintingCommand(BaseCommand):
    """A command that ends without a message once nobody reads what it prints, as ``head`` does.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """

    def check(self, *args: Any, **options: Any) -> None:
        """Run no system check: a failing one is a reason to use the command."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command. A wrong configuration is one line, and not a traceback."""
        try:
            return super().execute(*args, **options)
        except ConfigurationError as exc:
            raise CommandError(str(exc)) from exc

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the command. What its buffer still has is written here, and not at Python's exit."""
        try:
            try:
                super().run_from_argv(argv)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            # Python's exit writes to stdout again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_NO_READER)
