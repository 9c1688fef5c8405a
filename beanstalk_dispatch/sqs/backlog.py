"""How much waits in the queues, asked once for all threads, and how many processes that needs."""

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
"""A backlog is not asked for again while it is younger."""
QUEUES_PER_SECOND: Final = 10
"""With many queues a backlog stays fresh for longer, so that no more requests than this are made
in a second."""
STALE_SECONDS: Final = 60.0
"""While one thread asks, the others get the last backlog, but none that is older."""
_WAIT_SECONDS: Final = 3.0
"""How long they wait if there is none. KEDA waits for three seconds itself."""
_ASKING_SECONDS: Final = 10.0
"""No request is begun after this time."""
_REQUESTS_AT_A_TIME: Final = 10
WORKER_THREADS: Final = 10
"""How many tasks a process of beanstalk_worker runs at a time by default."""


def wanted_processes(messages: int, *, threads: int, per_thread: int) -> int:
    """How many processes should run if this number of messages is visible or in flight.

    ``threads`` is how many tasks a process runs at a time, and ``per_thread`` how many messages
    there may be for each thread. A message counts until it is deleted, whether it waits or runs. So
    a fleet that keeps up with its messages is not reduced while they run, and one that receives
    messages ahead is not enlarged for it.
    """
    return -(-messages // (threads * per_thread))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBacklog:
    """The messages of one queue, or of all of them. SQS calls its counts approximate."""

    visible: int
    in_flight: int
    delayed: int
    threads: int
    """How many tasks one process runs at a time."""
    wanted_processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The backlog of several queues, as SQS has answered at one time."""

    queues: Mapping[str, QueueBacklog]
    """By the name that was asked for."""
    problems: Mapping[str, BeanstalkDispatchError]
    """Why the backlog of a queue is not known."""
    total: QueueBacklog | None
    """None if the backlog of a queue is not known."""
    asked_at: float
    """In monotonic seconds."""

    @property
    def age(self) -> float:
        """How old it is, in seconds."""
        return clock.monotonic() - self.asked_at

    def as_json(self) -> dict[str, Any]:
        """What the endpoint answers. An error of SQS may show an account, so it is left out."""
        unknown = {name: {"problem": public_problem(exc)} for name, exc in self.problems.items()}
        return {
            "queues": {name: asdict(each) for name, each in self.queues.items()} | unknown,
            "total": asdict(self.total) if self.total else None,
            "age_seconds": round(self.age, 1),
        }


def public_problem(exc: BeanstalkDispatchError) -> str:
    """Why a backlog is not known, in words that show nothing of the account."""
    if permission := missing_permission(exc):
        return f"the permission {permission} is missing"
    return "SQS has not said; see the log"


def queue_names(config: Config) -> list[str]:
    """The aliases of the queues that a worker reads: all but that of the dead-letter queue."""
    return [name for name in config.queues if name != config.dead_letter_queue]


def ask(names: Sequence[str], *, threads: int, per_thread: int) -> Backlog:
    """Ask SQS for the backlog of each queue, with one request for each. Raises nothing."""
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
    FRESH_SECONDS. What SQS has refused is kept for as long.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child cannot trust a lock that it did not make."""
        self._asking = threading.Lock()
        self._last: tuple[Config, Backlog] | None = None

    def read(self, config: Config) -> Backlog | None:
        """The backlog. None if another thread asks for the first one, and SQS does not answer."""
        names = queue_names(config)
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
