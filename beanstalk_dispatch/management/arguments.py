"""Types and actions of argparse for the options of more than one command."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from beanstalk_dispatch.dead_letters.dead_letter import parse_since

LARGEST: Final = sys.float_info.max
"""The largest number that is not infinite."""


def number(low: float, high: float, *, expected: str) -> Callable[[str], float]:
    """Return a cast to a number within a range, which an error names in the words ``expected``."""

    def parse(argument: str) -> float:
        try:
            found = float(argument)
        except ValueError:
            found = math.nan  # which is in no range
        if not low <= found <= high:
            raise argparse.ArgumentTypeError(f"expected {expected}, not {argument!r}")
        return found

    return parse


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
    """An option that was removed. The help omits it, and its error says the replacement."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, replacement: str) -> None:
        """Take the advice that the error gives."""
        super().__init__(option_strings, dest, help=argparse.SUPPRESS)
        self._replacement = replacement

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        """End with an error of the command line."""
        parser.error(f"{self.option_strings[0]} was removed; {self._replacement}")


def add_removed_options(parser: argparse.ArgumentParser, options: Mapping[str, str]) -> None:
    """Have each of these options end with an error that says its replacement."""
    for option, replacement in options.items():
        parser.add_argument(option, action=RemovedOption, replacement=replacement)


def since(argument: str) -> float:
    """Read an age or a date as an argparse type, in Unix seconds."""
    try:
        return parse_since(argument)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
