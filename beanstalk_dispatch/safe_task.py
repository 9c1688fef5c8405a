"""SafeTask: run a function within a time limit, with hooks for what became of it."""

from __future__ import annotations

import functools
import inspect
import logging
import random
import time
from asyncio import timeout as asyncio_timeout
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from asgiref.sync import async_to_sync

from .conf import cast_duration, get_config
from .exceptions import MalformedMessage, TaskTimeout
from .message import Message
from .quietly import log_hook
from .signals import task_finished, task_started
from .sqsd import Delivery
from .timeouts import GRACE, TimeLimitExceeded, time_limit

logger = logging.getLogger(__name__)

RETRY_LIMIT: Final = 10
"""How often ``raise Retry`` is granted to a task that sets no ``max_retries``."""
MAX_BACKOFF: Final = timedelta(hours=1)
_MAX_FAULT: Final = 200  # characters of a log line about an option, whose value may be a megabyte


class Outcome(StrEnum):
    """What became of one delivery."""

    DONE = "done"
    RETRY = "retry"
    DEFERRED = "deferred"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    MALFORMED = "malformed"
    UNKNOWN_FUNCTION = "unknown-function"
    BAD_SIGNATURE = "bad-signature"
    NOT_ALLOWED = "not-allowed"
    DUPLICATE = "duplicate"
    RUNNING = "running"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"


class Retry(Exception):
    """Raise it in a task to run the task again, with the same id and ``attempt + 1``.

    ``delay`` in seconds or as a timedelta; None takes the task's backoff. Counts against
    ``max_retries``, or against RETRY_LIMIT if the task sets none.
    """

    def __init__(self, reason: str = "", *, delay: float | timedelta | None = None) -> None:
        super().__init__(reason)
        self.delay = delay.total_seconds() if isinstance(delay, timedelta) else delay


class _ConfiguredTimeout:
    """BEANSTALK_DISPATCH_TASK_TIMEOUT, read when asked for rather than at import."""

    def __get__(self, instance: object, owner: object) -> timedelta:
        return get_config().task_timeout


class _LastOutcome:
    """No property: a project's subclass may have an ``outcome`` of its own."""

    def __get__(self, instance: SafeTask | None, owner: object) -> Outcome:
        return Outcome.DONE if instance is None else instance._outcome  # noqa: SLF001


