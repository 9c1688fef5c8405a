"""How workers and their cost grow with the number of tasks: a simulation, and what it is worth.

``python -m benchmarks.scaling`` simulates one process of ``beanstalk_worker`` for some kinds of
tasks, and prints what 10, 1,000 and 100,000 tasks a second need. ``--check`` compares the
simulation with the drains of the last report of ``python -m benchmarks``. ``--docs`` writes the
tables of docs/benchmarks.md.

A process is simulated event by event: its threads, the one CPU that Python lets them use at a time,
the receives of up to ten messages, and the deletes of up to ten. Processes share nothing but the
queue, and a standard queue has no limit of its own to requests, so that any number of processes is
that number times one of them.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from .compare import ROOT, duration

PAGE: Final = ROOT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- `python -m benchmarks.scaling --docs` writes what follows. -->"
END: Final = "<!-- End of what it writes. -->"

THREADS: Final = 10
BATCH: Final = 10
MAX_AHEAD: Final = 40
"""Messages that a worker holds beyond those that run: see docs/decisions/06-receive-ahead.md."""
MAX_OPEN_RECEIVES: Final = 4
BATCH_SECONDS: Final = 0.3
"""How long a delete waits for others."""

# Dollars. https://aws.amazon.com/sqs/pricing/ and https://aws.amazon.com/ec2/pricing/on-demand/
REQUEST_TIERS: Final = ((100e9, 0.40e-6), (200e9, 0.30e-6), (math.inf, 0.24e-6))
"""Up to that number of requests in a month, each costs that much; standard queues, us-east-1."""
FREE_REQUESTS: Final = 1e6
VCPU_HOUR: Final = 0.03625
"""Half of a c7g.large, on demand, Linux, us-east-1."""
HOURS: Final = 730
SECONDS: Final = HOURS * 3600

IN_FLIGHT_LIMIT: Final = 120_000
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html"""
HEADROOM: Final = 0.7
"""The share of a process's rate that is planned with, so that a burst does not pile up."""


class Task(NamedTuple):
    """A kind of task: the CPU that it uses, and how long it waits for other services."""

    name: str
    cpu: float
    wait: float


class Machine(NamedTuple):
    """What one process costs besides its tasks."""

    overhead: float
    """CPU seconds of the worker for one task, from the receive to the delete."""
    latency: float
    """Seconds of a request to SQS."""


@dataclass(slots=True)
class Simulated:
    """What one process did."""

    seconds: float
    tasks: int
    receives: int
    deletes: int
    held_seconds: float
    """The sum over all messages of the time from receive to delete."""

    @property
    def rate(self) -> float:
        return self.tasks / self.seconds

    @property
    def requests(self) -> float:
        """Receives and deletes for one task."""
        return (self.receives + self.deletes) / self.tasks

    @property
    def in_flight(self) -> float:
        """Messages that are in flight on average (Little's law)."""
        return self.held_seconds / self.seconds


