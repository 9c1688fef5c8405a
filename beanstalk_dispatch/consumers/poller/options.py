"""The options of a worker, and the times its threads wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from beanstalk_dispatch.sqs.backlog import WORKER_THREADS
from beanstalk_dispatch.sqs.backoff import BackoffTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTimes(BackoffTimes):
    """The seconds that the threads of a worker wait. Tests pass shorter times."""

    stop_check_interval: float = 0.1
    """Seconds between two checks of the main thread whether there is a reason to stop."""
    batch_interval: float = 0.3
    """Seconds that a message waits for others that fit into the same request to SQS."""
    backoff_check_interval: float = 0.2
    """Seconds between two checks whether a queue that is backing off may be asked again."""
    requeue_after: float = 5.0
    """A prefetched message that could not start within this time goes back to the queue."""
    no_prefetch_after: float = 60.0
    """Seconds without receives ahead of need after a prefetched message went back to the queue."""

    phase_leeway: float = 10.0
    """Seconds that a time limit gets to interrupt its block, or to report the thread as stuck."""
    task_margin: float = 120.0
    """Seconds for the parts of a task under no time limit: imports, caches, signal receivers."""
    pending_request_limit: float = 3600.0
    """Seconds that a message's visibility is extended while SQS does not take its delete."""

    long_poll_margin: float = 3.0
    """Seconds that a stop waits for an open long poll beyond the long poll's own time."""
    flush_timeout: float = 4.0
    """Seconds that a stop waits for SQS to take the last deletes and visibility changes."""
    log_timeout: float = 1.0
    """Seconds that a stop waits for each log line: a stuck task may hold a handler's lock."""
    exit_timeout: float = 10.0
    """Seconds that the exit of a process with a stuck task waits for logging and receivers."""

    burst_patience: float = 60.0
    """Seconds that a burst continues while every receive from a queue fails."""
    unanswered_limit: float = 60.0
    """A queue is unhealthy once it has not answered for this long beyond a long poll's time."""
    display_interval: float = 1.0
    """Seconds between two redraws of the status line, and two touches of the health file."""
    depth_interval: float = 5.0
    """Seconds between two requests for the depths of the queues."""
    progress_interval: float = 60.0
    """Seconds between two progress lines in the log."""
    metrics_interval: float = 60.0
    """Seconds between two lines of embedded metrics."""
    pause_check_interval: float = 5.0
    """Seconds between two questions whether a queue is paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The options of a worker. Times are in seconds."""

    threads: int = WORKER_THREADS
    """The number of tasks that run at a time."""
    wait: int = 5
    """Seconds that SQS may take to answer a long poll of an empty queue; SQS allows 20."""
    visibility_timeout: int = 60
    """Seconds that a received message is hidden from other consumers."""
    obeys_pauses: bool = False
    """True to receive nothing from a queue that is paused. The daemon knows no pauses."""
    heartbeat: bool = True
    """True to extend the visibility timeout of each message until its task has ended."""
    grace: float = 30.0
    """Seconds that running tasks may continue after a stop."""
    max_tasks: int | None = None
    """Stop after this number of tasks; None for no limit."""
    burst: bool = False
    """Stop when the queues are empty."""
    times: WorkerTimes = field(default_factory=WorkerTimes)
    """The seconds that the threads wait."""
