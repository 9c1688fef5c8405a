"""For a project's own tests: see what was scheduled, and run it, without any queue."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.test import override_settings

from . import client
from .conf import SETTINGS, get_config
from .message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledTask:
    """What would have been sent. ``delay`` in seconds; ``queue`` as it was given."""

    queue: str
    message: Message
    body: str
    delay: float = 0
    group_id: str | None = None
    deduplication_id: str | None = None

    @property
    def function(self) -> str:
        return self.message.function

    @property
    def args(self) -> Sequence[Any]:
        return self.message.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self.message.kwargs

    def is_call(self, queue: str, function: str, /, *args: Any, **kwargs: Any) -> bool:
        """Whether ``schedule_function`` with these arguments would have sent it."""
        mine = (self.queue, self.function, list(self.args), dict(self.kwargs))
        return mine == (queue, function, list(args), kwargs)

    def __str__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{n}={v!r}" for n, v in self.kwargs.items())]
        return f"{self.queue}: {self.function}({', '.join(arguments)})"


class ScheduledTasks(list[ScheduledTask]):
    """What was scheduled, in order."""

    def assert_scheduled(
        self, queue: str, function: str, /, *args: Any, **kwargs: Any
    ) -> ScheduledTask:
        """The task that ``schedule_function`` with these arguments scheduled; AssertionError
        with all that was scheduled if there is not exactly one.
        """
        found = [task for task in self if task.is_call(queue, function, *args, **kwargs)]
        if len(found) != 1:
            raise AssertionError(f"scheduled {len(found)} times, not once; {self._shown()}")
        return found[0]

    def assert_none(self) -> None:
        if self:
            raise AssertionError(f"tasks were scheduled; {self._shown()}")

    def run(self) -> None:
        """Run the tasks as a worker would, in order, and those that they schedule; take them out.

        Delays are skipped and retries run at once. Raises what a task raised, and UnknownFunction.
        """
        with override_settings(**{SETTINGS["execute_synchronously"].variable: True}):
            while self:
                task = self.pop(0)
                result = client.execute(task.queue, task.body, get_config())
                if result.exception:
                    raise result.exception

    def _shown(self) -> str:
        return "scheduled: " + ("; ".join(map(str, self)) or "nothing")


@contextmanager
def capture_tasks() -> Iterator[ScheduledTasks]:
    """Collect what is scheduled in this process, in all threads, instead of sending it.

    Everything is checked and encoded as for SQS. What waits for a commit is collected at the
    commit; in a TestCase, whose transaction never commits, at the end of this block. What was
    rolled back is not collected.
    """
    outer, tasks = client.outbox, ScheduledTasks()
    collected: set[str] = set()
    earlier = [
        callback
        for connection in connections.all(initialized_only=True)
        for _, callback, *_ in connection.run_on_commit
    ]

    def take(queue: str, prepared: client.Prepared) -> None:
        collected.add(prepared.message.id)
        tasks.append(_scheduled(queue, prepared))

    client.outbox = take
    try:
        yield tasks
        _commit(earlier, collected)
    finally:
        client.outbox = outer


def _scheduled(queue: str, prepared: client.Prepared) -> ScheduledTask:
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


def _commit(earlier: list[Any], collected: set[str]) -> None:
    """Do now what the end of a TestCase's transaction will not do.

    Not what was put off before, nor what captureOnCommitCallbacks(execute=True) has done.
    """
    for connection in connections.all(initialized_only=True):
        if not all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            continue
        for entry in [*connection.run_on_commit]:
            callback: Any = entry[1]
            if _is_ours(callback) and callback not in earlier:
                connection.run_on_commit.remove(entry)
                if callback.args[1][0].message.id not in collected:
                    callback()


def _is_ours(callback: Any) -> bool:
    """Whether it sends messages; there is one at least."""
    return isinstance(callback, functools.partial) and callback.func is client.after_commit
