"""The run of a Django task on a worker: its entry, its TaskResult, and Django's signals."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, cast

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.contrib.results.record import (
    BACKEND_HEADER,
    QUEUE_HEADER,
    TaskRecord,
    to_django,
)
from beanstalk_dispatch.contrib.results.recording import Recording, ResultsObserver, recording_of
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.definitions import configured
from beanstalk_dispatch.running.definitions.entries import Entry
from beanstalk_dispatch.safe_task import SafeTask

from .library import (
    AnyResult,
    AnyTask,
    Task,
    TaskContext,
    TaskError,
    TaskResultStatus,
    ready_result,
    task_backends,
    task_finished,
    task_started,
    to_json,
)
from .policy import apply_policy


class FailedBefore(Exception):
    """The task has failed permanently, and SQS has delivered its message again. It does not run."""


class DjangoTasks:
    """The source of Django's tasks for the dispatch table."""

    def is_task(self, listed_object: object) -> bool:
        """Return True if an object is a Task."""
        return issubclass(type(listed_object), Task)

    def make_entry(self, name: str, task: AnyTask, config: Config) -> Entry:
        """Return the entry that runs the task in the configured class, with signals and result."""
        observers = configured.configured_observers(config)
        others = (each for each in observers if not isinstance(each, ResultsObserver))
        return TaskEntry(
            task_class=configured.safe_task_class(config),
            # First, so that it ends last: Sentry has reported a failure when the signals are sent,
            # whose receivers log the same exception.
            observers=(TaskObserver(task), *others),
            task=task,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEntry(Entry):
    """The entry of a Django task."""

    task: AnyTask

    @property
    def signed(self) -> tuple[Callable[..., Any], int]:
        """Return the function of the task, whose context a call does not give."""
        return self.task.func, int(self.task.takes_context)

    def own_option(self, name: str) -> Any:
        """Return an option of the Django task, or of the configured class."""
        own = getattr(self.task, name, None)
        return Entry.own_option(self, name) if own is None else own

    def new_task(self) -> tuple[SafeTask, SafeTask | None]:
        """Return an instance of the configured class that runs the task under its policy."""
        safe_task = self.task_class()
        run = TaskRun(self.task, safe_task)
        safe_task.run = run  # type: ignore[method-assign]
        safe_task.dont_retry_on = (*safe_task.dont_retry_on, FailedBefore)
        apply_policy(self.task, safe_task, run.result)
        return safe_task, None


class TaskRun:
    """The function that SafeTask calls: the task's own, with its context."""

    def __init__(self, task: AnyTask, safe_task: SafeTask) -> None:
        self._task = task
        self._safe_task = safe_task

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and return its value as JSON as Django has it.

        Raise the function's errors.
        """
        watched = _watched.get()
        if watched is not None and watched.recording.is_spent:
            raise FailedBefore(
                "the task has failed permanently; SQS delivers its message until the queue's "
                "maxReceiveCount is reached"
            )
        if self._task.takes_context:
            args = (TaskContext(task_result=self.result()), *args)
        value = self._task.func(*args, **kwargs)
        return _await_and_normalize(value) if inspect.isawaitable(value) else to_json(value)

    def result(self) -> AnyResult:
        """Return the TaskResult of this attempt. It is made here if the observer has none."""
        delivery = cast("RunView", self._safe_task.delivery)  # the run has set it
        watched = _watched.get()
        if watched is not None and watched.result.id == cast("Message", delivery.message).id:
            return watched.result
        return TaskAttempt(self._task, delivery).result


async def _await_and_normalize(value: Awaitable[Any]) -> Any:
    return to_json(await value)


class TaskAttempt:
    """One attempt of a task: its record, and the TaskResult that the project sees."""

    def __init__(
        self, task: AnyTask, delivery: RunView, *, recording: Recording | None = None
    ) -> None:
        message = cast("Message", delivery.message)
        self.recording = recording or Recording(delivery)
        self.result = to_task_result(
            task, self.recording.record, args=message.args, kwargs=message.kwargs
        )
        self.backend_class = type(task_backends[self.result.backend])

    def start(self) -> None:
        """Store that the attempt begins, and notify the receivers."""
        self.recording.start()
        update_result(self.result, self.recording.record)
        if self.result.status == TaskResultStatus.RUNNING:
            task_started.send_robust(sender=self.backend_class, task_result=self.result)

    def update_caller(self) -> None:
        """Update the result that ``enqueue`` returns, if it runs this task in this process."""
        here = running_here.get()
        if here is not None and here.result.id == self.result.id:
            update_result(here.result, self.recording.record)

    def end(self, exception: BaseException | None) -> None:
        """Store that the attempt has ended.

        Receivers are notified only if no other attempt follows.
        """
        self.recording.end()
        self._announce_end(exception)

    def cancel(self, exception: BaseException | None) -> None:
        """Store that the task was cancelled and does not run."""
        self.recording.end_cancelled()
        self._announce_end(exception)

    def _announce_end(self, exception: BaseException | None) -> None:
        update_result(self.result, self.recording.record)
        if self.recording.is_settled or not self.result.is_finished:
            return
        if exception is None:
            task_finished.send_robust(sender=self.backend_class, task_result=self.result)
            return
        try:
            raise exception
        except BaseException:  # Django's receiver logs the exception that is being handled
            task_finished.send_robust(sender=self.backend_class, task_result=self.result)
        self.recording.announced()


@dataclass(slots=True, kw_only=True)
class RunningHere:
    """A task that ``enqueue`` is about to run in this process."""

    result: AnyResult
    """The result that ``enqueue`` returns."""
    announce: Callable[[AnyResult, str], None]
    """Gives the result its id and sends ``task_enqueued``, once."""


running_here: ContextVar[RunningHere | None] = ContextVar(
    "beanstalk_dispatch.running_here", default=None
)
_watched: ContextVar[TaskAttempt | None] = ContextVar("beanstalk_dispatch.task", default=None)


class TaskObserver(ResultsObserver):
    """An observer that keeps the result of one listed task, and sends Django's signals.

    It is among the observers of the task only, in place of the ResultsObserver.
    """

    def __init__(self, task: AnyTask) -> None:
        self._task = task

    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        """Send ``task_started`` before each attempt, and ``task_finished`` after the last."""
        attempt = TaskAttempt(self._task, delivery, recording=recording_of(delivery))
        here = running_here.get()
        if here is not None:
            here.announce(here.result, attempt.result.id)
        attempt.start()
        before = _watched.set(attempt)
        try:
            with attempt.recording.as_current():
                yield
            attempt.end(delivery.exception)
        finally:
            _watched.reset(before)
        attempt.update_caller()

    @contextmanager
    def cancelling(self, delivery: RunView) -> Iterator[None]:
        """Send ``task_finished`` with FAILED. The cancellation of the task is its error."""
        attempt = TaskAttempt(self._task, delivery)
        attempt.cancel(delivery.exception)
        attempt.update_caller()
        yield


def arguments_of(task_id: str) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
    """Return the arguments of the task that runs in this context, if it has this id."""
    watched = _watched.get()
    if watched is None or watched.result.id != task_id:
        return None
    return watched.result.args, watched.result.kwargs


# --- TaskResult ------------------------------------------------------------------------------


def to_task_result(
    task: AnyTask, record: TaskRecord, *, args: Sequence[Any] = (), kwargs: Mapping[str, Any]
) -> AnyResult:
    """Return a record as Django shows it."""
    queue_name = record.headers.get(QUEUE_HEADER, task.queue_name)
    backend = record.headers.get(BACKEND_HEADER, task.backend)
    result = ready_result(
        _task_as_enqueued(task, queue_name, backend),
        id=record.id,
        enqueued_at=None,
        arguments=(list(args), dict(kwargs)),
        backend=backend if backend in task_backends else task.backend,
    )
    update_result(result, record)
    return result


def _task_as_enqueued(task: AnyTask, queue_name: str, backend: str) -> AnyTask:
    """Return the task with the changes of ``using``, as far as this process knows them."""
    if (task.queue_name, task.backend) == (queue_name, backend):
        return task
    try:
        return replace(task, queue_name=queue_name, backend=backend)
    except Exception:  # the queue or the backend is not configured here
        return task


def update_result(result: AnyResult, record: TaskRecord) -> None:
    """Update a TaskResult from its record. Django does the same: it is frozen otherwise."""
    errors = [
        TaskError(exception_class_path=each.exception_class_path, traceback=each.traceback)
        for each in record.errors
    ]
    values = {
        "status": TaskResultStatus(record.status),
        "enqueued_at": to_django(record.enqueued_at),
        "started_at": to_django(record.started_at),
        "last_attempted_at": to_django(record.last_attempted_at),
        "finished_at": to_django(record.finished_at),
        "worker_ids": list(record.worker_ids),
        "errors": errors,
        "_return_value": record.return_value,
    }
    for name, value in values.items():
        object.__setattr__(result, name, value)
