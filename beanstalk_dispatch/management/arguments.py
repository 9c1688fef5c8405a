"""Types and actions of argparse for the options of more than one command."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn


def to_number(argument: str) -> float:
    """Return a number. The answer for anything else is NaN, which is in no range."""
    try:
        return float(argument)
    except ValueError:
        return math.nan


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a cast to an integer within a range."""

    def parse(argument: str) -> int:
        if not argument.lstrip("-").isdecimal() or not low <= int(argument) <= high:
            raise argparse.ArgumentTypeError(
                f"expected an integer from {low} to {high}, not {argument!r}"
            )
        return int(argument)

    return parse


class RemovedOption(argparse.Action):
    """An option that was removed from beanstalk_worker.

    Its error says which one to type instead.
    """

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        """End with an error of the command line."""
        parser.error(
            f"{self.option_strings[0]} was removed; write manage.py beanstalk_daemon QUEUE URL"
        )
