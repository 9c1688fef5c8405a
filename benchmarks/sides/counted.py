"""One side under callgrind: each operation is a part of its own in callgrind's counts.

``python -m benchmarks.sides.counted MODULE OPERATION=COUNT…`` calls each operation twice, first to
warm up. Callgrind writes its counts at each call of ``getpgid``, which nothing else here calls.
"""

from __future__ import annotations

import importlib
import os
import sys


def main() -> None:
    operations = importlib.import_module(f".{sys.argv[1]}", __package__).operations()
    for argument in sys.argv[2:]:
        name, _, count = argument.partition("=")
        if "prepare" in operations:
            operations["prepare"](count=2 * int(count))
        operations[name](count=int(count))
        os.getpgid(0)
        operations[name](count=int(count))
        os.getpgid(0)


if __name__ == "__main__":
    main()
