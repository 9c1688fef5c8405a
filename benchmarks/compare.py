"""How two sides are compared: in turns in one run, each in a process of its own.

A *line* is what the run says of one side in one row: its medians, its ratios to the row's baseline
with their quartiles, and the requests and connections that the SQS server counted.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .processes import environment
from .sqs_server import Control, make_certificate

CERTIFICATE: Final = "certificate.pem"
ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A median with the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Quartiles:
        if len(figures) < 2:
            return cls(figures[0], figures[0], figures[0])
        low, median, high = statistics.quantiles(figures, n=4)
        return cls(low, median, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio that a side must not exceed, or must reach if ``at_least``."""

    bound: float
    of: str = "wall"
    """``wall`` or ``cpu``."""
    at_least: bool = False

    def is_met_by(self, ratio: Quartiles) -> bool:
        return ratio.median >= self.bound if self.at_least else ratio.median <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What the run says of one side in one row."""

    row: str
    side: str
    unit: str
    """What ``wall`` and ``cpu`` are counted for, as in "one send"."""
    wall: float | None = None
    """Median of the elapsed seconds for one unit."""
    cpu: float | None = None
    """Median of the CPU seconds of the side's processes for one unit."""
    wall_ratio: Quartiles | None = None
    """Elapsed time over the baseline's in the same round."""
    cpu_ratio: Quartiles | None = None
    requests: float | None = None
    """Requests that the server has counted, for one unit."""
    connections: float | None = None
    """Connections that the side opened, for one turn."""
    memory: float | None = None
    """Resident memory, in bytes."""
    target: Target | None = None
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        ratio = self.wall_ratio if self.target.of == "wall" else self.cpu_ratio
        return ratio is not None and self.target.is_met_by(ratio)

    def __str__(self) -> str:
        mark = {True: "PASS", False: "FALLS SHORT", None: ""}[self.is_met]
        parts = [f"{mark:<12}{self.row} · {self.side}:"]
        if self.wall is not None:
            parts.append(f"{duration(self.wall)}")
        if self.cpu is not None:
            parts.append(f"CPU {duration(self.cpu)}")
        if self.wall_ratio:
            parts.append(f"wall × {self.wall_ratio}")
        if self.cpu_ratio:
            parts.append(f"CPU × {self.cpu_ratio}")
        if self.requests is not None:
            parts.append(f"requests {self.requests:.3g}")
        if self.memory is not None:
            parts.append(f"memory {self.memory / 2**20:.0f} MB")
        if self.target:
            parts.append(f"target {self.target}")
        return "  ".join([*parts, self.note])


def duration(seconds: float) -> str:
    """Seconds with three digits and the unit that suits them."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.2g} µs"


# --- sides -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Something to measure: a module of ``benchmarks/sides``, its Python and its environment."""

    name: str
    module: str
    python: str = sys.executable
    is_peer: bool = False
    """Runs without this package on its path."""
    env: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""
    """Its queue; by default the name of its module."""
    note: str = ""

    @property
    def queue_name(self) -> str:
        return self.queue or self.module.replace("_", "-")


class Failed(RuntimeError):
    """A side could not be set up, or has ended."""


