"""The reports of the processes of ``--processes`` to their supervisor: one small file each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from beanstalk_dispatch.process import clock

from .health import why_unhealthy
from .metrics import Metric, metrics
from .threads import every
from .worker import Tick, Worker

MAX_AGE_SECONDS: Final = 10.0
"""A process whose last report is older is unhealthy."""

_NOT_SUMMED: Final = "last_poll_age_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of one process at one time."""

    written_at: float
    """The time by the clock that all processes share; infinite once the process has ended."""
    unhealthy: str | None = None
    """The reason why the process is unhealthy; None if it is healthy."""
    figures: list[Metric] = field(default_factory=list)
    """Counters include those of the processes that this one has replaced."""

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return clock.monotonic() - self.written_at

    @property
    def counters(self) -> list[Metric]:
        """The figures that a process continues when it replaces another."""
        return [each for each in self.figures if each.kind == "counter"]

    def write(self, file: Path) -> None:
        """Write it at once, so that no reader sees half of it."""
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.replace(file)


class ProcessReports:
    """The reports of all processes, in a directory of their own."""

    def __init__(self, directory: Path, *, processes: int) -> None:
        self._files = [directory / f"{number}.json" for number in range(1, processes + 1)]

    def file(self, index: int) -> Path:
        """Return the file that the process with this index, from 0, writes."""
        return self._files[index]

    def written_at(self, index: int) -> float:
        """Return the monotonic time of the last report of the process with this index, or 0."""
        report = read(self._files[index])
        return report.written_at if report else 0.0

    def set_ended(self, index: int) -> None:
        """Note that a process has ended and is not replaced. It is then no longer unhealthy."""
        last = read(self._files[index])
        counters = last.counters if last else []
        Report(written_at=math.inf, figures=counters).write(self._files[index])

    def why_unhealthy(self) -> str | None:
        """Return the reason of the first unhealthy process; None if all are healthy."""
        for number, file in enumerate(self._files, 1):
            report = read(file)
            if report is None:
                return f"no report from process {number}"
            if report.age > MAX_AGE_SECONDS:
                return f"no report from process {number} for {report.age:.0f} s"
            if report.unhealthy:
                return f"process {number}: {report.unhealthy}"
        return None

    def metrics(self) -> list[Metric]:
        """Return the figures of all processes together."""
        totals: dict[str, Metric] = {}
        for metric in self._current_figures():
            total = totals.get(metric.name)
            if total is None:
                totals[metric.name] = metric
            elif metric.name == _NOT_SUMMED:
                totals[metric.name] = max(total, metric, key=lambda each: each.value)
            else:
                totals[metric.name] = replace(total, value=total.value + metric.value)
        return list(totals.values())

    def _current_figures(self) -> Iterator[Metric]:
        """Yield all counters, and the gauges of the processes that run."""
        for file in self._files:
            if report := read(file):
                is_current = report.age <= MAX_AGE_SECONDS
                yield from report.figures if is_current else report.counters


def read(file: Path) -> Report | None:
    """Return the report in a file; None if there is none."""
    try:
        values = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    figures = [Metric(**each) for each in values.pop("figures")]
    return Report(figures=figures, **values)


def report_once_a_second(worker: Worker, file: Path) -> Tick:
    """Return a tick that writes the worker's report to ``file`` once a second."""
    before = read(file)
    counted = {each.name: each.value for each in (before.counters if before else ())}

    def report() -> None:
        figures = [
            replace(metric, value=metric.value + counted.get(metric.name, 0))
            for metric in metrics(worker)
        ]
        Report(
            written_at=clock.monotonic(), unhealthy=why_unhealthy(worker), figures=figures
        ).write(file)

    return every(worker.options.times.display_interval, report)
