"""Run: one delivery from its receive to its answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol, TypeAlias

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.messages.shared_cache import CacheEntry
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.resuming import Leg
from beanstalk_dispatch.safe_task import SafeTask

from .definitions.entries import Entry
from .running_tasks import RunningTask

DONE: Final = Result(outcome=Outcome.DONE)
ASK_SECONDS: Final = 1.0
"""The seconds for which ``cancelled`` does not ask the cache a second time."""


class Children(Protocol):
    """The processes of their own in which the tasks of a consumer may run."""

    def are_possible(self) -> bool:
        """Return True if this process can have children."""

    def run(self, run: Run, *, is_fresh: bool) -> Result:
        """Run the stages of a child in one, and return its Result.

        ``is_fresh``: the child runs no other task before or after. Raise NotImportable if the
        project cannot be imported there.
        """


class Consumer(Protocol):
    """The receiver of messages: the endpoint, the poller, Lambda, the caller, or your own."""

    @property
    def children(self) -> Children | None:
        """Return the processes of the tasks; None if all run in the consumer's own."""

    can_hide: bool
    """True if the consumer can hide a message for ``Result.retry_after`` seconds.

    On a FIFO queue, which takes no delayed copy, a task is then retried that way, and each receive
    counts as an attempt.
    """

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        """Have ``message`` delivered after ``delay`` seconds.

        Raise BeanstalkDispatchError if that is not possible.
        """

    def task_starts(self, time_limit: float) -> None:
        """Note that a task starts, under a time limit in seconds.

        Raise NoTimeLeft if the consumer has too little time for it.
        """

    def is_ending(self) -> bool:
        """Return True if the process is about to end, so that a long task should stop."""


class SharedResult(Protocol):
    """The result of a task that is kept in the cache of its lease."""

    @property
    def key(self) -> str:
        """Return the key of its entry."""

    def first_entry(self) -> CacheEntry:
        """Return the entry that says that the task runs, unless an earlier delivery has run it."""

    def read(self, fields: Any, *, is_announced: bool) -> None:
        """Note the entry that was there, or None, and whether ``first_entry`` has replaced it."""

    def success_entry(self) -> CacheEntry | None:
        """Return the entry of the success of the task; None if one is kept already."""


def failure_of(exc: BaseException) -> Result:
    """Return the Result of a task that has raised this exception."""
    if isinstance(exc, TaskTimeout):
        return Result(outcome=Outcome.TIMED_OUT, reason="the task timed out")
    return Result(outcome=Outcome.FAILED, reason="the task failed")


def _fact(name: str) -> Any:
    """Return a property that is the field of that name of the run's delivery."""
    return property(attrgetter(f"delivery.{name}"))


