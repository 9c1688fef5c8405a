"""Writes a line for each delivery in CloudWatch's embedded metric format.

CloudWatch makes metrics of it, so nothing is kept in memory, and no process needs another.
"""

from __future__ import annotations

import functools
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from beanstalk_dispatch import signals
from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.outcomes import OUTCOMES
from beanstalk_dispatch.running.figures import (
    Dimensions,
    Figures,
    FiguresObserver,
    embedded_metrics,
    function_label,
)
from beanstalk_dispatch.running.running_tasks import RUNNING

_METADATA: Final = {"LogGroupName": "/aws/elasticbeanstalk/beanstalk_dispatch"}
"""The log group in which CloudWatch's agent writes.

The instance profile of Elastic Beanstalk may write to groups of this prefix, and to no other.
"""
_UNITS: Final = {"Duration": "Milliseconds", "Delay": "Milliseconds"}
_FUNCTION: Final = (("Queue",), ("Queue", "Function"))
_DIMENSIONS: Final[Mapping[str, Dimensions]] = {
    "Duration": _FUNCTION,
    "Failures": _FUNCTION,
    "Deliveries": (("Queue", "Function", "Outcome"),),
}
"""The sets of dimensions of each metric; of the others, the queue alone. Each set is charged."""

Write = Callable[[str], object]


@functools.lru_cache(maxsize=1)
def observers(config: Config) -> Sequence[MetricsObserver]:
    """Return the observer, if the configuration says where to write."""
    destination = config.embedded_metrics
    if destination is None:
        return ()
    if destination == "stdout":
        return (MetricsObserver(functools.partial(print, end="", flush=True)),)
    host, _, port = destination.removeprefix("udp://").rpartition(":")
    address = host.strip("[]"), int(port)
    return (MetricsObserver(functools.partial(_send_to_agent, address)),)


def _on_task_stuck(*, delivery: RunView | None, **_: Any) -> None:
    for each in observers(get_config()):
        each.count_stuck(delivery)


signals.task_stuck.connect(_on_task_stuck)


class MetricsObserver(FiguresObserver):
    """An observer that writes the figures of each delivery."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write
        self._known_cuts: Counter[tuple[str, str]] = Counter()

    def count(self, figures: Figures) -> None:
        """Write a line about a delivery, and one about each task that was cut off before it."""
        values: dict[str, float] = {
            "Deliveries": 1,
            "Failures": int(OUTCOMES[figures.outcome].is_failure),
            "Running": len(self.running) + 1,
        }
        if figures.has_started:
            values["Duration"] = round(figures.seconds * 1000, 3)
            values["Attempt"] = figures.attempt
            if figures.delay is not None:
                values["Delay"] = round(figures.delay * 1000)
        self._write_line(values, figures.queue, figures.function, figures.outcome)
        if self._known_cuts != RUNNING.cuts:
            cuts, self._known_cuts = RUNNING.cuts - self._known_cuts, RUNNING.cuts.copy()
            for (queue, function), number in cuts.items():
                self._write_line({"Cut": number}, queue, function)

    def count_stuck(self, delivery: RunView | None) -> None:
        """Write a line about a task that cannot be interrupted."""
        queue = delivery.queue if delivery else ""
        self._write_line(
            {"Stuck": 1}, queue or "none", function_label(delivery.message if delivery else None)
        )

    def _write_line(
        self, figures: Mapping[str, float], queue: str, function: str, outcome: str = "none"
    ) -> None:
        members = {"Queue": queue, "Function": function, "Outcome": outcome}
        line = embedded_metrics(
            figures, members, dimensions=_DIMENSIONS, units=_UNITS, metadata=_METADATA
        )
        self._write(line)


def _send_to_agent(address: tuple[str, int], line: str) -> None:
    """Send a line to CloudWatch's agent. It is lost if the agent is not there, or too busy."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as agent:
        agent.setblocking(False)
        agent.sendto(line.encode(), address)
