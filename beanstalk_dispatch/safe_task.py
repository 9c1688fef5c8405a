"""SafeTask: run a function within a time limit, with hooks for what became of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.db import connections

from .conf import cast_duration, get_config
from .delivery import Delivery
from .exceptions import InvalidCall, MalformedMessage, TaskTimeout
from .execution.quietly import log_hook
from .execution.time_limit import GRACE, TimeLimitExceeded, time_limit
from .message import Message
from .outcomes import Outcome
from .signals import task_finished, task_started

logger = logging.getLogger("beanstalk_dispatch.task")

RETRY_LIMIT: Final = 10
"""How often ``raise Retry`` is granted to a task that sets no ``max_retries``."""
MAX_BACKOFF: Final = timedelta(hours=1)
_MAX_FAULT: Final = 200  # characters of a log line about an option, whose value may be a megabyte
_LONGEST_DELAY: Final = 2**31  # seconds
# Of a task or a hook. Ctrl-C is for the process.
_FAILURES: Final = (Exception, SystemExit, asyncio.CancelledError)
_LOOP_LEEWAY: Final = 1.0  # seconds for asyncio's own limit to end what awaits


class Retry(Exception):
    """Raise it in a task to run the task again, with the same id and ``attempt + 1``.

    ``delay`` in seconds or as a timedelta; None takes the task's backoff. Counts against
    ``max_retries``, or against RETRY_LIMIT if the task sets none. Raises ValueError for a delay
    that is no time.
    """

    def __init__(self, reason: str = "", *, delay: float | timedelta | None = None) -> None:
        super().__init__(reason)
        self.delay = None if delay is None else max(_seconds(delay), 0.0)
        if self.delay is not None and not self.delay < _LONGEST_DELAY:
            raise ValueError(f"delay {delay!r} is not a number of seconds below {_LONGEST_DELAY}")


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
    _on_done: Callable[[], None] | None = None

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

    # A hook may take as long as ``run`` may, is then interrupted, and changes nothing by it.

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
            self._within_limit(self.run, args, kwargs)
        except _FAILURES as exc:
            self._failed(exc)
            if not (isinstance(exc, Retry) and self._outcome is Outcome.RETRY):
                self._hook("on_error", (exc, *args), kwargs)
        else:
            self._outcome, self._exception = Outcome.DONE, None
            if self._on_done:
                self._on_done()
            self._hook("on_success", args, kwargs)
        finally:
            self._hook("on_completion", args, kwargs)
        if task_finished.receivers:
            task_finished.send_robust(
                sender=type(self),
                delivery=self.delivery,
                outcome=self._outcome,
                exception=self._exception,
                duration=time.monotonic() - started,
            )

    def options(self) -> dict[str, Any]:
        """This instance's own options, in the form they have in a message. Raises InvalidCall."""
        own, options = vars(self), {}
        for name in _OPTIONS.keys() & own.keys():
            wire, cast, to_json = _OPTIONS[name]
            try:
                options[wire] = to_json(cast(own[name]))
            except ValueError as exc:
                raise InvalidCall(f"option {name}: {exc}") from None
        return options

    def apply(self, options: Mapping[str, Any]) -> None:
        """Take over the options of a message. Raises MalformedMessage; unknown ones are ignored."""
        for name, (wire, cast, _) in _OPTIONS.items():
            if wire in options:
                try:
                    setattr(self, name, cast(options[wire]))
                except (ValueError, RecursionError) as exc:
                    raise MalformedMessage(f"option {wire}: {exc}"[:_MAX_FAULT]) from None

    def _limit(self) -> float:
        return _seconds(self.timeout_timedelta)

    def _within_limit(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Run ``run`` or a hook to its end, and what it returns if that is to be awaited."""
        limit = time_limit(self._limit(), label=self._label)
        result, returned = None, False
        try:
            with limit:
                result = call(*args, **kwargs)
                returned = True
        except TimeLimitExceeded:  # came out in the instant the block ended
            limit.end()
            if not limit.fired:
                raise  # it is that of a block around this one
            if not returned:
                raise TaskTimeout(f"time limit of {limit.seconds:g} s exceeded") from None
        except TaskTimeout:
            if not returned:
                _close_connections()
                raise
        if result is not None:
            _finish(result, limit)

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
        if isinstance(exc, tuple(self.dont_retry_on)):
            return 0
        if self.max_retries is not None and not isinstance(exc, tuple(self.retry_on)):
            return 0
        return self.max_retries

    def _delay(self, exc: BaseException, attempt: int) -> float:
        if isinstance(exc, Retry) and exc.delay is not None:
            return exc.delay
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

    def _hook(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hook = getattr(self, name)
        if getattr(hook, "__func__", None) is vars(SafeTask)[name]:
            return  # does nothing
        try:
            self._within_limit(hook, args, kwargs)
        except _FAILURES as exc:
            log_hook(self._label(), name, exc)


def _finish(result: object, limit: time_limit) -> None:
    """Await what ``run`` has returned, if that is how it does its work, within the same limit."""
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("it returned a generator, of which nothing has run")
    if not inspect.isawaitable(result):
        return
    # For code of the coroutine that blocks its loop, which is in a thread of its own.
    inside = time_limit(limit.seconds, limit.label, leeway=_LOOP_LEEWAY)
    # For what the coroutine has Django do in a synchronous way (its ORM), which runs in this
    # thread. In the main thread an alarm would end the wait for a coroutine that then runs on.
    around = time_limit(limit.seconds, limit.label, leeway=GRACE)
    in_main = threading.current_thread() is threading.main_thread()
    try:
        with nullcontext() if in_main else around:
            # Not on a loop that runs already: under ASGI that is the server's.
            async_to_sync(_awaited, force_new_loop=True)(result, inside)
    except (TimeLimitExceeded, TaskTimeout) as exc:
        if isinstance(exc, TimeLimitExceeded) and not (inside.fired or around.fired):
            raise  # it is that of a block around this one
        _close_connections()
        raise TaskTimeout(f"time limit of {limit.seconds:g} s exceeded") from None
    finally:
        inside.end()
        around.end()


async def _awaited(result: Awaitable[Any], limit: time_limit) -> None:
    gentle = asyncio.timeout(limit.seconds)
    loop = asyncio.get_running_loop()

    def stir() -> None:
        """No interrupt strikes a loop that waits for nothing that will ever happen."""
        loop.call_later(_LOOP_LEEWAY, stir)

    loop.call_later(limit.seconds, stir)
    with limit:
        try:
            async with gentle:
                await result
        except TimeoutError:
            if not gentle.expired():
                raise
            raise TaskTimeout from None


def _close_connections() -> None:
    """What an interrupt has left half done in a database connection must not be gone on with.

    Not within a transaction of the caller's, which may be a test's.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            try:
                connection.close()
            except Exception as exc:
                logger.warning("close of database %r failed: %s", connection.alias, exc)


def _seconds(duration: Any) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _timeout(value: object) -> timedelta:
    """Seconds, a timedelta, or a text like ``5m``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is no duration")
        value = timedelta(seconds=min(max(value, -1), 2**31))
    return cast_duration(value)


def _backoff(value: object) -> timedelta:
    none = timedelta(0)
    return none if value in (0, none) and value is not False else _timeout(value)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _count(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{value!r} is not a count")
    return value


# Option → its name in a message, the cast of what is given or received, and that to JSON.
_OPTIONS: Final[Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]]] = {
    "timeout_timedelta": ("timeout", _timeout, _seconds),
    "verbose": ("verbose", _bool, bool),
    "max_retries": ("max_retries", _count, _count),
    "retry_backoff": ("retry_backoff", _backoff, _seconds),
}
