"""Scaling a fleet by its backlog, simulated: it follows a burst, drains it, and does not flap.

Run ``.venv/bin/python -m benchmarks.autoscaling``. No clock is waited for, and no request is made.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from beanstalk_dispatch.sqs.backlog import wanted_processes

STEP_SECONDS: Final = 0.5
DELETE_SECONDS: Final = 0.5
"""How long a message stays in flight after its task, until it is deleted."""


@dataclass(kw_only=True)
class Load:
    """What is sent, and how long each task takes."""

    task_seconds: float
    per_second: float
    """The mean number of messages that are sent in a second, at random moments."""
    burst: int = 0
    """Messages that are sent together, after BURST_AT seconds."""


BURST_AT: Final = 1800.0


class Scaler(Protocol):
    """What decides how many processes there are."""

    def desired(self, now: float, fleet: Fleet) -> int:
        """The number of processes from now on."""


@dataclass(kw_only=True)
class Fleet:
    """Processes that run tasks, and the queue that they read."""

    threads: int = 10
    start_seconds: float = 45.0
    """From the decision to add a process until it runs tasks."""
    visible: int = 0
    running: deque[float] = field(default_factory=deque)
    """When each running task ends, the next one first: all take the same time."""
    deleting: deque[float] = field(default_factory=deque)
    """When each message of a finished task is deleted, in the same order."""
    ready_at: list[float] = field(default_factory=lambda: [0.0])
    """When each process is ready to run tasks."""

    @property
    def size(self) -> int:
        """How many processes there are, with those that start."""
        return len(self.ready_at)

    @property
    def in_flight(self) -> int:
        """Messages that run, wait in a process, or are about to be deleted."""
        return len(self.running) + len(self.deleting)

    def ready(self, now: float) -> int:
        """How many processes run tasks."""
        return sum(each <= now for each in self.ready_at)

    def resize(self, size: int, now: float) -> None:
        """Add processes, or stop the newest. A stopped process ends its tasks and takes none."""
        added = [now + self.start_seconds] * (size - self.size)
        self.ready_at = [*self.ready_at, *added][:size]

    def work(self, now: float, task_seconds: float) -> None:
        """Start what the idle threads can run, and end what is finished."""
        while self.running and self.running[0] <= now:
            self.deleting.append(self.running.popleft() + DELETE_SECONDS)
        while self.deleting and self.deleting[0] <= now:
            self.deleting.popleft()
        idle = max(0, self.ready(now) * self.threads - len(self.running))
        started = min(idle, self.visible)
        self.visible -= started
        self.running += [now + task_seconds] * started


@dataclass(kw_only=True)
class PodAutoscaler:
    """Kubernetes' HPA, as KEDA and a Cluster environment of Elastic Beanstalk use it.

    It reads ``wanted_processes``. It adds processes at once, and removes those that were wanted at
    no time within five minutes. A difference of a tenth is tolerated.
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
    """

    most: int = 20
    per_thread: int = 1
    poll_seconds: float = 30.0
    window_seconds: float = 300.0
    tolerance: float = 0.1
    _wanted: list[tuple[float, int]] = field(default_factory=list)

    def desired(self, now: float, fleet: Fleet) -> int:
        """The largest number that was wanted within the window."""
        if now % self.poll_seconds == 0:
            wanted = wanted_processes(
                fleet.visible + fleet.in_flight, threads=fleet.threads, per_thread=self.per_thread
            )
            if abs(wanted / fleet.size - 1) <= self.tolerance:
                wanted = fleet.size
            self._wanted.append((now, min(max(1, wanted), self.most)))
            self._wanted = [each for each in self._wanted if now - each[0] <= self.window_seconds]
        return max((wanted for _, wanted in self._wanted), default=1)


@dataclass(kw_only=True)
class TargetTracking:
    """The policy that ``beanstalk_eb --max-instances`` writes, as EC2 Auto Scaling follows it.

    A datapoint a minute. Three above the target add instances, and fifteen below nine tenths of it
    remove some, in proportion.
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html
    """

    most: int = 20
    per_thread: int = 1
    _datapoints: list[float] = field(default_factory=list)

    def desired(self, now: float, fleet: Fleet) -> int:
        """The number of instances that the two alarms ask for."""
        if now % 60:
            return fleet.size
        target = fleet.threads * self.per_thread
        messages = fleet.visible + fleet.in_flight
        self._datapoints.append(messages / max(1, fleet.ready(now)))
        is_starting = fleet.ready(now) < fleet.size
        low, high = self._datapoints[-15:], self._datapoints[-3:]
        size = fleet.size
        if len(high) == 3 and min(high) > target and not is_starting:
            size = math.ceil(size * high[-1] / target)
        elif len(low) == 15 and max(low) < 0.9 * target:
            size = math.ceil(size * max(low) / target)
        if size != fleet.size:
            self._datapoints.clear()
        return min(max(1, size), self.most)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a simulated fleet."""

    drained_seconds: float | None
    """From the burst until no message waited; without a burst, from BURST_AT."""
    largest: int
    """The largest number of processes."""
    sizes: list[int]
    """The number of processes each time that it changed, from the moment when nothing waited."""
    longest_queue: int
    """The largest number of visible messages from that moment."""
    process_hours: float

    @property
    def flaps(self) -> int:
        """How often the fleet grew again by more than a quarter after it had been reduced.

        Messages that are sent at random moments change it by one process, or by two of a dozen.
        """
        found, lowest, reduced = 0, self.sizes[0], False
        for before, after in itertools.pairwise(self.sizes):
            if after < before:
                lowest, reduced = after, True
            elif reduced and after - lowest > max(1, lowest / 4):
                found, reduced = found + 1, False
        return found


