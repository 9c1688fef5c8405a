"""The backlog of a worker's queues, as lines of which CloudWatch makes metrics."""

from __future__ import annotations

import logging
from typing import Final, TextIO

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.running.figures import embedded_metrics
from beanstalk_dispatch.sqs.backlog import QueueBacklog, ask
from beanstalk_dispatch.sqs.opening import resolve_address

from .worker import Tick, Worker, every

logger = logging.getLogger("beanstalk_dispatch.worker")

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