class Process:
    """One process of the worker, until it has run ``tasks`` tasks.

    With a ``rate`` they are sent at random moments, that number a second on average. Without one
    all of them are in the queue at the start.
    """

    def __init__(
        self, task: Task, machine: Machine, *,
        tasks: int, rate: float | None = None, threads: int = THREADS,
    ) -> None:  # fmt: skip
        self.task, self.machine = task, machine
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._threads = self._idle_threads = threads
        self._cpu_free_at = 0.0
        self._average = 0.0
        """Seconds of a task, as a moving average; 0 before the first has ended."""
        self._to_take = tasks
        """Messages that no receive has brought."""
        self._visible = 0 if rate else tasks
        self._polls: deque[int] = deque()
        """The counts of the long polls that wait for a message."""
        self._open_receives = 0
        self._expected = 0
        """Messages that the open receives will most likely bring."""
        self._is_busy = False
        """Whether the last receive brought more than half of what it asked for."""
        self._received: deque[float] = deque()
        self._to_delete: deque[float] = deque()
        self._delete_is_due = False
        self.result = Simulated(0.0, 0, 0, 0, 0.0)
        sent_at = 0.0
        random = Random(1)
        for _ in range(tasks if rate else 0):
            sent_at += random.expovariate(rate or 1)
            self._at(sent_at, self._arrive)

    def run(self) -> Simulated:
        self._receive()
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            event()
        return self.result

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    # --- the queue ---------------------------------------------------------------------------

    def _arrive(self) -> None:
        self._visible += 1
        if self._polls:
            self._answer(self._polls.popleft())

    def _answer(self, count: int) -> None:
        brought = min(count, self._visible)
        self._visible -= brought
        self._to_take -= brought
        weight = count if self._is_busy else 0

        def received() -> None:
            self._open_receives -= 1
            self._expected = max(0, self._expected - weight)
            self._is_busy = brought > count / 2
            self._received.extend([self._now] * brought)
            self._start()
            self._receive()

        self._at(self._now + self.machine.latency, received)

    # --- the receivers: the rule of worker/prefetch.py ---------------------------------------

    def _room(self) -> int:
        """Messages that may be asked for: what idle threads and the next second can start."""
        soon = min(self._threads / self._average, MAX_AHEAD) if self._average else 0
        return self._idle_threads + int(soon) - len(self._received) - self._expected

    def _should_receive(self) -> bool:
        is_first = self._open_receives == 0
        if is_first and self._idle_threads > len(self._received) + self._expected:
            return True
        may_join = self._is_busy and self._open_receives < MAX_OPEN_RECEIVES
        return (is_first or may_join) and self._room() >= BATCH

    def _receive(self) -> None:
        while self._to_take and self._should_receive():
            count = min(BATCH, max(1, self._room()))
            self._open_receives += 1
            self._expected += count if self._is_busy else 0
            self.result.receives += 1
            if self._visible:
                self._answer(count)
            else:
                self._polls.append(count)
                break

    # --- the threads -------------------------------------------------------------------------

    def _start(self) -> None:
        while self._idle_threads and self._received:
            self._idle_threads -= 1
            received = self._received.popleft()
            # Threads take turns with the CPU; a task waits for other services after its turn.
            begins = max(self._now, self._cpu_free_at)
            self._cpu_free_at = begins + self.task.cpu + self.machine.overhead
            self._at(self._cpu_free_at + self.task.wait, self._end(received, self._now))

    def _end(self, received: float, began: float) -> Callable[[], None]:
        def end() -> None:
            self._idle_threads += 1
            self.result.tasks += 1
            took = self._now - began
            self._average = 0.8 * self._average + 0.2 * took if self._average else took
            self._to_delete.append(received)
            if len(self._to_delete) >= BATCH:
                self._delete()
            elif not self._delete_is_due:
                self._delete_is_due = True
                self._at(self._now + BATCH_SECONDS, self._delete_what_waits)
            self._start()
            self._receive()

        return end

    def _delete_what_waits(self) -> None:
        self._delete_is_due = False
        if self._to_delete:
            self._delete()

    def _delete(self) -> None:
        self.result.deletes += 1
        deleted_at = self._now + self.machine.latency
        for _ in range(min(BATCH, len(self._to_delete))):
            self.result.held_seconds += deleted_at - self._to_delete.popleft()
        self.result.seconds = deleted_at


# --- what a number of tasks a second needs ---------------------------------------------------


class Need(NamedTuple):
    """What a rate needs, on standard queues."""

    processes: int
    requests: float
    """In a second: sends, receives and deletes."""
    in_flight: float
    queues: int
    """So that none has more messages in flight than SQS allows."""
    requests_dollars: float
    """In a month of 730 hours."""
    machines_dollars: float


def request_dollars(requests: float) -> float:
    """The price of a month's requests, each with up to 64 KiB."""
    dollars, below = 0.0, FREE_REQUESTS
    for upper, price in REQUEST_TIERS:
        if requests > below:
            dollars += (min(requests, upper) - below) * price
        below = max(below, upper)
    return dollars