class Child:
    """The process of a side."""

    def __init__(self, side: Side, run: Run) -> None:
        self.side = side
        self._errors = run.errors_of(side)
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                (side.python, "-m", "benchmarks.sides.child", side.module),
                env=run.environment(side), cwd=run.directory_of(side), stderr=errors,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        try:
            self.start: dict[str, Any] = self._read()
        except Failed:
            self.close()
            raise

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            last = self._errors.read_text().strip().splitlines()[-1:]
            raise Failed(last[0] if last else "it ended without an error")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Have the side do something. Its elapsed and CPU time, and its memory."""
        assert self._process.stdin
        try:
            print(json.dumps({"do": operation} | parameters), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed("it has ended") from None
        return self._read()

    def close(self) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.wait()


class Run:
    """One run: the SQS server, the directory of the peers, and the lines that were found."""

    def __init__(self, control: Control, directory: Path, *, is_quick: bool) -> None:
        self.control = control
        self.is_quick = is_quick
        self.is_silent = False
        """Whether lines are kept without being printed."""
        self.lines: list[Line] = []
        self.versions: dict[str, dict[str, str]] = {}
        self.directory = directory
        self._peers = directory / "peers"
        self._peers.mkdir()
        # Peers see the benchmarks, and not this package.
        (self._peers / "benchmarks").symlink_to(ROOT / "benchmarks")

    def rounds(self, quick: int, full: int) -> int:
        return quick if self.is_quick else full

    def directory_of(self, side: Side) -> Path:
        return self._peers if side.is_peer else ROOT

    def errors_of(self, side: Side) -> Path:
        return self.directory / f"{side.module}.log"

    def environment(self, side: Side) -> dict[str, str]:
        env = environment(self.control.endpoint, str(self.directory))
        env |= {
            "BENCHMARK_ENDPOINT": self.control.endpoint,
            "BENCHMARK_QUEUE": side.queue_name,
            "BEANSTALK_DISPATCH_TABLE": TABLE,
            "AWS_ENDPOINT_URL": self.control.endpoint,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
        return {**env, **side.env}

    def add(self, line: Line) -> None:
        self.lines.append(line)
        if not self.is_silent:
            print(line, flush=True)

    @contextmanager
    def children(self, sides: Sequence[Side], row: str, unit: str) -> Iterator[list[Child]]:
        """Start the sides. One that cannot start gets a line that says why."""
        with ExitStack() as stack:
            started = []
            for side in sides:
                try:
                    child = Child(side, self)
                except Failed as exc:
                    self.add(Line(row=row, side=side.name, unit=unit, note=f"did not start: {exc}"))
                    continue
                stack.callback(child.close)
                self.versions[side.name] = child.start["versions"]
                started.append(child)
            yield started

    def compare(
        self, row: str, unit: str, turns: Sequence[Turn], *,
        rounds: int, targets: Mapping[str, Target] | None = None,
    ) -> list[Line]:  # fmt: skip
        """Let the sides take turns, and add a line for each. The first turn is the baseline."""
        before = len(self.lines)
        figures: dict[str, list[dict[str, float]]] = {turn.name: [] for turn in turns}
        broken: dict[str, str] = {}
        for number in range(-1, rounds):  # the first warms up
            for turn in turns if number % 2 else turns[::-1]:
                if turn.name in broken:
                    continue
                try:
                    if turn.warm_up:
                        turn.child.do(turn.operation, count=turn.warm_up)
                    self.control.ask("Counts")
                    took = turn.child.do(turn.operation, count=turn.count)
                except Failed as exc:
                    broken[turn.name] = str(exc)
                    continue
                counted = self.control.ask("Counts")
                if turn.after:
                    turn.after()
                if number >= 0:
                    figures[turn.name].append({
                        "wall": took["wall"] / turn.units, "cpu": took["cpu"] / turn.units,
                        "requests": sum(counted["requests"].values()) / turn.units,
                        "connections": counted["connections"],
                    })  # fmt: skip
        baseline = figures[turns[0].name]
        for turn in turns:
            if turn.name in broken:
                self.add(
                    Line(row=row, side=turn.name, unit=unit, note=f"failed: {broken[turn.name]}")
                )
                continue
            self.add(line_of(
                row, turn.name, unit, figures[turn.name], baseline,
                target=(targets or {}).get(turn.name), note=turn.note or turn.child.side.note,
            ))  # fmt: skip
        return self.lines[before:]


Figures = Sequence[Mapping[str, float]]
"""What a side took in each round, for one unit."""


def line_of(
    row: str, side: str, unit: str, found: Figures, baseline: Figures, *,
    target: Target | None = None, note: str = "",
) -> Line:  # fmt: skip
    """The line of a side. Without figures, the note says why."""
    if not found:
        return Line(row=row, side=side, unit=unit, note=note)

    def median(what: str) -> float | None:
        return statistics.median(each[what] for each in found) if what in found[0] else None

    return Line(
        row=row, side=side, unit=unit, wall=median("wall"), cpu=median("cpu"),
        wall_ratio=ratios(found, baseline, "wall"), cpu_ratio=ratios(found, baseline, "cpu"),
        requests=median("requests"), connections=median("connections"), target=target, note=note,
    )  # fmt: skip


def ratios(mine: Figures, theirs: Figures, what: str) -> Quartiles | None:
    """The ratio of each round that both have. None where the baseline's clock has not moved."""
    pairs = [(a[what], b[what]) for a, b in zip(mine, theirs, strict=False)]
    found = [a / b for a, b in pairs if b]
    return Quartiles.of(found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a side does when its turn has come."""

    name: str
    child: Child
    operation: str
    count: int
    """What the operation is asked to do that number of times."""
    unit_count: int = 0
    """Figures are for one of that number of units; by default of ``count``."""
    warm_up: int = 0
    """What it does first and unmeasured, so that the CPU's caches hold its code again."""
    after: Callable[[], object] | None = None
    """What follows the turn and is not measured."""
    note: str = ""

    @property
    def units(self) -> int:
        return self.unit_count or self.count


TABLE: Final = " ".join(
    f"{name}=benchmarks.sides.tasks.{name}"
    for name in ("noop", "cpu5", "cpu20", "sleep50", "counted50")
)


@contextmanager
def started(*, is_quick: bool) -> Iterator[Run]:
    """Start the SQS server, and stop it at the end of the block.

    A SIGTERM ends the block, so that no process is left.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as directory:
        certificate = Path(directory, CERTIFICATE)
        make_certificate(certificate)
        with subprocess.Popen(
            (sys.executable, "-m", "benchmarks.sqs_server", str(certificate)),
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        ) as server:  # fmt: skip
            try:
                assert server.stdout
                control = Control(*json.loads(server.stdout.readline()))
                yield Run(control, Path(directory), is_quick=is_quick)
            finally:
                server.kill()


def machine() -> dict[str, str]:
    """What a reader has to know about where the figures come from."""
    model = "unknown"
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "python": sys.version.split()[0],
        "load": " ".join(f"{each:.1f}" for each in os.getloadavg()),
    }
