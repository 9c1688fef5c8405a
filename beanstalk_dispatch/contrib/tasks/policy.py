"""The policy of a task: how often it is attempted, when again, and for how long it may run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import (
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from beanstalk_dispatch.logging.log_lines import quoted_error
from beanstalk_dispatch.running.definitions.options import (
    is_duration,
    is_positive_duration,
    seconds_of,
)
from beanstalk_dispatch.safe_task import POLICY, SafeTask, attributes_of, not_here

from .library import (
    DEFAULT_TASK_BACKEND_ALIAS,
    DEFAULT_TASK_QUEUE_NAME,
    AnyResult,
    AnyTask,
    InvalidTask,
    Task,
    TaskContext,
    task_backends,
)

logger = logging.getLogger("beanstalk_dispatch.task")

BackoffFunction = Callable[[BaseException, AnyResult], timedelta | float]
P = ParamSpec("P")
R = TypeVar("R")


class Policy(TypedDict, total=False):
    """The keywords of a policy, as safe_task.POLICY has them; SQSTask has a field for each."""

    max_attempts: int | None
    backoff: timedelta | float | BackoffFunction | None
    timeout: timedelta | float | None
    retry_on: tuple[type[BaseException], ...]
    isolation: str | None
    expires: timedelta | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SQSTask(Task):  # type: ignore[type-arg]  # Django's own has no type parameters
    """A Django Task with a policy. Raise InvalidTask if one of its values is wrong.

    The policy does not travel with a message: the worker's own code says what applies.
    """

    max_attempts: int | None = None
    """The number of attempts in all.

    None: one, or as the class in BEANSTALK_DISPATCH_SAFE_TASK says.
    """
    backoff: timedelta | float | BackoffFunction | None = None
    """Upper bound of the first retry's delay, in seconds or a timedelta; as
    ``SafeTask.retry_backoff``. A function gets the exception and the TaskResult, and returns the
    delay."""
    timeout: timedelta | float | None = None
    """The time limit, in seconds or as a timedelta. None: BEANSTALK_DISPATCH_TASK_TIMEOUT."""
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    """The exceptions after which the task is attempted again. A time limit that has passed is a
    TimeoutError."""
    isolation: str | None = None
    """The place where the task runs, as ``SafeTask.isolation``."""
    expires: timedelta | float | None = None
    """The time after which a message of the task is worthless, as ``SafeTask.expires_after``."""

    def __post_init__(self) -> None:
        # The class that slots=True makes is another one than super() without arguments would use.
        Task.__post_init__(self)
        try:
            _check_policy(self)
        except ValueError as exc:
            raise InvalidTask(str(exc)) from None


not_here(SQSTask, delay="task.enqueue(…)", apply_async="task.using(run_after=…).enqueue(…)")


def _check_policy(task: SQSTask) -> None:
    """Raise ValueError for a value that cannot be meant."""
    attributes_of(_policy_of(task))
    for name in ("timeout", "expires"):
        value = getattr(task, name)
        if value is not None and not is_positive_duration(value):
            raise ValueError(f"{name} is {value!r}; expected seconds or a timedelta above 0.")
    backoff = 0 if task.backoff is None or callable(task.backoff) else task.backoff
    if not (is_duration(backoff) and seconds_of(backoff) >= 0):
        raise ValueError(f"backoff is {backoff!r}; expected seconds, a timedelta or a function.")
    are_classes = isinstance(task.retry_on, tuple) and all(
        isinstance(each, type) and issubclass(each, BaseException) for each in task.retry_on
    )
    if not are_classes:
        raise ValueError(f"retry_on is {task.retry_on!r}; expected a tuple of exception classes.")


def _policy_of(task: SQSTask) -> dict[str, Any]:
    return {each: getattr(task, each) for each in POLICY}


def apply_policy(task: AnyTask, safe_task: SafeTask, result: Callable[[], AnyResult]) -> None:
    """Let ``safe_task`` run as the policy of ``task`` says. A plain Task is attempted once.

    ``result`` returns the TaskResult of the attempt, for a backoff that is a function.
    """
    policy = _policy_of(task) if isinstance(task, SQSTask) else {}
    if callable(backoff := policy.get("backoff")):
        policy["backoff"] = _delay_function(backoff, result)
    for attribute, value in attributes_of(policy).items():
        setattr(safe_task, attribute, value)
    if safe_task.max_retries is None:
        safe_task.max_retries = 0


def _delay_function(
    backoff: BackoffFunction, result: Callable[[], AnyResult]
) -> Callable[[BaseException | None, int], float]:
    def delay(exception: BaseException | None, attempt: int) -> float:
        try:
            return seconds_of(backoff(exception or Exception(), result()))
        except Exception as exc:
            seconds = seconds_of(SafeTask.retry_backoff) * attempt  # type: ignore[arg-type]
            logger.error(
                "backoff failed seconds=%.0f error=%s", seconds, quoted_error(exc, with_type=True)
            )
            return seconds

    return delay


class Decorate(Protocol):
    """The decorator that ``@task(...)`` returns. An async function counts as what it returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class DecorateWithContext(Protocol):
    """The decorator that ``@task(takes_context=True)`` returns."""

    @overload
    def __call__(
        self,
        function: Callable[Concatenate[TaskContext[..., Any], P], Coroutine[Any, Any, R]],
        /,
    ) -> Task[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext[..., Any], P], R], /
    ) -> Task[P, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(
    *,
    priority: int = ...,
    queue_name: str = ...,
    backend: str = ...,
    takes_context: Literal[True],
    **policy: Unpack[Policy],
) -> DecorateWithContext: ...


@overload
def task(
    *,
    priority: int = ...,
    queue_name: str = ...,
    backend: str = ...,
    takes_context: Literal[False] = ...,
    **policy: Unpack[Policy],
) -> Decorate: ...


def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    priority: int = 0,
    queue_name: str = DEFAULT_TASK_QUEUE_NAME,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    **policy: Any,
) -> Any:
    """Decorate a function as Django's ``@task`` does, with a policy on every version of Django.

    Django 6.1 passes the policy of its own ``@task`` on to the backend, and Django 6.0 does not.
    With a backend that knows no policy, such as Django's ImmediateBackend, the policy has no
    effect. Raise TypeError if a keyword is unknown.
    """
    if function is not None and not callable(function):
        raise TypeError(f"@task takes keywords only; write @task(queue_name={function!r})")
    if unknown := policy.keys() - set(POLICY):
        raise TypeError(f"unknown keyword {min(unknown)!r}; known: {', '.join(POLICY)}")

    def decorate(function: Callable[..., Any]) -> AnyTask:
        task_class: Any = task_backends[backend].task_class
        options = policy if issubclass(task_class, SQSTask) else {}
        made: AnyTask = task_class(
            func=function,
            priority=priority,
            queue_name=queue_name,
            backend=backend,
            takes_context=takes_context,
            run_after=None,
            **options,
        )
        return made

    return decorate if function is None else decorate(function)