def need(rate: float, task: Task, machine: Machine, *, send_requests: float) -> Need:
    """What ``rate`` tasks a second need. ``send_requests`` is 1, or 0.1 if they go in tens."""
    full = Process(task, machine, tasks=2_000).run()
    processes = max(1, math.ceil(rate / (full.rate * HEADROOM)))
    one = Process(task, machine, tasks=2_000, rate=rate / processes).run()
    requests = rate * (send_requests + one.requests)
    in_flight = processes * one.in_flight
    return Need(
        processes=processes, requests=requests, in_flight=in_flight,
        queues=max(1, math.ceil(in_flight / (IN_FLIGHT_LIMIT * HEADROOM))),
        requests_dollars=request_dollars(requests * SECONDS),
        machines_dollars=processes * VCPU_HOUR * HOURS,
    )  # fmt: skip


TASKS: Final = (
    Task("1 ms of CPU", 0.001, 0.0),
    Task("5 ms of CPU, 50 ms of waiting", 0.005, 0.050),
    Task("50 ms of CPU, 500 ms of waiting", 0.050, 0.500),
)
RATES: Final = (10, 1_000, 100_000)
ON_AWS: Final = Machine(overhead=0.0005, latency=0.010)
"""An overhead that is rounded up from the report, and 10 ms to SQS within a region."""


def needs_table() -> str:
    rows = [
        (
            "| Tasks a second | Task | Processes (vCPUs) | Requests a second | In flight | Queues "
            "| Requests, $ a month | Machines, $ a month |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for rate, task in itertools.product(RATES, TASKS):
        found = need(rate, task, ON_AWS, send_requests=1.0)
        in_tens = need(rate, task, ON_AWS, send_requests=0.1)
        rows.append(
            f"| {rate:,} | {task.name} | {found.processes:,} | {in_tens.requests:,.0f} to "
            f"{found.requests:,.0f} | {found.in_flight:,.0f} | {found.queues} | "
            f"{in_tens.requests_dollars:,.0f} to {found.requests_dollars:,.0f} | "
            f"{found.machines_dollars:,.0f} |"
        )
    return "\n".join(rows)


# --- checked against measurements ------------------------------------------------------------


MEASURED: Final = {
    "drain, no-op": (Task("no-op", 0.0, 0.0), 1_000),
    "drain, 5 ms of CPU": (Task("5 ms of CPU", 0.005, 0.0), 200),
    "drain, 50 ms of sleep": (Task("50 ms of sleep", 0.0, 0.050), 200),
}


def checks(report: Mapping[str, Any]) -> Iterator[tuple[str, float, float, float, float]]:
    """Row, measured and simulated seconds for a task, and measured and simulated requests.

    The overhead is what the drain of no-ops used. The other rows are predictions from it.
    """
    lines = {line["row"]: line for line in report["lines"] if line["side"] == "beanstalk_worker"}
    overhead = lines["drain, no-op"]["cpu"]
    for row, (task, count) in MEASURED.items():
        line = lines[row]
        simulated = Process(task, Machine(overhead, 0.001), tasks=count).run()
        yield row, line["wall"], 1 / simulated.rate, line["requests"], simulated.requests


def checks_table(report: Mapping[str, Any]) -> str:
    rows = [
        "| | Measured, for one task | Simulated | Requests measured | Simulated |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| {row} | {duration(measured)} | {duration(simulated)} | {requests:.2f} | {guess:.2f} |"
        for row, measured, simulated, requests, guess in checks(report)
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the last report")
    parser.add_argument(
        "--docs", action="store_true", help="write the tables of docs/benchmarks.md"
    )
    options = parser.parse_args()
    tables = needs_table()
    if options.check or options.docs:
        report = json.loads((ROOT / "dist" / "benchmarks.json").read_text())
        tables += f"\n\n### The simulation beside measurements\n\n{checks_table(report)}"
    print(tables)
    if options.docs:
        write(tables, PAGE)
    return 0


def write(tables: str, page: Path) -> None:
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
