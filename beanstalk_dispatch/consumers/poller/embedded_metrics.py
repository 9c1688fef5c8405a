"""Lines in CloudWatch's embedded metric format, such as the backlog of a worker's queues.

CloudWatch Logs makes metrics of such a line, whatever brings it there. The line must be JSON and
nothing else, so it is written to a stream and not logged, where a project's format would be added.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TextIO

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.sqs.backlog import QueueBacklog, ask
from beanstalk_dispatch.sqs.opening import resolve_address

from .threads import every
from .worker import Tick, Worker

logger = logging.getLogger("beanstalk_dispatch.worker")

NAMESPACE: Final = "BeanstalkDispatch"
Dimensions = Sequence[Sequence[str]]
OF_QUEUE: Final[Dimensions] = (("Queue",),)
METRICS: Final = {
    "Visible": "visible",
    "InFlight": "in_flight",
    "Delayed": "delayed",
    "WantedProcesses": "wanted_processes",
}
"""The name of each metric, and the figure of the backlog that it has."""


def write_backlog(worker: Worker, stream: TextIO) -> Tick:
    """Return a tick that writes a line for each queue, at its first call and once a minute."""
    names, threads = [queue.name for queue in worker.queues], worker.options.threads

    def write() -> None:
        config = get_config()
        found = ask(names, threads=threads, per_thread=config.backlog_per_thread)
        for name, exc in found.problems.items():
            logger.error("backlog unknown queues=%s error=%s", quoted(name), quoted_error(exc))
        for name, backlog in found.queues.items():
            stream.write(backlog_line(resolve_address(name, config).name, backlog))
        stream.flush()

    return every(worker.options.times.metrics_interval, write)


def backlog_line(queue: str, backlog: QueueBacklog) -> str:
    """Return the line of one queue."""
    figures = {name: getattr(backlog, figure) for name, figure in METRICS.items()}
    return embedded_metrics(figures, {"Queue": queue, "Threads": backlog.threads})


def embedded_metrics(
    figures: Mapping[str, float],
    members: Mapping[str, object],
    *,
    dimensions: Mapping[str, Dimensions] = MappingProxyType({}),
    units: Mapping[str, str] = MappingProxyType({}),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return one line of the format, with ``figures`` as the metrics of a queue, and ``members``.

    ``dimensions`` has the sets of dimensions of metrics that have others than the queue: members by
    their names. ``units`` has those that are not counts. CloudWatch drops a line that names a
    metric which it does not have.
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
