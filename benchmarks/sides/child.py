"""The process of one side: reads what to do from its standard input, and says how long it took.

``python -m benchmarks.sides.child MODULE`` sets the side up and prints a line of JSON. Then each
line of its input is a JSON object with ``do``, the name of an operation, and its parameters. It is
answered with the elapsed time and the CPU time of all threads of this process, in seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from importlib import metadata
from typing import Any


def versions(names: list[str]) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def memory() -> int:
    """The resident memory of this process, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what a library prints goes to standard error
    os.dup2(2, 1)
    module = importlib.import_module(f".{sys.argv[1]}", __package__)
    operations = module.operations()

    def answer(**figures: Any) -> None:
        print(json.dumps(figures), file=answers, flush=True)

    answer(cpu=time.process_time(), memory=memory(), versions=versions(module.DISTRIBUTIONS))
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        operation = operations[asked.pop("do")]
        wall, cpu = time.perf_counter(), time.process_time()
        result = operation(**asked)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        answer(wall=wall, cpu=cpu, memory=memory(), result=result)


if __name__ == "__main__":
    main()
