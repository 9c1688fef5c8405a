"""SafeTask and Retry, which a project subclasses and raises. Nothing of a run is kept here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final, NoReturn

from django.apps import apps

from .conf.policies import ISOLATIONS
from .messages.delivery import RunView
from .messages.outcomes import Outcome

__all__ = [
    "ISOLATIONS",
    "POLICY",
    "RETRY_LIMIT",
    "TRAVELLING_OPTIONS",
    "Outcome",
    "Retry",
    "SafeTask",
    "attributes_of",
    "retries_of",
]

RETRY_LIMIT: Final = 10
"""The number of retries that ``raise Retry`` gets for a task that sets no ``max_retries``."""
TRAVELLING_OPTIONS: Final = ("timeout_timedelta", "verbose", "max_retries", "retry_backoff")
"""The options that ``SafeTask(function, …)`` takes, and that travel with its message."""
POLICY: Final[Mapping[str, str]] = {
    "max_attempts": "max_retries",
    "backoff": "retry_backoff",
    "timeout": "timeout_timedelta",
    "retry_on": "retry_on",
    "isolation": "isolation",
    "expires": "expires_after",
}
"""The keywords of ``@task`` and of a SafeTask subclass → the attributes of SafeTask they set."""
_OPTIONS: Final = (*TRAVELLING_OPTIONS, "max_attempts", "backoff", "timeout")
_MAX_DELAY_SECONDS: Final = 2**31

Process = Callable[["SafeTask", tuple[Any, ...], dict[str, Any]], None]
PROCESSES: Final[dict[int, Process]] = {}
"""The function that ``SafeTask.process`` calls, by the task's id(): a project's class need not be
hashable, and its process() may continue in another thread."""


def retries_of(max_attempts: object) -> int:
    """Return the ``max_retries`` of this many attempts in all. Raise ValueError for none."""
    if type(max_attempts) is not int or max_attempts < 1:
        raise ValueError(f"max_attempts is {max_attempts!r}; expected a whole number of 1 or more.")
    return max_attempts - 1


def attributes_of(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of SafeTask that a policy sets. A keyword that is None sets none.

    Raise ValueError for a wrong ``max_attempts`` or ``isolation``.
    """
    if policy.get("isolation") not in {None, *ISOLATIONS}:
        raise ValueError(f"isolation is {policy['isolation']!r}; expected {', '.join(ISOLATIONS)}.")
    return {
        POLICY[name]: retries_of(value) if name == "max_attempts" else value
        for name, value in policy.items()
        if value is not None
    }


RetryDelay = Callable[[BaseException | None, int], timedelta | float]


class Retry(Exception):
    """Raise it in a task to run the task again, with the same id and ``attempt + 1``.

    ``delay`` is in seconds or a timedelta; None takes the task's backoff. A retry counts against
    ``max_retries``, or against RETRY_LIMIT if the task sets none. Raise ValueError for a delay
    that is not a number of seconds below 2**31, and TypeError for one in the place of ``reason``.
    """

    def __init__(self, reason: str = "", *, delay: float | timedelta | None = None) -> None:
        given: object = reason
        if isinstance(given, int | float | timedelta):
            raise TypeError(f"the reason {reason!r} is not a string; write Retry(delay={reason!r})")
        super().__init__(reason)
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        self.delay = None if seconds is None else max(float(seconds), 0.0)
        if self.delay is not None and not self.delay < _MAX_DELAY_SECONDS:
            raise ValueError(f"delay {delay!r} is not a number of seconds below 2**31")


class NotHere:
    """An attribute of Celery's tasks that ours do not have; the error says what to write."""

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy

    def __get__(self, task: object, owner: type) -> NoReturn:
        remedy = self._remedy.format(owner.__name__)
        raise AttributeError(f"{owner.__name__!r} has no attribute {self._name!r}; write {remedy}")


def not_here(task_class: type, **remedies: str) -> None:
    """Give a class the attributes that it does not have. Type checkers see none of them."""
    for name, remedy in remedies.items():
        setattr(task_class, name, NotHere(name, remedy))


