"""The workers that run now, their tasks, and the next runs of periodic tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.variables import LEASE_CACHE
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import duration, escaped, quoted_error
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.messages.shared_cache import required
from beanstalk_dispatch.running.kept_results import KEPT_RESULTS
from beanstalk_dispatch.running.leases.worker_entry import KEPT_SECONDS, WRITE_SECONDS, entry_keys

MAX_TASKS: Final = 1000
"""The number of tasks that are shown."""
LATE_SECONDS: Final = 4 * WRITE_SECONDS
"""The seconds without a sign after which a worker may be dead."""
MAX_CLOCK_ERROR: Final = 2.0
"""The seconds by which the clocks of two machines may differ unnoticed."""
CRON_FILE: Final = Path("cron.yaml")
"""The periodic tasks of Elastic Beanstalk's bundle, whose root is the working directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTask:
    """A task that a worker ran when it was last seen."""

    id: str
    function: str
    queue: str
    attempt: int
    receive_count: int
    seconds: float
    """The age of the attempt."""
    progress: str = ""
    """Its progress in words, if results are kept and the task reports any."""
    machine: str
    process_id: int
    is_late: bool
    """True if nothing is seen of its worker."""

    def cells(self) -> list[str]:
        """Return the cells of its row below TASK_COLUMNS."""
        age = duration(self.seconds) + (" ?" if self.is_late else "")
        receives = f", receive {self.receive_count}" if self.receive_count > 1 else ""
        return [
            age, self.function, f"{self.attempt}{receives}", self.progress or "-", self.queue,
            self.machine, str(self.process_id), self.id,
        ]  # fmt: skip


