"""The gate: what a change must not make slower, as figures that do not depend on other load.

``python -m benchmarks.gate`` counts the instructions of the hot paths with callgrind, and the
requests and connections that the SQS server gets. The bounds of these are tight. The bounds of the
ratios of times are wide. The exit code is 1 if a bound is exceeded.

Instructions are compared with those of a baseline in the same interpreter: boto3 called by hand, or
an empty view.
"""

from __future__ import annotations

import compileall
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from . import drain, rows
from .compare import Run, Side, Turn, started


class Bound(NamedTuple):
    """The highest value of a figure, and what it protects."""

    highest: float
    protects: str


INSTRUCTIONS: Final = {
    # These are above the targets of docs/benchmarks.md, which are missed: 1.033, signed 1.047, and
    # 1.088 and 1.51 were counted. Two counts of the same code differ by up to 0.003.
    "schedule_function over boto3": Bound(1.04, "one send costs what boto3 costs"),
    "schedule_function, signed, over boto3": Bound(1.053, "so does a signed one"),
    "schedule_many over boto3's batches": Bound(1.095, "a message of a batch costs its JSON"),
    "enqueue over schedule_function": Bound(1.055, "most of the excess is Django's"),
    "enqueue_many over schedule_many": Bound(1.21, "two thirds of the excess is Django's"),
    "dispatcher, signed, over an empty view": Bound(1.53, "requests per second of a worker"),
}
REQUESTS: Final = {
    "one send": Bound(1, "a queue given by its URL is not looked up"),
    "50 with on_commit": Bound(5, "fifty in a view take a tenth of the time"),
    "50 with batching": Bound(5, "fifty in a view take a twentieth of the time"),
    "50 with the outbox": Bound(5, "what is stored is sent in tens"),
    "1,000 with schedule_many": Bound(100, "a batch is full"),
    "connections of 1,000 with schedule_many": Bound(12, "twelve batches at a time"),
    "connections of 100 sends": Bound(1, "a connection is kept"),
    "a no-op in the worker": Bound(0.24, "the price of a task: a tenth of a receive and a delete"),
    "ten seconds of an idle worker": Bound(4, "the price of a worker that waits"),
}
RATIOS: Final = {
    "50 with on_commit, over one by one": Bound(0.30, "0.10"),
    "50 with batching, over one by one": Bound(0.25, "0.06"),
    "1,000 with schedule_many, over serial batches": Bound(0.45, "0.20"),
    "CPU of a no-op in the worker, over a loop by hand": Bound(2.5, "2.0"),
}
"""Times. Each protects the target of docs/benchmarks.md that stands beside it."""


class Gate:
    """Compares figures with their bounds, and remembers whether all of them were kept."""

    def __init__(self) -> None:
        self.is_green = True

    def check(self, name: str, figure: float, bound: Bound, *, detail: str = "") -> None:
        is_kept = figure <= bound.highest
        self.is_green &= is_kept
        mark = "ok" if is_kept else "TOO HIGH"
        print(
            f"{mark:<10}{name}: {figure:.4g}, at most {bound.highest:g}"
            f"{detail}; protects: {bound.protects}",
            flush=True,
        )


# --- instructions ----------------------------------------------------------------------------

_SIGNED: Final = {"BEANSTALK_DISPATCH_SIGNING_KEYS": rows.SIGNING_KEY}
_COUNTED: Final = {
    "raw": (Side(name="boto3 by hand", module="raw"), {"one": 100, "many": 300}),
    "ours": (rows.OURS, {"one": 100}),
    # Up to 30 messages are sent without threads.
    "ours 30": (rows.OURS, {"many": 30}),
    "signed": (rows.ours("signed", **_SIGNED), {"one": 100}),
    "tasks": (
        Side(name="Django's tasks", module="ours_tasks", env=rows.LISTED),
        {"schedule": 100, "enqueue": 100, "schedule_many": 30, "enqueue_many": 30},
    ),
    "endpoint": (
        Side(name="endpoint", module="endpoint", env=_SIGNED), {"empty": 100, "dispatch": 100},
    ),
}  # fmt: skip


