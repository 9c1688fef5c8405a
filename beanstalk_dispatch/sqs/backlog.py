"""The backlog of the queues, asked for once for all threads, and the processes that it needs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, SendError
from beanstalk_dispatch.process import clock, state

from .administration import QueueAttributes, get_attributes
from .errors import missing_permission
from .opening import open_queue

FRESH_SECONDS: Final = 10.0
"""The seconds for which a backlog is not asked for again."""
QUEUES_PER_SECOND: Final = 10
"""The limit of requests in a second. With many queues a backlog stays fresh for longer."""
STALE_SECONDS: Final = 60.0
"""The greatest age of a backlog that other threads get while one thread asks for a new one."""
_WAIT_SECONDS: Final = 3.0
"""The longest wait of the other threads if there is no backlog to get.

KEDA waits for three seconds itself.
"""
_ASKING_SECONDS: Final = 10.0
"""The seconds after which no request is begun."""
_REQUESTS_AT_A_TIME: Final = 10
WORKER_THREADS: Final = 10
"""The number of tasks that a process of beanstalk_worker runs at a time by default."""


def wanted_processes(messages: int, *, threads: int, per_thread: int) -> int:
    """Return the number of processes to run for messages that are visible or in flight.

    ``threads`` is the number of tasks that a process runs at a time. ``per_thread`` is the number
    of messages there may be for each thread. A message counts until it is deleted, whether it waits
    or runs. So a fleet that keeps up with its messages is not reduced while they run, and one that
    receives messages ahead is not enlarged for it.
    """
    return -(-messages // (threads * per_thread))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBacklog:
    """The messages of one queue, or of all of them. SQS calls its counts approximate."""

    visible: int
    in_flight: int
    delayed: int
    threads: int
    """The number of tasks that one process runs at a time."""
    wanted_processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The backlog of several queues in answers of SQS at one time."""

    queues: Mapping[str, QueueBacklog]
    """The backlog of each queue, by the name that was asked for."""
    problems: Mapping[str, BeanstalkDispatchError]
    """The error of each queue whose backlog is not known."""
    total: QueueBacklog | None
    """The sum over all queues. None if the backlog of a queue is not known."""
    asked_at: float
    """The time of the answers, in monotonic seconds."""

    @property
    def age(self) -> float:
        """Return the age of the backlog in seconds."""
        return clock.monotonic() - self.asked_at

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of the endpoint's answer.

        An error of SQS may show an account, so it is left out.
        """
        unknown = {name: {"problem": public_problem(exc)} for name, exc in self.problems.items()}
        return {
            "queues": {name: asdict(each) for name, each in self.queues.items()} | unknown,
            "total": asdict(self.total) if self.total else None,
            "age_seconds": round(self.age, 1),
        }


def public_problem(exc: BeanstalkDispatchError) -> str:
    """Return the reason why a backlog is not known, in words that show nothing of the account."""
    if permission := missing_permission(exc):
        return f"the permission {permission} is missing"
    return "SQS has not said; see the log"


def ask(names: Sequence[str], *, threads: int, per_thread: int) -> Backlog:
    """Return the backlog of each queue, after one request to SQS for each.

    Errors of SQS are in the result.
    """
    deadline = clock.monotonic() + _ASKING_SECONDS

    def attributes_of(name: str) -> QueueAttributes | BeanstalkDispatchError:
        if clock.monotonic() > deadline:
            return SendError(f"not asked, because SQS took longer than {_ASKING_SECONDS:g} s")
        try:
            return get_attributes(open_queue(name))
        except BeanstalkDispatchError as exc:
            return exc

    with ThreadPoolExecutor(_REQUESTS_AT_A_TIME) as pool:
        answers = dict(zip(names, pool.map(attributes_of, names), strict=True))

    def backlog_of(*found: QueueAttributes) -> QueueBacklog:
        visible = sum(each.visible for each in found)
        in_flight = sum(each.in_flight for each in found)
        return QueueBacklog(
            visible=visible,
            in_flight=in_flight,
            delayed=sum(each.delayed for each in found),
            threads=threads,
            wanted_processes=wanted_processes(
                visible + in_flight, threads=threads, per_thread=per_thread
            ),
        )

    known = {name: each for name, each in answers.items() if isinstance(each, QueueAttributes)}
    problems = {
        name: each for name, each in answers.items() if isinstance(each, BeanstalkDispatchError)
    }
    return Backlog(
        queues={name: backlog_of(each) for name, each in known.items()},
        problems=problems,
        total=None if problems else backlog_of(*known.values()),
        asked_at=clock.monotonic(),
    )


class SharedBacklog:
    """The backlog of the configured queues, for all threads of this process.

    Whatever the number of readers, one of them asks SQS at a time, and not more often than every
    FRESH_SECONDS. An error of SQS is kept for as long.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the backlog and the lock: a forked child cannot trust its parent's lock."""
        self._asking = threading.Lock()
        self._last: tuple[Config, Backlog] | None = None

    def read(self, config: Config) -> Backlog | None:
        """Return the backlog of the configured queues.

        Return None if another thread asks for the first one, and SQS does not answer.
        """
        names = config.work_queues
        fresh = max(FRESH_SECONDS, len(names) / QUEUES_PER_SECOND)
        if found := self._younger_than(fresh, config):
            return found
        stale = self._younger_than(max(STALE_SECONDS, 2 * fresh), config)
        if not self._asking.acquire(timeout=0 if stale else _WAIT_SECONDS):
            return stale
        try:
            found = self._younger_than(fresh, config)  # another thread may have asked meanwhile
            if found is None:
                found = ask(names, threads=WORKER_THREADS, per_thread=config.backlog_per_thread)
                self._last = config, found
            return found
        finally:
            self._asking.release()

    def _younger_than(self, seconds: float, config: Config) -> Backlog | None:
        last = self._last
        is_usable = last is not None and last[0] is config and last[1].age < seconds
        return last[1] if last and is_usable else None


BACKLOG: Final = SharedBacklog()
state.declare(BACKLOG.forget)
