"""SQSBackend: what ``task.enqueue()`` calls."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.core import checks
from django.core.checks import CheckMessage
from django.utils import timezone

from beanstalk_dispatch import client
from beanstalk_dispatch.client import Call
from beanstalk_dispatch.conf import SETTINGS, get_config
from beanstalk_dispatch.contrib import results
from beanstalk_dispatch.exceptions import (
    BatchError,
    ConfigurationError,
    UnknownResult,
    listed,
)
from beanstalk_dispatch.scheduling.sending import is_local

from .allowed import find_task
from .library import (
    DEFAULT_TASK_QUEUE_NAME,
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_enqueued,
)
from .policy import SQSTask
from .running import (
    BACKEND_HEADER,
    QUEUE_HEADER,
    RunningHere,
    arguments_of,
    running_here,
    to_task_result,
)

TaskCall = tuple[AnyTask, Sequence[Any], Mapping[str, Any]]
"""A task with its positional and its keyword arguments."""


class SQSBackend(BaseTaskBackend):
    """Sends Django tasks to SQS. Its queues are the aliases of BEANSTALK_DISPATCH_QUEUES.

    The queue ``default`` is the alias of that name or, if there is none, the first alias. Django
    makes an instance for each thread and each async context, so none has a state.
    https://docs.djangoproject.com/en/stable/ref/tasks/
    """

    task_class = SQSTask
    supports_defer = True
    supports_async_task = True
    supports_priority = False

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        """``params``: an entry of TASKS. QUEUES restricts the queues, ENQUEUE_ON_COMMIT in OPTIONS
        does what ``on_commit`` of ``schedule`` does.
        """
        self.alias = alias
        self.options = params.get("OPTIONS", {})
        self._queues = params.get("QUEUES")

    @property
    def queues(self) -> set[str]:  # type: ignore[override]
        """The names that ``queue_name`` may have; empty for any."""
        if self._queues is not None:
            return set(self._queues)
        aliases = _aliases()
        return {DEFAULT_TASK_QUEUE_NAME, *aliases} if aliases else set()

    @property
    def supports_get_result(self) -> bool:  # type: ignore[override]
        """Whether BEANSTALK_DISPATCH_RESULTS is set."""
        try:
            return get_config().results is not None
        except ConfigurationError:  # the checks report it
            return False

    def enqueue(  # type: ignore[override]
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyResult:
        """Send one task. Raises InvalidTask, or what ``schedule`` raises.

        ``task_enqueued`` is sent when SQS has the message, or when it waits for a commit. A task
        that runs in this process has run when this returns.
        """
        self.validate_task(task)
        result = self._ready(task, args, kwargs)
        with self._running_here(result):
            task_id = client.schedule(
                _queue_alias(task), _call_of(result), on_commit=self._on_commit
            )
        self._announce(result, task_id)
        return result

    async def aenqueue(  # type: ignore[override]
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyResult:
        """``enqueue``, awaitable. Several coroutines send at the same time."""
        self.validate_task(task)
        result = self._ready(task, args, kwargs)
        with self._running_here(result):
            task_id = await client.aschedule(
                _queue_alias(task), _call_of(result), on_commit=self._on_commit
            )
        if not result.id:
            _set_enqueued(result, task_id)
            await task_enqueued.asend_robust(sender=type(self), task_result=result)
        return result

    def enqueue_many(self, calls: Iterable[TaskCall]) -> list[AnyResult]:
        """Send several tasks in batches; their results in order. Every call is checked first.

        Raises BatchError if some were not sent. Its positions are those of the calls.
        """
        pending: list[tuple[AnyTask, AnyResult]] = []
        valid: set[int] = set()
        for task, args, kwargs in calls:
            if id(task) not in valid:
                self.validate_task(task)
                valid.add(id(task))
            pending.append((task, self._ready(task, args, kwargs)))
        if is_local(get_config()):
            return [self.enqueue(task, each.args, each.kwargs) for task, each in pending]
        by_queue: dict[str, list[int]] = {}
        for position, (task, _) in enumerate(pending):
            by_queue.setdefault(_queue_alias(task), []).append(position)
        ready = [each for _, each in pending]
        self._send_batches(ready, by_queue)
        return ready

    async def aenqueue_many(self, calls: Iterable[TaskCall]) -> list[AnyResult]:
        """``enqueue_many``, awaitable."""
        return await sync_to_async(self.enqueue_many)(list(calls))

    def get_result(self, result_id: str) -> AnyResult:
        """What is kept of a task. Raises TaskResultDoesNotExist, and ConfigurationError.

        The arguments are empty unless BEANSTALK_DISPATCH_RESULT_ARGUMENTS is set, or the task runs
        in this context: a receiver of a signal may enqueue the task again. A task is found
        if it is listed, or if its module is imported.
        """
        try:
            record = results.get_result(result_id)
        except UnknownResult as exc:
            raise TaskResultDoesNotExist(str(exc)) from None
        task = find_task(record.function, get_config())
        if task is None:
            raise TaskResultDoesNotExist(f"{record.function!r} is not a task of this process")
        kept = (record.args or (), record.kwargs or {})
        args, kwargs = arguments_of(result_id) or kept
        return to_task_result(task, record, args=args, kwargs=kwargs)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """What is wrong with this entry of TASKS. The checks of the core report the rest."""
        unknown = set(self._queues or ()) - _aliases().keys() - {DEFAULT_TASK_QUEUE_NAME}
        if not (_aliases() and unknown):
            return []
        return [
            checks.Error(
                f"TASKS[{self.alias!r}] has the queues {listed(sorted(unknown))}, which "
                f"{SETTINGS['queues'].variable} does not list.",
                hint="Remove QUEUES: the queues are then the aliases of that variable.",
                id="beanstalk_dispatch.tasks.E001",
            )
        ]

    # --- one task ------------------------------------------------------------------------------

    @property
    def _on_commit(self) -> bool | None:
        """None does what BEANSTALK_DISPATCH_ON_COMMIT says."""
        value = self.options.get("ENQUEUE_ON_COMMIT")
        return None if value is None else bool(value)

    def _ready(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AnyResult:
        """The result of a task that is not sent yet and has no id yet.

        Raises TypeError for an argument that is not JSON.
        """
        return TaskResult(
            task=task,
            id="",
            status=TaskResultStatus.READY,
            enqueued_at=None,
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=args,  # type: ignore[arg-type]  # TaskResult makes a list of it
            kwargs=kwargs,  # type: ignore[arg-type]
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )

    def _announce(self, result: AnyResult, task_id: str) -> None:
        """Give the result its id and send ``task_enqueued``, once."""
        if not result.id:
            _set_enqueued(result, task_id)
            task_enqueued.send_robust(sender=type(self), task_result=result)

    @contextmanager
    def _running_here(self, result: AnyResult) -> Iterator[None]:
        """Let a task that runs in this process give ``result`` what becomes of it."""
        if not is_local(get_config()):
            yield
            return
        here = RunningHere(result=result, announce=self._announce)
        before = running_here.set(here)
        try:
            yield
        finally:
            running_here.reset(before)

    def _send_batches(
        self, ready: Sequence[AnyResult], by_queue: Mapping[str, Sequence[int]]
    ) -> None:
        sent: dict[int, str] = {}
        unsent: dict[int, str] = {}
        cause: BaseException | None = None
        for queue, positions in by_queue.items():
            calls = [_call_of(ready[position]) for position in positions]
            try:
                ids = client.schedule_many(queue, calls, on_commit=self._on_commit)
            except BatchError as exc:
                cause = exc.__cause__
                sent |= {positions[place]: task_id for place, task_id in exc.sent.items()}
                unsent |= {positions[place]: reason for place, reason in exc.unsent.items()}
            else:
                sent |= dict(zip(positions, ids, strict=True))
        for position, task_id in sorted(sent.items()):
            self._announce(ready[position], task_id)
        if unsent:
            raise BatchError(sent=sent, unsent=unsent) from cause


def _set_enqueued(result: AnyResult, task_id: str) -> None:
    object.__setattr__(result, "id", task_id)
    object.__setattr__(result, "enqueued_at", timezone.now())


def _aliases() -> Mapping[str, object]:
    """The aliases of BEANSTALK_DISPATCH_QUEUES; none if the configuration is wrong."""
    try:
        return get_config().queues
    except ConfigurationError:  # raised where a task is enqueued; the checks report it too
        return {}


def _queue_alias(task: AnyTask) -> str:
    """The queue that a task is sent to."""
    config = get_config()
    name = task.queue_name
    if name != DEFAULT_TASK_QUEUE_NAME or name in config.queues:
        return name
    aliases = (each for each in config.queues if each != config.dead_letter_queue)
    return next(aliases, name)


def _call_of(result: AnyResult) -> Call:
    task = result.task
    return Call(
        task,
        result.args,
        result.kwargs,
        delay=_delay(task.run_after),
        headers=_headers(task),
    )


def _delay(run_after: datetime | None) -> float:
    if run_after is None:
        return 0
    return max((run_after - datetime.now(run_after.tzinfo)).total_seconds(), 0)


def _headers(task: AnyTask) -> Mapping[str, str]:
    """What ``using`` has changed, for the worker. A task as its module has it needs no headers."""
    module = sys.modules.get(task.func.__module__)
    original = getattr(module, task.func.__qualname__, None)
    if isinstance(original, Task) and (
        (original.queue_name, original.backend) == (task.queue_name, task.backend)
    ):
        return {}
    return {BACKEND_HEADER: task.backend, QUEUE_HEADER: task.queue_name}