def simulate(load: Load, scaler: Scaler, *, hours: float = 3, start_seconds: float = 45) -> Report:
    """Run a fleet for some hours, without waiting."""
    numbers = random.Random(1)
    fleet = Fleet(start_seconds=start_seconds)
    sizes: list[int] = []
    seconds_of_processes, largest, longest = 0.0, 1, 0
    drained: float | None = None
    for step in range(int(hours * 3600 / STEP_SECONDS)):
        now = step * STEP_SECONDS
        fleet.visible += _arrivals(numbers, load.per_second * STEP_SECONDS)
        fleet.visible += load.burst if now == BURST_AT else 0
        fleet.work(now, load.task_seconds)
        fleet.resize(scaler.desired(now, fleet), now)
        seconds_of_processes += fleet.size * STEP_SECONDS
        largest = max(largest, fleet.size)
        if now > BURST_AT and drained is None and fleet.visible == 0:
            drained = now - BURST_AT
        if drained is not None:
            longest = max(longest, fleet.visible)
            if fleet.size not in sizes[-1:]:
                sizes.append(fleet.size)
    return Report(
        drained_seconds=drained, largest=largest, sizes=sizes, longest_queue=longest,
        process_hours=seconds_of_processes / 3600,
    )  # fmt: skip


def _arrivals(numbers: random.Random, mean: float) -> int:
    """A number of a Poisson distribution."""
    threshold, product, count = math.exp(-mean), numbers.random(), 0
    while product > threshold:
        product *= numbers.random()
        count += 1
    return count


def scenarios() -> Iterator[tuple[str, Load, Callable[[], Scaler], float]]:
    """A name, a load, what makes the scaler, and how long a process takes to start."""
    quiet = Load(task_seconds=2, per_second=2, burst=6000)
    busy = Load(task_seconds=2, per_second=37, burst=6000)
    steady = Load(task_seconds=2, per_second=37)
    for name, load in (("burst on 2/s", quiet), ("burst on 37/s", busy), ("steady 37/s", steady)):
        yield f"{name}, KEDA or Cluster", load, PodAutoscaler, 45
        yield f"{name}, target tracking", load, TargetTracking, 180
    yield "steady 37/s, KEDA, 5 per thread", steady, lambda: PodAutoscaler(per_thread=5), 45


def main() -> None:
    """Print a line for each scenario."""
    for name, load, make_scaler, start_seconds in scenarios():
        found = simulate(load, make_scaler(), start_seconds=start_seconds)
        drained = f"{found.drained_seconds or 0:.0f} s" if load.burst else "-"
        print(
            f"{name:34} largest {found.largest:3}  drained {drained:>6}  flaps {found.flaps:2}  "
            f"longest queue {found.longest_queue:5}  process hours {found.process_hours:5.1f}  "
            f"then {found.sizes[:24]}"
        )


if __name__ == "__main__":
    main()