class SafeTask:
    """A function with a time limit, retries and hooks; one instance runs one delivery.

    Subclass it and write ``run``, or wrap a function: ``SafeTask(function)``. Options given to
    an instance that is scheduled travel with its message and win on the worker.

    ``timeout_timedelta``: how long ``run`` may take; a number means seconds.
    ``verbose``: whether failures are logged with their traceback.
    ``max_retries``: how often a failed run is repeated as a delayed copy of the message; None
    leaves failures to SQS's redelivery.
    ``retry_on``, ``dont_retry_on``: classes of exceptions that ``max_retries`` is for, and those
    after which trying again is no use. They do not travel with a message.
    ``retry_backoff``: upper bound of the first delay, which then doubles up to an hour; the
    delay is drawn between zero and that bound (full jitter:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    ``delivery``: the Delivery that is being run, with ``delivery.message``; None outside of one.
    ``outcome``: what became of the run. In ``on_error``, RETRY tells that it will be repeated.
    """

    timeout_timedelta: timedelta | _ConfiguredTimeout = _ConfiguredTimeout()
    verbose: bool = True
    max_retries: int | None = None
    retry_backoff: timedelta = timedelta(seconds=10)
    retry_on: tuple[type[BaseException], ...] = (Exception, SystemExit)
    dont_retry_on: tuple[type[BaseException], ...] = ()
    delivery: Delivery | None = None
    outcome: Outcome | _LastOutcome = _LastOutcome()

    _outcome: Outcome = Outcome.DONE
    _exception: BaseException | None = None
    _retry_delay: float = 0.0
    _is_final: bool = False

    def __init__(self, run: Callable[..., Any] | None = None, **options: Any) -> None:
        """``options``: timeout_timedelta, verbose, max_retries, retry_backoff."""
        if options and (unknown := options.keys() - _OPTIONS.keys()):
            raise TypeError(f"unknown option {min(unknown)!r}; known: {', '.join(_OPTIONS)}")
        if run is not None:
            self.run = run  # type: ignore[method-assign]
        for name, value in options.items():
            setattr(self, name, value)

    @classmethod
    def ready(cls) -> None:
        """Called once in each process, on the class BEANSTALK_DISPATCH_SAFE_TASK names."""

    @classmethod
    def publishing(
        cls, messages: Sequence[Message], *, queue: str, encode: Callable[[Message], str]
    ) -> AbstractContextManager[Sequence[str]]:
        """Surrounds the sending of ``messages`` to the queue named ``queue``; yields their bodies.

        Called on the class BEANSTALK_DISPATCH_SAFE_TASK names. To send something along, encode
        copies with ``headers``: the worker has them in ``delivery.message.headers``.
        """
        return nullcontext([encode(message) for message in messages])

    def run(self, /, *args: Any, **kwargs: Any) -> Any:
        """The task's work. Its result is not kept."""

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        """Runs after a failure. A TaskTimeout if the time limit has passed."""

    def on_success(self, /, *args: Any, **kwargs: Any) -> None:
        """Runs after ``run`` has returned."""

    def on_completion(self, /, *args: Any, **kwargs: Any) -> None:
        """Runs last, whatever happened."""

    def process(self, /, *args: Any, **kwargs: Any) -> None:
        """Run the task and its hooks. A failure is logged, handed to ``on_error``, not raised."""
        started = time.monotonic()
        if task_started.receivers:
            task_started.send_robust(sender=type(self), delivery=self.delivery)
        try:
            self._run_within_limit(args, kwargs)
        except (Exception, SystemExit) as exc:
            self._failed(exc)
            if not (isinstance(exc, Retry) and self._outcome is Outcome.RETRY):
                self._hook(self.on_error, (exc, *args), kwargs)
        else:
            self._outcome, self._exception = Outcome.DONE, None
            self._hook(self.on_success, args, kwargs)
        finally:
            self._hook(self.on_completion, args, kwargs)
        if task_finished.receivers:
            task_finished.send_robust(
                sender=type(self),
                delivery=self.delivery,
                outcome=self._outcome,
                exception=self._exception,
                duration=time.monotonic() - started,
            )

    def options(self) -> dict[str, Any]:
        """This instance's own options, in the form they have in a message."""
        own = vars(self)
        return {
            wire: to_json(own[name]) for name, (wire, to_json, _) in _OPTIONS.items() if name in own
        }

    def apply(self, options: Mapping[str, Any]) -> None:
        """Take over the options of a message. Raises MalformedMessage; unknown ones are ignored."""
        for name, (wire, _, from_json) in _OPTIONS.items():
            if wire in options:
                try:
                    setattr(self, name, from_json(options[wire]))
                except (ValueError, RecursionError) as exc:
                    raise MalformedMessage(f"option {wire}: {exc}"[:_MAX_FAULT]) from None

    def _limit(self) -> float:
        return _seconds(self.timeout_timedelta)

    def _run_within_limit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run, seconds = self.run, self._limit()
        if _is_async(run):
            # The event loop ends what it awaits; the outer limit is for code that blocks it.
            run = async_to_sync(_awaited_within(seconds, run))
            seconds += GRACE
        limit = time_limit(seconds, label=self._label)
        returned = False
        try:
            with limit:
                run(*args, **kwargs)
                returned = True
        except TimeLimitExceeded:  # came out in the instant the block ended
            limit.end()
            if not returned:
                raise TaskTimeout(f"time limit of {seconds:g} s exceeded") from None
        except TaskTimeout:
            if not returned:
                raise

    def _label(self) -> str:
        message = self.delivery and self.delivery.message
        return f"{message.function} id={message.id}" if message else type(self).__name__

    def _failed(self, exc: BaseException) -> None:
        self._exception = exc
        self._outcome = Outcome.TIMED_OUT if isinstance(exc, TaskTimeout) else Outcome.FAILED
        message = self.delivery and self.delivery.message
        attempt = message.attempt if message else 1
        limit = self._retry_limit(exc)
        if message and limit is not None:
            self._is_final = attempt > limit
            if not self._is_final:
                self._outcome = Outcome.RETRY
        self._retry_delay = self._delay(exc, attempt)
        if self.verbose:
            self._log_failure(exc)

    def _retry_limit(self, exc: BaseException) -> int | None:
        """How often a task that raised ``exc`` is retried; None leaves that to SQS."""
        if isinstance(exc, Retry):
            return RETRY_LIMIT if self.max_retries is None else self.max_retries
        if isinstance(exc, self.dont_retry_on):
            return 0
        if self.max_retries is not None and not isinstance(exc, self.retry_on):
            return 0
        return self.max_retries

    def _delay(self, exc: BaseException, attempt: int) -> float:
        if isinstance(exc, Retry) and exc.delay is not None:
            return max(exc.delay, 0.0)
        bound = _seconds(self.retry_backoff) * 2.0 ** min(attempt - 1, 32)
        return random.uniform(0, min(bound, MAX_BACKOFF.total_seconds()))

    def _log_failure(self, exc: BaseException) -> None:
        if self._outcome is Outcome.RETRY:
            traceback = None if isinstance(exc, Retry) else exc
            logger.warning("%s will be retried: %s", self._label(), exc, exc_info=traceback)
        elif self._outcome is Outcome.TIMED_OUT:
            logger.error("SafeTask timed out: %s: %s", self._label(), exc, exc_info=exc)
        else:
            logger.error("Error running SafeTask: %s: %s", self._label(), exc, exc_info=exc)

    def _hook(
        self, hook: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            result = hook(*args, **kwargs)
            if result is not None and inspect.iscoroutine(result):
                async_to_sync(functools.partial(_awaited, result))()
        except Exception as exc:
            log_hook(self._label(), hook, exc)


def _is_async(run: Callable[..., Any]) -> bool:
    try:
        return _is_coroutine_function(getattr(run, "__func__", run))
    except TypeError:  # a callable that cannot be hashed
        return inspect.iscoroutinefunction(run)


_is_coroutine_function = functools.lru_cache(maxsize=1024)(inspect.iscoroutinefunction)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _awaited_within(
    seconds: float, run: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        limit = asyncio_timeout(seconds)
        try:
            async with limit:
                return await run(*args, **kwargs)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise TaskTimeout(f"time limit of {seconds:g} s exceeded") from exc

    return call


def _seconds(duration: Any) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _count(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{value!r} is not a count")
    return value


# Option → its name in a message, and the casts to and from JSON.
_OPTIONS: Final[Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "timeout_timedelta": ("timeout", _seconds, cast_duration),
    "verbose": ("verbose", bool, _bool),
    "max_retries": ("max_retries", _count, _count),
    "retry_backoff": ("retry_backoff", _seconds, cast_duration),
}