def count_instructions(run: Run, name: str) -> dict[str, float]:
    """The instructions of each operation of a side, for one of its count."""
    side, operations = _COUNTED[name]
    out = run.directory / f"callgrind {name}"
    command = [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-before=getpgid",
        side.python, "-m", "benchmarks.sides.counted", side.module,
        *(f"{operation}={count}" for operation, count in operations.items()),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=run.environment(side), cwd=run.directory_of(side),
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    # Parts 2, 4, … are the operations; the odd ones before them are the start and the warm-ups.
    return {
        operation: _total(out.with_name(f"{out.name}.{2 * (number + 1)}").read_text()) / count
        for number, (operation, count) in enumerate(operations.items())
    }


def _total(counts: str) -> int:
    (total,) = re.findall(r"^(?:totals|summary): (\d+)", counts, re.MULTILINE)[:1]
    return int(total)


def instructions(run: Run, gate: Gate) -> None:
    with ThreadPoolExecutor(2) as pool:  # counts do not depend on other load
        found = dict(zip(_COUNTED, pool.map(lambda name: count_instructions(run, name), _COUNTED),
                         strict=True))  # fmt: skip
    raw, tasks, view = found["raw"], found["tasks"], found["endpoint"]
    for name, mine, baseline in (
        ("schedule_function over boto3", found["ours"]["one"], raw["one"]),
        ("schedule_function, signed, over boto3", found["signed"]["one"], raw["one"]),
        ("schedule_many over boto3's batches", found["ours 30"]["many"], raw["many"]),
        ("enqueue over schedule_function", tasks["enqueue"], tasks["schedule"]),
        ("enqueue_many over schedule_many", tasks["enqueue_many"], tasks["schedule_many"]),
        ("dispatcher, signed, over an empty view", view["dispatch"], view["empty"]),
    ):
        detail = f" ({mine:,.0f} of {baseline:,.0f} instructions)"
        gate.check(name, mine / baseline, INSTRUCTIONS[name], detail=detail)


# --- requests --------------------------------------------------------------------------------


def requests(run: Run, gate: Gate) -> None:
    outbox = rows.outbox_side(run)
    with run.children([rows.OURS, outbox], "requests", "send") as (ours, stores):
        stores.do("migrate")
        for child, operation in ((ours, "one"), (stores, "outbox_many")):
            child.do(operation, count=1)  # it looks the queue up by its name
        stores.do("flush")
        for name, operation, count in (
            ("one send", "one", 1), ("50 with on_commit", "on_commit", 50),
            ("50 with batching", "batching", 50), ("1,000 with schedule_many", "many", 1_000),
        ):  # fmt: skip
            run.control.ask("Counts")
            ours.do(operation, count=count)
            counted = run.control.ask("Counts")
            gate.check(name, sum(counted["requests"].values()), REQUESTS[name])
        name = "connections of 1,000 with schedule_many"
        gate.check(name, counted["connections"], REQUESTS[name])
        run.control.ask("Counts")
        stores.do("outbox_many", count=50)
        stores.do("flush")
        counted = run.control.ask("Counts")
        name = "50 with the outbox"
        gate.check(name, sum(counted["requests"].values()), REQUESTS[name])
    with run.children([rows.OURS], "requests", "send") as (ours,):
        run.control.ask("Counts")
        ours.do("one", count=100)
        name = "connections of 100 sends"
        gate.check(name, run.control.ask("Counts")["connections"], REQUESTS[name])


# --- ratios ----------------------------------------------------------------------------------


def _waits(run: Run) -> Iterator[tuple[str, float]]:
    run.control.ask("Latency", seconds=rows.LATENCY_SECONDS)
    with run.children([rows.RAW, rows.OURS], "waits", "view") as (raw, ours):
        for names, baseline, operations, count in (
            (
                ("50 with on_commit, over one by one", "50 with batching, over one by one"),
                "one",
                ("on_commit", "batching"),
                50,
            ),
            (("1,000 with schedule_many, over serial batches",), "many", ("many",), 1_000),
        ):
            turns = [Turn(name="one by one", child=raw, operation=baseline, count=count)]
            turns += [Turn(name=name, child=ours, operation=operation, count=count)
                      for name, operation in zip(names, operations, strict=True)]  # fmt: skip
            for line in run.compare("waits", "view", turns, rounds=5)[1:]:
                assert line.wall_ratio
                yield line.side, line.wall_ratio.median
    run.control.ask("Latency", seconds=0)


def ratios(run: Run, gate: Gate) -> None:
    for name, ratio in _waits(run):
        gate.check(name, ratio, RATIOS[name])
    found = drain.against_one_loop(run, tasks=2_000, rounds=3)
    name = "CPU of a no-op in the worker, over a loop by hand"
    gate.check(name, found.cpu_ratio, RATIOS[name])
    gate.check("a no-op in the worker", found.requests, REQUESTS["a no-op in the worker"])
    name = "ten seconds of an idle worker"
    gate.check(name, found.idle_requests, REQUESTS[name])


def main() -> int:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: apt-get install valgrind", file=sys.stderr)
        return 2
    for folder in ("beanstalk_dispatch", "benchmarks"):
        compileall.compile_dir(folder, quiet=1)  # a process that compiles counts 1 to 2 % more
    gate, began = Gate(), time.monotonic()
    with started(is_quick=True) as run:
        run.is_silent = True
        requests(run, gate)
        ratios(run, gate)
        instructions(run, gate)
    print(f"{'all bounds are kept' if gate.is_green else 'FAILED'}; "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return 0 if gate.is_green else 1


ALL: Final[Mapping[str, Bound]] = {**INSTRUCTIONS, **REQUESTS, **RATIOS}

if __name__ == "__main__":
    sys.exit(main())
