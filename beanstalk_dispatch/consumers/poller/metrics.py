"""The figures of a worker, and the same for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.scheduling.outbox import OutboxRelay

from .worker import Worker

MISSING_LIBRARY: Final = (
    "/metrics needs prometheus_client: pip install 'django-beanstalk-dispatch[metrics]'"
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a worker, for a monitoring system."""

    name: str
    """Without the prefix ``beanstalk_dispatch_``."""
    kind: Literal["counter", "gauge"]
    meaning: str
    value: float


def metrics(worker: Worker) -> list[Metric]:
    """Return the current figures of a worker."""
    counters, relay = worker.counters, worker.relay
    oldest_answer = min(queue.answered_at for queue in worker.queues)
    return [
        Metric("tasks_done", "counter", "Deliveries that did not fail", counters.done),
        Metric("tasks_failed", "counter", "Deliveries that failed", counters.failed),
        Metric("tasks_running", "gauge", "Tasks running now", counters.running),
        Metric("tasks_waiting", "gauge", "Messages received and not started", counters.waiting),
        Metric(
            "tasks_stuck", "gauge", "Tasks that outlived their limit", len(worker.tasks.overdue())
        ),
        Metric(
            "last_poll_age_seconds", "gauge",
            "Since a receive last came back, in the worst queue", clock.monotonic() - oldest_answer,
        ),
        *(_of_outbox(relay) if relay else ()),
    ]  # fmt: skip


def _of_outbox(relay: OutboxRelay) -> Iterable[Metric]:
    yield Metric("outbox_sent", "counter", "Messages sent from the outbox", relay.sent)
    yield Metric("outbox_waiting", "gauge", "Messages that wait in the outbox", relay.waiting)
    yield Metric(
        "outbox_oldest_seconds", "gauge", "Since the oldest of them was stored",
        relay.oldest_seconds,
    )  # fmt: skip


def prometheus_text(figures: Sequence[Metric]) -> bytes:
    """Return figures in Prometheus's text format. Raise ConfigurationError without its library.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    try:
        # Optional.
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415
        from prometheus_client.core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
        )
    except ImportError as exc:
        raise ConfigurationError(MISSING_LIBRARY) from exc
    families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector([
        families[each.kind](f"beanstalk_dispatch_{each.name}", each.meaning, value=each.value)
        for each in figures
    ]))  # fmt: skip
    return generate_latest(registry)


@dataclass(slots=True, eq=False)
class _Collector:
    """A collector as prometheus_client asks for it: the metrics of one function."""

    families: Sequence[Any]

    def collect(self) -> Sequence[Any]:
        return self.families
