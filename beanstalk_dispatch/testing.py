"""Helpers for a project's own tests: collect the tasks it schedules, and run them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.test import override_settings

from . import client
from .conf import get_config
from .conf.variables import EXECUTE_SYNCHRONOUSLY
from .consumers.calling_process import execute
from .messages.message import Message
from .scheduling import commits
from .scheduling.call import Function
from .scheduling.destination import Destination, resolve
from .scheduling.prepare import Prepared
from .scheduling.send import SendResult
from .scheduling.task_names import table_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledTask:
    """One task that was collected instead of sent."""

    queue: str
    """The queue as the caller named it."""
    message: Message
    body: str
    """The encoded message, as SQS would get it."""
    delay: float = 0
    """Seconds."""
    group_id: str | None = None
    deduplication_id: str | None = None

    @property
    def function(self) -> str:
        """Return the task's name in the dispatch table."""
        return self.message.function

    @property
    def args(self) -> Sequence[Any]:
        """Return the positional arguments."""
        return self.message.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Return the keyword arguments."""
        return self.message.kwargs

    def is_call(self, queue: str, function: Function, /, *args: Any, **kwargs: Any) -> bool:
        """Return True if ``schedule_function`` with these arguments schedules this task."""
        if not isinstance(function, str):
            function = table_name(function, get_config())
        mine = (self.queue, self.function, list(self.args), dict(self.kwargs))
        return mine == (queue, function, list(args), kwargs)

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{n}={v!r}" for n, v in self.kwargs.items())]
        return f"{self.queue}: {self.function}({', '.join(arguments)})"


class ScheduledTasks(list[ScheduledTask]):
    """The tasks that were scheduled, in order."""

    def assert_scheduled(
        self, queue: str, function: Function, /, *args: Any, **kwargs: Any
    ) -> ScheduledTask:
        """Return the task that ``schedule_function`` scheduled with these arguments.

        Raise AssertionError if it was not scheduled exactly once. The error lists every task
        that was scheduled.
        """
        found = [task for task in self if task.is_call(queue, function, *args, **kwargs)]
        if len(found) != 1:
            raise AssertionError(
                f"scheduled {len(found)} times, not once; {self._describe_calls()}"
            )
        return found[0]

    def assert_none(self) -> None:
        """Raise AssertionError if any task was scheduled."""
        if self:
            raise AssertionError(f"tasks were scheduled; {self._describe_calls()}")

    def run(self) -> None:
        """Run the tasks in order, as a worker does, and then the tasks that these schedule.

        A task is removed from this list when it runs. Delays are skipped, and retries run at
        once. Raise the error of a task that fails, and UnknownFunction.
        """
        with override_settings(**{EXECUTE_SYNCHRONOUSLY.variable: True}):
            while self:
                task = self.pop(0)
                run, _ = execute(resolve(task.queue, get_config()), task.body)
                if run.exception:
                    raise run.exception

    def _describe_calls(self) -> str:
        return "scheduled: " + ("; ".join(map(str, self)) or "nothing")


@contextmanager
def capture_tasks() -> Iterator[ScheduledTasks]:
    """Collect the tasks that any thread of this process schedules, instead of sending them.

    Each call is checked and encoded as for SQS. A task that waits for a commit is collected when
    the transaction commits, and is not collected after a rollback. A TestCase never commits its
    transaction, so there the task is collected when this block ends.
    """
    outer, tasks = client.capture, ScheduledTasks()
    first_number = commits.next_number()

    def take(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
        tasks.extend(_to_scheduled_task(destination.name, each) for each in prepared)
        return [each.message.id for each in prepared]

    client.capture = take
    try:
        yield tasks
        _run_commit_callbacks(first_number)
    finally:
        client.capture = outer


def _to_scheduled_task(queue: str, prepared: Prepared) -> ScheduledTask:
    message, parameters = prepared.message, prepared.send_parameters
    delay = parameters.get("DelaySeconds", 0)
    if message.not_before is not None and message.sent_at is not None:
        delay = message.not_before - message.sent_at
    return ScheduledTask(
        queue=queue,
        message=message,
        body=prepared.body,
        delay=delay,
        group_id=parameters.get("MessageGroupId"),
        deduplication_id=parameters.get("MessageDeduplicationId"),
    )


def _run_commit_callbacks(first_number: int) -> None:
    """Run our on_commit callbacks, which a TestCase's transaction would never run.

    Those with a lower number were registered before the block. One that
    captureOnCommitCallbacks(execute=True) has run does nothing when it is run again.
    """
    for connection in connections.all(initialized_only=True):
        if not all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            continue
        for entry in [*connection.run_on_commit]:
            callback: Any = entry[1]
            if isinstance(callback, commits.WaitingCalls) and callback.number >= first_number:
                connection.run_on_commit.remove(entry)
                callback()