class Run:
    """The one object of a delivery that changes. Hooks see it as ``self.delivery``.

    Observers and signals get it too. It has the facts of its delivery, the message, and from the
    end of the task on the outcome. The stages of the pipeline fill it from top to bottom.
    """

    __slots__ = (
        "_is_cancelled",
        "_next_ask_at",
        "attempted",
        "child",
        "config",
        "configured",
        "consumer",
        "delivery",
        "entry",
        "exception",
        "headers",
        "hooked",
        "in_transaction",
        "is_dead_lettered",
        "is_final",
        "left_behind",
        "leg",
        "message",
        "notes",
        "on_success",
        "outcome",
        "rebuilt",
        "retries_by_hiding",
        "return_value",
        "running",
        "shared_result",
        "started",
        "task",
        "time_limit",
    )

    entry: Entry
    """The message's function in the dispatch table, which the stage ``look_up`` finds."""
    running: RunningTask
    """The entry of the task in the crash ledger, which the stage ``contain`` makes."""
    child: str | None
    """``process`` or ``fresh`` for a task that runs in a child, which ``contain`` decides."""
    task: SafeTask
    """The instance that runs, which the stage ``start`` makes."""
    hooked: Sequence[SafeTask]
    """The instances whose hooks are called, in that order: the task, and the configured one."""
    time_limit: float
    """The time limit of the task, in seconds."""
    rebuilt: tuple[Sequence[Any], Mapping[str, Any]]
    """The arguments, of the types of the task's annotations. A message without ``typed`` has none.
    """

    def __init__(self, delivery: Delivery, config: Config, consumer: Consumer) -> None:
        self.delivery = delivery
        """The facts of the receive."""
        self.config = config
        self.consumer = consumer
        self.retries_by_hiding = (
            consumer.can_hide or not config.execute_synchronously
        ) and is_fifo(delivery.queue)
        """True if a retry is the same message: a FIFO queue takes no delayed copy."""
        self.started = clock.monotonic()
        """The time when the delivery began, by ``clock.monotonic``."""
        self.message: Message | Any = None  # Any for None: it is there after the stage ``accept``
        """The message in the body, once it is decoded; None if it cannot be."""
        self.configured: SafeTask | None = None
        """An instance of the configured class, if the task's class does not inherit from it."""
        self.in_transaction: Collection[str] | None = None
        """The databases that were in a transaction before the task; None if that is unknown."""
        self.on_success: Callable[[], None] | None = None
        """A function to call when the task's ``run`` has returned, before its hooks."""
        self.shared_result: SharedResult | None = None
        """The result of the task, while it is kept in the cache of the lease that the run has."""
        self.attempted = DONE
        """The Result of the task's ``run``, before anything is sent for it."""
        self.outcome: Outcome | None = None
        """The outcome of the task, from the end of ``run`` on.

        RETRY means that it will run again.
        """
        self.exception: BaseException | None = None
        """The exception with which the task or the delivery has failed."""
        self.leg: Leg | None = None
        """The position of the task's ``resume``, from its start on."""
        self.return_value: object = None
        """The return value of the task's ``run``. It is known before the task's hooks."""
        self.is_final = False
        """True if no retry follows a failure. It is known after the task's hooks.

        The retries are spent, the message can never run, the failure is acknowledged, SQS moves the
        message to its dead-letter queue now, or there is no queue.
        """
        self.is_dead_lettered = False
        """True if the dead-letter queue has the message. It is known after the task's hooks."""
        self.headers: dict[str, str] = {}
        """The headers that observers add to those of a retry."""
        self.notes: dict[str, Any] = {}
        """The values that observers keep between their methods, by names of their own."""
        self.left_behind: Sequence[str] = ()
        """Traces of the task in its process that were put right, in words."""
        self._is_cancelled = False
        self._next_ask_at = -math.inf

    def __repr__(self) -> str:
        """Return the ids and the outcome, without arguments."""
        return f"<Run {self.message or self.delivery.message_id} outcome={self.outcome}>"

    @property
    def seconds(self) -> float:
        """Return the seconds since the delivery, or where a proxy says it, since its request."""
        return clock.monotonic() - self.started + (self.delivery.waited or 0.0)

    def set_fate(self, result: Result) -> None:
        """Note for observers whether a failure is final, and has become a dead letter."""
        is_over = result.is_final or result.is_acknowledged or self.config.execute_synchronously
        self.is_final = result.is_failure and (is_over or self.is_last_receive)
        self.is_dead_lettered = result.successor is Successor.DEAD_LETTER

    @property
    def max_receives(self) -> int | None:
        """Return the number of receives after which SQS moves the message away, if it is known."""
        return self.delivery.max_receives or self.config.max_receives

    @property
    def is_last_receive(self) -> bool:
        """Return True if SQS is known not to deliver the message again."""
        return self.max_receives is not None and self.receive_count >= self.max_receives

    @property
    def cancelled(self) -> bool:
        """Return True if the task was cancelled. Ask the cache once in a second at most."""
        if self.message is not None and clock.monotonic() >= self._next_ask_at:
            self._next_ask_at = clock.monotonic() + ASK_SECONDS
            self._is_cancelled |= record.is_cancelled(self.message.id, self.config)
        return self._is_cancelled

    # The facts of the delivery, which hooks and observers find here: see RunView.
    body = _fact("body")
    queue = _fact("queue")
    message_id = _fact("message_id")
    receive_count = _fact("receive_count")
    sent_at = _fact("sent_at")
    first_received_at = _fact("first_received_at")
    group_id = _fact("group_id")
    task_name = _fact("task_name")
    scheduled_at = _fact("scheduled_at")


Surround: TypeAlias = "Generator[None, Result, Result | None]"
"""A stage that surrounds those after it.

It works before them in front of its ``yield``, and after them behind it. It may return another
Result, and one without ``yield`` to stop.
"""
Stage: TypeAlias = "Callable[[Run], Result | Surround | None]"
"""One guard of a run. It returns a Result to stop, None to continue, or a Surround."""
OutcomeStage: TypeAlias = "Callable[[Run, Result], Result | None]"
"""A stage that only looks at the Result of those after it. It may return another."""
