"""The figures of a worker and of its tasks, for Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, product
from types import SimpleNamespace
from typing import Any, Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.process import state
from beanstalk_dispatch.running.definitions import configured, dispatch_table
from beanstalk_dispatch.running.figures import Figures, FiguresObserver
from beanstalk_dispatch.running.running_tasks import RUNNING

from .worker import Worker

MISSING_LIBRARY: Final = (
    "/metrics needs prometheus_client: pip install 'django-beanstalk-dispatch[metrics]'"
)
_PREFIX: Final = "beanstalk_dispatch_"
_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
HISTOGRAMS: Final = {
    "task_duration_seconds": ("The time of a delivery that has started its task", _SECONDS),
    "task_delay_seconds": ("From the schedule of a task to its first start", _SECONDS),
    "task_attempts": ("The number of times that a task was started", (1.0, 2.0, 3.0, 5.0, 10.0)),
}
"""The meaning of each histogram, and the upper bounds of its buckets but for the last."""
_FROM_ZERO: Final = tuple(
    each for each in Outcome if each is Outcome.DONE or OUTCOMES[each].is_failure
)
"""The outcomes that each listed function has from the start.

Prometheus sees no increase in a series that begins with its first failure.
"""


class TaskFigures(FiguresObserver):
    """The deliveries of this process, counted for Prometheus."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Forget all figures, and count no more."""
        self.lock = threading.Lock()
        self.is_counting = self.is_scraped = False
        self.deliveries: Counter[tuple[str, Outcome]] = Counter()
        self.buckets: dict[str, dict[str, list[int]]] = {name: {} for name in HISTOGRAMS}
        self.sums: defaultdict[tuple[str, str], float] = defaultdict(float)

    def start(self) -> None:
        """Count the deliveries from now on."""
        self.is_counting = True
        configured.forget_observers()

    def count(self, figures: Figures) -> None:
        """Count one delivery."""
        function = figures.function
        with self.lock:
            self.deliveries[function, figures.outcome] += 1
            if figures.has_started:
                self._add("task_duration_seconds", function, figures.seconds)
                self._add("task_attempts", function, figures.attempt)
                if figures.delay is not None:
                    self._add("task_delay_seconds", function, figures.delay)

    def _add(self, name: str, function: str, value: float) -> None:
        bounds, buckets = HISTOGRAMS[name][1], self.buckets[name]
        if function not in buckets:
            buckets[function] = [0] * (len(bounds) + 1)
        buckets[function][bisect_left(bounds, value)] += 1
        self.sums[name, function] += value


FIGURES: Final = TaskFigures()
state.declare(FIGURES.forget)


def _observers(_: Config) -> Sequence[Observer]:
    return (FIGURES,) if FIGURES.is_counting else ()


configured.register_observers(_observers)


def prometheus_text(worker: Worker) -> bytes:
    """Return all figures in Prometheus's text format. Raise ConfigurationError without its library.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    try:
        from prometheus_client import core, generate_latest  # noqa: PLC0415 - optional
    except ImportError as exc:
        raise ConfigurationError(MISSING_LIBRARY) from exc
    found = [*_of_worker(worker, core)]
    if FIGURES.is_counting:
        names = dispatch_table.listed_names(get_config())  # imports them, before any task waits
        with FIGURES.lock:
            found += _of_tasks(core, names)
    registry: Any = SimpleNamespace(collect=lambda: found)
    return generate_latest(registry)


def _of_worker(worker: Worker, core: Any) -> Iterator[Any]:
    """Yield the metrics that have no labels."""

    def gauge(name: str, meaning: str, value: float) -> Any:
        return core.GaugeMetricFamily(_PREFIX + name, meaning, value)

    counters, relay = worker.counters, worker.relay
    yield gauge("tasks_running", "Tasks running now", counters.running)
    yield gauge("tasks_waiting", "Messages received and not started", counters.waiting)
    yield gauge("tasks_stuck", "Tasks that outlived their limit", len(worker.tasks.overdue()))
    unanswered = max(queue.unanswered_seconds for queue in worker.queues)
    meaning = "Since SQS answers no receive or delete, in the worst queue"
    yield gauge("unanswered_seconds", meaning, unanswered)
    if relay:
        meaning = "Messages sent from the outbox"
        yield core.CounterMetricFamily(f"{_PREFIX}outbox_sent", meaning, relay.sent)
        yield gauge("outbox_waiting", "Messages that wait in the outbox", relay.waiting)
        meaning = "Since the oldest of them was stored"
        yield gauge("outbox_oldest_seconds", meaning, relay.oldest_seconds)


def _of_tasks(core: Any, names: Sequence[str]) -> Iterator[Any]:
    """Yield the metrics that have labels. Those of a listed function begin with 0."""
    cuts = dict.fromkeys(names, 0)
    # Prometheus sees no increase from the 1 of a process that was killed to the 1 of the next one.
    if FIGURES.is_scraped:
        for (_, function), number in [*RUNNING.cuts.items()]:
            cuts[function] = cuts.get(function, 0) + number
    FIGURES.is_scraped = True
    family = core.CounterMetricFamily(
        f"{_PREFIX}tasks_cut", "Tasks whose process has ended", labels=["function"]
    )
    for function, number in cuts.items():
        family.add_metric([function], number)
    yield family
    family = core.CounterMetricFamily(
        f"{_PREFIX}deliveries", "Deliveries by their outcome", labels=["function", "outcome"]
    )
    for labels in dict.fromkeys((*product(names, _FROM_ZERO), *FIGURES.deliveries)):
        family.add_metric(labels, FIGURES.deliveries[labels])
    yield family
    for name, (meaning, bounds) in HISTOGRAMS.items():
        family = core.HistogramMetricFamily(_PREFIX + name, meaning, labels=["function"])
        none: list[int] = [0] * (len(bounds) + 1)
        for function, counts in (dict.fromkeys(names, none) | FIGURES.buckets[name]).items():
            buckets = zip((*map(str, bounds), "+Inf"), accumulate(counts), strict=True)
            family.add_metric([function], [*buckets], FIGURES.sums[name, function])
        yield family
