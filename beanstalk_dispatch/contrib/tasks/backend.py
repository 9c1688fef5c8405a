"""The SQSBackend, which ``task.enqueue()`` calls."""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage
from django.db import transaction

from beanstalk_dispatch import client
from beanstalk_dispatch.client import Call
from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import RESULTS
from beanstalk_dispatch.contrib import results
from beanstalk_dispatch.contrib.results.record import (
    BACKEND_HEADER,
    QUEUE_HEADER,
    from_seconds,
    to_django,
)
from beanstalk_dispatch.exceptions import (
    BatchError,
    ConfigurationError,
    SchedulingError,
    UnknownFunction,
    UnknownResult,
)
from beanstalk_dispatch.messages.message import now
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.scheduling.commits import on_commit_by_policy
from beanstalk_dispatch.scheduling.prepare import prepare_calls
from beanstalk_dispatch.scheduling.task_names import table_name

from .arguments import arguments_to_send
from .checks import check_entry
from .library import (
    DEFAULT_TASK_QUEUE_NAME,
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    Task,
    TaskResultDoesNotExist,
    ready_result,
    task_enqueued,
)
from .options import on_commit_option, waits_for_commits
from .policy import SQSTask
from .running import RunningHere, arguments_of, running_here, to_task_result

TaskCall = tuple[AnyTask, Sequence[Any], Mapping[str, Any]]
"""A task with its positional and its keyword arguments."""


class _Ready(NamedTuple):
    """A task that is to be sent."""

    queue: str
    call: Call
    result: AnyResult
    """The result to return. It has no id yet."""


