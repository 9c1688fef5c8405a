"""Types of argparse for the options of more than one command."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def integer(low: int, high: int) -> Callable[[str], int]:
    """An integer within a range."""

    def parse(argument: str) -> int:
        if not argument.lstrip("-").isdecimal() or not low <= int(argument) <= high:
            raise argparse.ArgumentTypeError(
                f"expected an integer from {low} to {high}, not {argument!r}"
            )
        return int(argument)

    return parse