class SafeTask:
    """A function with a time limit, retries and hooks; one instance runs one delivery.

    Subclass it and write ``run``, or wrap a function: ``SafeTask(function)``. A subclass may use
    any attribute name that is not documented here. Both accept the keywords of ``@task``, which set
    the attributes below: ``class Report(SafeTask, max_attempts=3, backoff=30, timeout=60)``.
    """

    timeout_timedelta: timedelta | float | None = None
    """The time limit of ``run``; a number means seconds. None: BEANSTALK_DISPATCH_TASK_TIMEOUT."""
    verbose: bool = True
    """True if failures are logged with their traceback."""
    max_retries: int | None = None
    """The number of times that a failed run is repeated, as a delayed copy of the message.

    None leaves failures to SQS's redelivery.
    """
    retry_backoff: timedelta | float | RetryDelay = timedelta(seconds=10)
    """Upper bound of the first retry's delay. It doubles with each retry, up to an hour.

    A function or method gets the exception and the number of the attempt, and returns the delay.

    The delay is drawn between zero and that bound (full jitter):
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    retry_on: tuple[type[BaseException], ...] = (BaseException,)
    """The exceptions that ``max_retries`` is for. Does not travel with a message."""
    dont_retry_on: tuple[type[BaseException], ...] = ()
    """The exceptions after which the task is not tried again. Does not travel with a message."""
    isolation: str | None = None
    """The place where the task runs: ``thread``, ``process`` or ``fresh``.

    Does not travel with a message. None: BEANSTALK_DISPATCH_ISOLATION.
    """
    expires_after: timedelta | float | None = None
    """The time after which a message of the task is worthless; a number means seconds.

    It counts from the moment that the task was sent, or scheduled for. A message that comes later
    is deleted, and the task does not run. None: never. Does not travel with a message; a call has
    its own in ``Call.expires``.
    """
    schedule: ClassVar[str | None] = None
    """When the task runs as a periodic task: five fields as in ``cron.yaml``, in UTC.

    ``manage.py beanstalk_eb`` writes it to the file. A function can have an attribute of this name.
    """
    delivery: RunView | None = None
    """The run of the delivery that this instance is made for; None outside of one.

    It has the facts of the receive, such as ``delivery.receive_count``, and ``delivery.message``
    with its ``attempt``. From the end of ``run`` on,
    ``delivery.outcome`` is its outcome: RETRY in ``on_error`` means that the task will
    run again.
    """
    observers: ClassVar[Sequence[object]] = ()
    """The Observers that watch the tasks of this class.

    The observers of the class that BEANSTALK_DISPATCH_SAFE_TASK names watch every task.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Set the attributes that max_attempts, backoff, timeout and retry_on stand for.

        Raise TypeError if the class sets one of them itself, ValueError for a wrong max_attempts.
        """
        policy = {name: options.pop(name) for name in POLICY if name in options}
        try:
            super().__init_subclass__(**options)
        except TypeError as exc:
            given = ", ".join(map(repr, options))
            raise TypeError(f"{exc}: {given}; known: {', '.join(POLICY)}") from exc
        _set_policy(cls, policy, vars(cls))

    def __init__(self, run: Callable[..., Any] | None = None, **options: Any) -> None:
        """``options`` are max_attempts, backoff, timeout, verbose and SafeTask's own names of them.

        Raise TypeError for any other, and for two of one meaning; ValueError for a wrong
        max_attempts.
        """
        if run is not None:
            self.run = run  # type: ignore[method-assign]
        if not options:
            return
        if unknown := options.keys() - set(_OPTIONS):
            raise TypeError(f"unknown option {min(unknown)!r}; known: {', '.join(_OPTIONS)}")
        policy = {name: options.pop(name) for name in POLICY if name in options}
        _set_policy(self, policy, options)
        for name, value in options.items():
            setattr(self, name, value)

    @property
    def cancelled(self) -> bool:
        """Return True if ``client.cancel`` was called for the task that this instance runs.

        The lease's cache is asked once in a second at most. To end early, raise TaskCancelled. A
        subclass that sets an attribute of this name gets its own value back.
        """
        own: bool | None = vars(self).get("cancelled")
        if own is not None:
            return own
        return self.delivery is not None and self.delivery.cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        vars(self)["cancelled"] = value

    @classmethod
    def ready(cls) -> None:
        """Do something when Django has started. BEANSTALK_DISPATCH_SAFE_TASK names the class."""

    def run(self, /, *args: Any, **kwargs: Any) -> Any:
        """Do the task's work. A subclass must have its own. Its return value is not kept."""
        raise NotImplementedError(
            f"{type(self).__qualname__} has no run() of its own; write "
            "'def run(self, …)' with the task's work"
        )

    # A hook may take as long as ``run`` may and is then interrupted. Its errors are logged.
    # Neither changes the outcome.

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        """Called after a failure, with a TaskTimeout if the time limit has passed."""

    def on_success(self, /, *args: Any, **kwargs: Any) -> None:
        """Called after ``run`` has returned."""

    def on_completion(self, /, *args: Any, **kwargs: Any) -> None:
        """Called last, after a failure and after a success."""

    def process(self, /, *args: Any, **kwargs: Any) -> None:
        """Run the task and its hooks. A failure is logged and handed to ``on_error``, not raised.

        A subclass may do something before and after ``super().process(*args, **kwargs)``.
        """
        if (process := PROCESSES.get(id(self))) is None:
            # A project calls it by itself. The app knows what runs a task, and SafeTask does not.
            app: Any = apps.get_app_config("beanstalk_dispatch")
            process = app.process_alone
        process(self, args, kwargs)


not_here(
    SafeTask,
    delay="schedule_function(queue, {}, …)",
    apply_async="schedule(queue, Call({}, […], delay=…))",
    retry="raise Retry(delay=…)",
)


def _set_policy(
    target: SafeTask | type[SafeTask], policy: Mapping[str, Any], others: Mapping[str, Any]
) -> None:
    for attribute, value in attributes_of(policy).items():
        if attribute in others:
            keyword = next(each for each in policy if POLICY[each] == attribute)
            raise TypeError(f"{attribute} is set, and by {keyword} again; write one of them")
        is_method = isinstance(target, type) and callable(value)
        setattr(target, attribute, staticmethod(value) if is_method else value)