TASK_COLUMNS: Final = (
    "Age", "Function", "Attempt", "Progress", "Queue", "Machine", "Process", "Task id",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWorker:
    """One process that runs tasks."""

    machine: str
    process_id: int
    consumer: str
    version: str
    threads: int | None
    """The tasks that it runs at a time at most; None if its server does not say."""
    queues: Sequence[str]
    count: int
    """The number of tasks that it runs."""
    up_seconds: float
    seen_seconds: float
    """The seconds since its last sign, if its clock and the one here agree."""
    running: Sequence[SeenTask] = field(repr=False)
    """The oldest of those tasks, a hundred at most."""
    next_runs: Sequence[PeriodicRun] = field(repr=False)

    @property
    def is_late(self) -> bool:
        """True if the worker may be dead: it was killed, or hangs, or its clock is slow."""
        return self.seen_seconds > LATE_SECONDS

    @property
    def seen(self) -> str:
        """The time of the last sign in words."""
        seconds = self.seen_seconds
        if seconds > KEPT_SECONDS or seconds < -MAX_CLOCK_ERROR:  # the cache has kept no such entry
            word = "behind" if seconds > 0 else "ahead"
            return f"its clock is {duration(abs(seconds))} {word}"
        return f"{duration(seconds)} ago{': killed, or it hangs' if self.is_late else ''}"

    def cells(self) -> list[str]:
        """Return the cells of its row below WORKER_COLUMNS."""
        threads = f"{self.count} of {self.threads}" if self.threads else str(self.count)
        return [
            self.machine, str(self.process_id), self.consumer, ", ".join(self.queues) or "any",
            threads, self.version, duration(self.up_seconds), self.seen,
        ]  # fmt: skip


WORKER_COLUMNS: Final = (
    "Machine", "Process", "Consumer", "Queues", "Running", "Version", "Up", "Seen",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PeriodicRun:
    """The next run of a periodic task."""

    due_at: datetime
    name: str

    def cells(self) -> list[str]:
        """Return the cells of its row below RUN_COLUMNS."""
        wait = (self.due_at - datetime.now(UTC)).total_seconds()
        return [self.name, f"in {duration(wait)}", f"{self.due_at:%Y-%m-%d %H:%M} UTC"]


RUN_COLUMNS: Final = ("Periodic task", "Next run", "At")


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatRuns:
    """The workers that are seen, their tasks, and the next runs of periodic tasks."""

    workers: Sequence[SeenWorker]
    """The workers by machine and process."""
    tasks: Sequence[SeenTask]
    """The tasks, the oldest first, a thousand at most."""
    left_out: int
    """The number of tasks that are not in ``tasks``."""
    next_runs: Sequence[PeriodicRun]
    """The periodic tasks, the next one first."""
    problem: str = ""
    """The reason why the cron.yaml here, or how far tasks are, cannot be read."""

    def as_json(self) -> dict[str, Any]:
        """Return all of it as the JSON object of ``--json``."""
        workers = [asdict(each) for each in self.workers]
        for each in workers:
            del each["running"], each["next_runs"]
        return {
            "workers": workers,
            "running": [asdict(each) for each in self.tasks],
            "left_out": self.left_out,
            "next_runs": [
                {"name": each.name, "due_at": each.due_at.isoformat()} for each in self.next_runs
            ],
            "problem": self.problem or None,
        }


def what_runs(queues: Sequence[str] = ()) -> WhatRuns:
    """Ask the lease's cache for the entries of all workers, with one request.

    With the own names of ``queues``, return the tasks of those only. Raise ConfigurationError if
    BEANSTALK_DISPATCH_LEASE_CACHE is not set, LeaseUnavailable if the cache does not answer.
    """
    alias = get_config().lease_cache
    if alias is None:
        raise ConfigurationError(
            f"{LEASE_CACHE.variable} is not set: each worker writes what it runs into that cache"
        )
    with required(alias) as shared:
        entries = shared.cache.get_many(entry_keys()).values()
    workers = sorted(map(_worker, entries), key=lambda each: (each.machine, each.process_id))
    tasks = [
        task for each in workers for task in each.running if not queues or task.queue in queues
    ]
    tasks.sort(key=lambda each: -each.seconds)
    shown, problems = tasks[:MAX_TASKS], []
    try:
        shown = _with_progress(shown)
    except Exception as exc:
        problems.append(f"not known how far tasks are: {quoted_error(exc, with_type=True)}")
    next_runs = {run for each in workers for run in each.next_runs}
    try:
        next_runs.update(_next_runs_here())
    except ConfigurationError as exc:
        problems.append(str(exc))
    return WhatRuns(
        workers=workers,
        tasks=shown,
        left_out=len(tasks) - len(shown),
        next_runs=sorted(next_runs),
        problem="; ".join(problems),
    )


def _with_progress(tasks: Sequence[SeenTask]) -> list[SeenTask]:
    """Ask the store of results once. Raise any error of it."""
    found: dict[str, str] = {}
    for results in KEPT_RESULTS:
        found.update(results.progress(get_config(), [each.id for each in tasks]))
    return [replace(each, progress=found.get(each.id, "")) for each in tasks]


_WORKER_AS_WRITTEN: Final = ("process_id", "consumer", "version", "threads", "queues", "count")
_TASK_AS_WRITTEN: Final = ("id", "function", "queue", "attempt", "receive_count")
"""The fields that are taken as they are."""


def _fields(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return these fields of an entry. Another version may write more, or fewer."""
    return {name: entry.get(name) for name in names}


def _worker(entry: Mapping[str, Any]) -> SeenWorker:
    """Read an entry of a worker, whose clock may be another."""
    seen = time.time() - entry["written_at"]
    gone = min(max(seen, 0.0), KEPT_SECONDS) if seen > LATE_SECONDS else 0.0
    machine = escaped(entry["machine"])
    return SeenWorker(
        machine=machine,
        running=[
            SeenTask(
                **_fields(each, _TASK_AS_WRITTEN),
                seconds=each["seconds"] + gone,
                machine=machine,
                process_id=entry["process_id"],
                is_late=seen > LATE_SECONDS,
            )
            for each in entry["running"]
        ],
        next_runs=[
            PeriodicRun(name=name, due_at=datetime.fromtimestamp(at, UTC))
            for name, at in entry["next_runs"]
        ],
        up_seconds=entry["written_at"] - entry["started_at"],
        seen_seconds=seen,
        **_fields(entry, _WORKER_AS_WRITTEN),
    )


def _next_runs_here() -> Iterator[PeriodicRun]:
    """Yield the periodic tasks that the daemon sends, by the cron.yaml of the bundle."""
    if CRON_FILE.is_file():
        for task in cron.load(CRON_FILE):
            yield PeriodicRun(name=task.name, due_at=cron.next_run(task, datetime.now(UTC)))