class SQSBackend(BaseTaskBackend):
    """A backend that sends Django tasks to SQS. Its queues are those of BEANSTALK_DISPATCH_QUEUES.

    The queue ``default`` is the alias of that name or, if there is none, the first alias. Django
    makes an instance for each thread and each async context, so none has a state.
    https://docs.djangoproject.com/en/stable/ref/tasks/
    """

    task_class = SQSTask
    supports_defer = True
    supports_async_task = True
    supports_priority = False

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        """Read ``params``, an entry of TASKS.

        QUEUES restricts the queues. ENQUEUE_ON_COMMIT in OPTIONS has the effect of ``on_commit`` of
        ``schedule``. Without it BEANSTALK_DISPATCH_ON_COMMIT applies, and without both a task
        waits for the transaction in which it is enqueued.
        """
        self.alias = alias
        self.options = params.get("OPTIONS", {})
        self._queues = params.get("QUEUES")

    @property
    def queues(self) -> set[str]:  # type: ignore[override]
        """The names that ``queue_name`` may have; empty for any."""
        return _queue_names(_config_or_none()) if self._queues is None else set(self._queues)

    @property
    def supports_get_result(self) -> bool:  # type: ignore[override]
        """True if BEANSTALK_DISPATCH_RESULTS is set."""
        config = _config_or_none()
        return config is not None and config.results is not None

    def enqueue(  # type: ignore[override]
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyResult:
        """Send one task to SQS.

        Raise InvalidTask if the backend does not take this task; see schedule() for other errors.
        ``task_enqueued`` is sent when SQS has the message, or when it waits for a commit. A task
        that runs in this process has run when this returns.
        """
        [(queue, call, result)] = self._ready_calls([(task, args, kwargs)])
        with self._running_here(result) if client.is_local(get_config()) else nullcontext():
            task_id = client.schedule(queue, call, on_commit=self._on_commit_here(call))
        self._announce_result(result, task_id)
        return result

    async def aenqueue(  # type: ignore[override]
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyResult:
        """Send one task as ``enqueue`` does, awaitable.

        Several coroutines send at the same time. Django has no transactions in asynchronous code,
        so the task waits for none unless the option is set.
        """
        [(queue, call, result)] = self._ready_calls([(task, args, kwargs)])
        with self._running_here(result) if client.is_local(get_config()) else nullcontext():
            task_id = await client.aschedule(queue, call, on_commit=self._on_commit(call))
        if not result.id:
            object.__setattr__(result, "id", task_id)
            await task_enqueued.asend_robust(sender=type(self), task_result=result)
        return result

    def enqueue_many(self, calls: Iterable[TaskCall]) -> list[AnyResult]:
        """Send several tasks in batches, and return their results in order.

        Every call is checked first.

        Raise BatchError if some were not sent. Its positions are those of the calls.
        """
        ready = self._ready_calls(calls)
        if client.is_local(get_config()):
            return [
                self.enqueue(each.result.task, each.call.args, each.call.kwargs) for each in ready
            ]
        try:
            self._send_batches(ready)
        except SchedulingError as exc:
            raise client.shown_to_callers(exc) from exc.__cause__
        return [each.result for each in ready]

    async def aenqueue_many(self, calls: Iterable[TaskCall]) -> list[AnyResult]:
        """Send several tasks as ``enqueue_many`` does, awaitable."""
        return await sync_to_async(self.enqueue_many)(list(calls))

    def get_result(self, result_id: str) -> AnyResult:
        """Retrieve the stored result of a task by its id.

        Raise TaskResultDoesNotExist if there is none, and NotImplementedError without
        BEANSTALK_DISPATCH_RESULTS.

        The arguments are empty unless BEANSTALK_DISPATCH_RESULT_ARGUMENTS is set, or the task runs
        in this context: a receiver of a signal may enqueue the task again. A task is found
        if it is listed, or if its module is imported.
        """
        if get_config().results is None:
            raise NotImplementedError(
                "This backend does not support retrieving or refreshing results. "
                f"Set {RESULTS.variable}."
            )
        try:
            record = results.get_result(result_id)
        except UnknownResult as exc:
            raise TaskResultDoesNotExist(str(exc)) from None
        task = _find_task(record.function, get_config())
        if task is None:
            raise TaskResultDoesNotExist(f"{record.function!r} is not a task of this process")
        kept = (record.args or (), record.kwargs or {})
        args, kwargs = arguments_of(result_id) or kept
        return to_task_result(task, record, args=args, kwargs=kwargs)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return the problems of this entry of TASKS. The checks of the core report the rest."""
        config = _config_or_none()
        return check_entry(self, self._queues or (), _queue_names(config), config)

    # --- one task ------------------------------------------------------------------------------

    def _on_commit(self, *calls: Call) -> bool | None:
        """Return ``on_commit`` of these calls by their policies, or by the option."""
        by_policy = None
        if (config := get_config()).policies:
            names = {table_name(each.function, config) for each in calls}
            by_policy = on_commit_by_policy(names, config)
        return on_commit_option(self) if by_policy is None else by_policy

    def _on_commit_here(self, *calls: Call) -> bool | None:
        """Return ``on_commit`` for what is enqueued now.

        A task of the default waits in a transaction only. Manual transactions know no callbacks.
        """
        option = self._on_commit(*calls)
        if option is None and waits_for_commits(option, get_config()):
            return transaction.get_connection().in_atomic_block or None
        return option

    def _ready_calls(self, calls: Iterable[TaskCall]) -> list[_Ready]:
        """Return the calls to send.

        Raise InvalidTask or, for an argument that is not JSON, TypeError.
        """
        config, sent_at = get_config(), now()
        enqueued_at = to_django(from_seconds(sent_at))
        ready: list[_Ready] = []  # it keeps the tasks, so that no id is used again
        valid: dict[int, tuple[str, Mapping[str, str]]] = {}
        for task, args, kwargs in calls:
            if id(task) not in valid:
                self.validate_task(task)
                valid[id(task)] = _queue_alias(task.queue_name, config), _policy_headers(task)
            queue, headers = valid[id(task)]
            sent, shown = arguments_to_send(task, args, kwargs)
            result = ready_result(
                task, id="", enqueued_at=enqueued_at, arguments=shown, backend=self.alias
            )
            call = Call(
                task,
                *sent,
                delay=_delay_seconds(task.run_after) if task.run_after else 0,
                headers=headers,
                sent_at=sent_at,
            )
            ready.append(_Ready(queue, call, result))
        return ready

    def _announce_result(self, result: AnyResult, task_id: str) -> None:
        """Give the result its id and send ``task_enqueued``, once."""
        if not result.id:
            object.__setattr__(result, "id", task_id)
            task_enqueued.send_robust(sender=type(self), task_result=result)

    @contextmanager
    def _running_here(self, result: AnyResult) -> Iterator[None]:
        """Let a task that runs in this process update ``result``."""
        here = RunningHere(result=result, announce=self._announce_result)
        before = running_here.set(here)
        try:
            yield
        finally:
            running_here.reset(before)

    def _send_batches(self, ready: Sequence[_Ready]) -> None:
        by_queue: dict[str, list[int]] = defaultdict(list)
        for position, each in enumerate(ready):
            by_queue[each.queue].append(position)
        config, on_commit = get_config(), self._on_commit_here(*(each.call for each in ready))
        prepared = {
            queue: prepare_calls(
                queue, [ready[position].call for position in positions], config, is_local=False
            )
            for queue, positions in by_queue.items()
        }
        for destination, _ in prepared.values():
            destination.open_early()  # nothing is sent if a queue does not exist
        sent: dict[int, str] = {}
        unsent: dict[int, str] = {}
        refused: set[int] = set()
        cause: BaseException | None = None
        for queue, positions in by_queue.items():
            try:
                ids = client.send_prepared(*prepared[queue], on_commit=on_commit)
            except BatchError as exc:
                cause = exc.__cause__
                sent |= {positions[place]: task_id for place, task_id in exc.sent.items()}
                unsent |= {positions[place]: reason for place, reason in exc.unsent.items()}
                refused |= {positions[place] for place in exc.refused}
            except SchedulingError as exc:  # nothing was sent to this queue
                cause = exc
                unsent |= dict.fromkeys(positions, str(exc))
            else:
                sent |= dict(zip(positions, ids, strict=True))
        for position, task_id in sorted(sent.items()):
            self._announce_result(ready[position].result, task_id)
        if unsent:
            raise BatchError(sent=sent, unsent=unsent, refused=refused) from cause


def _config_or_none() -> Config | None:
    """Return the configuration; None if it is wrong.

    The error is raised where a task is enqueued, and the checks report it too.
    """
    try:
        return get_config()
    except ConfigurationError:
        return None


@functools.lru_cache(maxsize=1)
def _queue_names(config: Config | None) -> set[str]:
    """Return the names that ``queue_name`` may have; empty for any."""
    aliases = config.queues if config else ()
    return {DEFAULT_TASK_QUEUE_NAME, *aliases} if aliases else set()


def _queue_alias(name: str, config: Config) -> str:
    """Return the queue that a task with this ``queue_name`` is sent to."""
    if name != DEFAULT_TASK_QUEUE_NAME or name in config.queues:
        return name
    return next(iter(config.work_queues), name)


def _find_task(name: str, config: Config) -> AnyTask | None:
    """Return the task of a record's function. Only a listed module is imported for it.

    A web process may list no tasks. There the task is found if its module is imported already.
    """
    try:
        found = dispatch_table.resolve(name, config)
    except UnknownFunction:
        module, _, attribute = name.rpartition(".")
        found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, Task) else None


def _delay_seconds(run_after: datetime) -> float:
    return max((run_after - datetime.now(run_after.tzinfo)).total_seconds(), 0)


def _policy_headers(task: AnyTask) -> Mapping[str, str]:
    """Return the changes of ``using``, for the worker.

    A task as its module has it needs no headers.
    """
    module = sys.modules.get(task.func.__module__)
    original = getattr(module, task.func.__qualname__, None)
    if isinstance(original, Task) and (
        (original.queue_name, original.backend) == (task.queue_name, task.backend)
    ):
        return {}
    return {BACKEND_HEADER: task.backend, QUEUE_HEADER: task.queue_name}
