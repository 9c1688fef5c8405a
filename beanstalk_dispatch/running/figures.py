"""The figures of each delivery, for metrics of Prometheus and of CloudWatch."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Final, NamedTuple

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.observers import OwnObserver
from beanstalk_dispatch.process import clock

from .definitions.declared_tasks import is_listed

UNLISTED: Final = "unlisted"
"""The function of a message that names no listed task, so that metrics have few labels."""
_STARTED: Final = frozenset(
    {Outcome.DONE, Outcome.RETRY, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CUT}
)
"""The outcomes of deliveries that have started their task."""

NAMESPACE: Final = "BeanstalkDispatch"
"""The namespace of all metrics in CloudWatch."""
Dimensions = Sequence[Sequence[str]]
"""The sets of dimensions of a metric."""
OF_QUEUE: Final[Dimensions] = (("Queue",),)


class Figures(NamedTuple):
    """The figures of one delivery."""

    queue: str
    function: str
    outcome: Outcome
    has_started: bool
    """True if the delivery has started its task: only then it has an attempt and a duration."""
    seconds: float
    attempt: int
    """The number of times that the task was started, this time included."""
    delay: float | None
    """The seconds from the schedule of the task to its first start; None at a later one."""


class FiguresObserver(OwnObserver, ABC):
    """An observer that counts deliveries. A child's are seen by its parent, so each counts once."""

    def __init__(self) -> None:
        self.running: set[_Measured] = set()
        """The deliveries that run now in this process."""

    def delivering(self, delivery: RunView) -> AbstractContextManager[object]:
        """Take the figures of a delivery at its end."""
        return _Measured(self, delivery)

    @abstractmethod
    def count(self, figures: Figures) -> None:
        """Count one delivery."""


class _Measured:
    """A delivery while it runs, as a context manager. A generator would take twice its time."""

    __slots__ = ("_began", "_observer", "_run", "_started")

    def __init__(self, observer: FiguresObserver, run: RunView) -> None:
        self._observer = observer
        self._run = run

    def __enter__(self) -> None:
        self._began, self._started = time.time(), clock.monotonic()
        self._observer.running.add(self)

    def __exit__(self, *_: object) -> None:
        self._observer.running.discard(self)
        outcome = self._run.outcome
        if outcome is not None:  # else it is an exception for the process, such as Ctrl-C
            self._observer.count(self._figures(outcome))

    def _figures(self, outcome: Outcome) -> Figures:
        message, facts = self._run.message, self._run.delivery
        attempt, delay = facts.receive_count, None
        if message is not None:
            # A copy counts its own attempts, and SQS those of one message.
            attempt = max(message.attempt, attempt)
            due = facts.scheduled_at or message.not_before or message.sent_at
            if due is not None and attempt == message.leg == 1:
                delay = max(self._began - due, 0.0)
        seconds = clock.monotonic() - self._started
        has_started, function = outcome in _STARTED, function_label(message)
        return Figures(facts.queue, function, outcome, has_started, seconds, attempt, delay)


def function_label(message: Message | None) -> str:
    """Return the function of a message if it is listed, else UNLISTED."""
    if message is None or not is_listed(message.function, get_config()):
        return UNLISTED
    return message.function


def embedded_metrics(
    figures: Mapping[str, float],
    members: Mapping[str, object],
    *,
    dimensions: Mapping[str, Dimensions] = MappingProxyType({}),
    units: Mapping[str, str] = MappingProxyType({}),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a line in CloudWatch's embedded metric format, with ``figures`` as metrics.

    ``members`` are the other members of the line, with ``Queue`` among them. ``dimensions`` has the
    sets of dimensions, which are names of members, of metrics that have others than the queue.
    ``units`` has the units of all others than counts. CloudWatch drops a line that names a metric
    which it does not have. The line must be JSON and nothing else, so it is written to a stream and
    not logged: a project's format would be added there.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    metrics: defaultdict[Dimensions, list[Mapping[str, str]]] = defaultdict(list)
    for name in figures:
        unit = units.get(name, "Count")
        metrics[dimensions.get(name, OF_QUEUE)].append({"Name": name, "Unit": unit})
    directives = [
        {"Namespace": NAMESPACE, "Dimensions": sets, "Metrics": of_sets}
        for sets, of_sets in metrics.items()
    ]
    about = {**metadata, "Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directives}
    return json.dumps({"_aws": about, **members, **figures}) + "\n"
