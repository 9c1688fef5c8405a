"""The backlog of a worker's queues in CloudWatch's embedded metric format, once a minute.

CloudWatch Logs makes metrics of such a line, whatever brings it there. The line must be JSON and
nothing else, so it is written to a stream and not logged, where a project's format would be added.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
import time
from typing import Final, TextIO

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.sqs.backlog import QueueBacklog, ask
from beanstalk_dispatch.sqs.opening import resolve_address

from .threads import every
from .worker import Tick, Worker

logger = logging.getLogger("beanstalk_dispatch.worker")

NAMESPACE: Final = "BeanstalkDispatch"
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
            # The alias, or else the queue's own name: its URL shows the account.
            label = name if name in config.queues else resolve_address(name, config).name
            stream.write(embedded_metrics(label, backlog, now=time.time()) + "\n")
        stream.flush()

    return every(worker.options.times.metrics_interval, write)


def embedded_metrics(queue: str, backlog: QueueBacklog, *, now: float) -> str:
    """Return one line of the format: the metrics of one queue at the time ``now``."""
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Queue"]],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in METRICS],
    }
    return json.dumps({
        "_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]},
        "Queue": queue,
        **{name: getattr(backlog, figure) for name, figure in METRICS.items()},
        "Threads": backlog.threads,
    })  # fmt: skip
