"""The limit around all code of the project that runs outside of ``run`` and the hooks.

That is ``__init__``, the import of a module, ``retry_backoff``, the ``__str__`` of an exception, an
observer, a receiver of a signal, and a ``process`` of the project's own. One clock runs for all of
them: from the start of a delivery, for the time limit of the task and OUTER_SECONDS. A part that
begins late still has OUTER_SECONDS. Where ``run`` or a hook begins within a part, such as a
``process``, that part has the time limit of these and OUTER_SECONDS from then on.

The package's own code is not interrupted. If it hangs, the delivery is reported as stuck.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from django.dispatch import Signal

from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.logging.log_lines import quoted_error, to_log
from beanstalk_dispatch.observers import CALLER
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.left_behind import connections
from beanstalk_dispatch.running.process_exceptions import is_for_the_process

from .expected_end import EXPECTED, REST_SECONDS, expect_end
from .time_limit import TimeLimitExceeded, time_limit

logger = logging.getLogger("beanstalk_dispatch.task")

P = ParamSpec("P")
T = TypeVar("T")

OUTER_SECONDS: Final = 15.0
"""The seconds beyond a task's time limit that all of the project's code of its delivery has."""


IMPORT_SECONDS: Final = 60.0
"""The seconds that an import may take at least, however short the time limit is.

Each process imports a module once. If a short limit ended that, no process would ever have it.
"""


class OuterLimit:
    """The clock of one delivery, which it surrounds as a context manager."""

    def __init__(self, seconds: float, label: Callable[[], str]) -> None:
        """Start the clock. ``seconds`` is the time limit that the task most likely has."""
        self.label = label
        self.started = clock.monotonic()
        self.watch = time_limit(seconds + OUTER_SECONDS, label, interrupts=False)
        self.deadline = self.watch.deadline = self.started + self.watch.seconds
        self._is_watched = EXPECTED.write is None  # or the parent watches this child
        self.parts: list[time_limit] = []
        """The limits of the parts that run now, each within the one before it."""

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        if self._is_watched:
            self.watch.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._is_watched:
                self.watch.__exit__(exc_type, exc, traceback)
        finally:
            _current.reset(self._token)


_current: ContextVar[OuterLimit | None] = ContextVar("beanstalk_dispatch.outer", default=None)


def set_task_limit(seconds: float) -> None:
    """Take the task's own time limit for this delivery, instead of the configured one."""
    if (outer := _current.get()) is not None:
        outer.deadline = outer.started + seconds + OUTER_SECONDS
        allow(seconds)


def call_import(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Import a module of the project, or wait for a thread that does.

    Raise TaskTimeout when that takes longer than ``call_within_outer_limit`` allows, and than
    IMPORT_SECONDS.
    """
    if (outer := _current.get()) is not None:
        outer.deadline = max(outer.deadline, clock.monotonic() + IMPORT_SECONDS)
    return call_within_outer_limit(function, *args, **kwargs)


def allow(seconds: float) -> None:
    """Let this thread's delivery take ``seconds`` from now on, before it is reported as stuck.

    The parts around a call that begins now may take as long, before they are interrupted.
    """
    if (outer := _current.get()) is not None:
        outer.watch.deadline = ends = clock.monotonic() + seconds + OUTER_SECONDS
        for part in outer.parts:
            part.deadline = max(part.deadline, ends)


def expect_rest() -> None:
    """Have a child's parent expect the rest of this thread's delivery."""
    if EXPECTED.write is not None and (outer := _current.get()) is not None:
        expect_end(max(outer.watch.deadline - clock.monotonic(), 0.0) + REST_SECONDS)


def call_within_outer_limit(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call code of the project within the outer limit, if this is part of a delivery.

    Raise TaskTimeout if it takes too long.
    """
    if (outer := _current.get()) is None:
        return function(*args, **kwargs)
    seconds = round(max(outer.deadline - clock.monotonic(), OUTER_SECONDS), 1)
    ends = clock.monotonic() + seconds + OUTER_SECONDS
    outer.watch.deadline = max(outer.watch.deadline, ends)  # this may be within a longer hook
    expect_rest()
    in_transaction = connections.aliases_in_transaction()
    limit = time_limit(seconds, outer.label)
    try:
        try:
            with limit:
                outer.parts.append(limit)
                return function(*args, **kwargs)
        except TimeLimitExceeded:  # came out in the instant the block ended
            limit.end()
            if not limit.fires:
                raise  # raised by an enclosing time limit
            raise limit.timeout() from None
    except TaskTimeout:
        if limit.fires:
            connections.drop_interrupted(in_transaction)
        raise
    finally:
        with suppress(ValueError):  # an interrupt came before it was there
            outer.parts.remove(limit)


def _call_observer(function: Callable[[], T]) -> T:
    """Call an observer's method within the outer limit, if this is part of a delivery.

    In a delivery, raise only exceptions that can be shown.
    """
    if _current.get() is None:
        return function()
    try:
        return call_within_outer_limit(function)
    except BaseException as exc:
        shown = speakable(exc)
        if _passes(exc) or (shown is exc and isinstance(exc, Exception)):
            raise
    if not isinstance(shown, Exception):  # such as a SystemExit in a thread
        shown = RuntimeError(quoted_error(shown, with_type=True))
    raise shown  # here, or the other one would be its context, and be shown too


CALLER.call = _call_observer


def _passes(exc: BaseException) -> bool:
    """Return True for what ends the process, or is of a limit around this delivery."""
    return is_for_the_process(exc) or isinstance(exc, TimeLimitExceeded)


def send_signal(name: str, signal: Signal, **arguments: Any) -> None:
    """Send a signal of ours within the outer limit."""
    try:
        call_within_outer_limit(signal.send_robust, **arguments)
    except BaseException as exc:
        if _passes(exc):
            raise
        outer = _current.get()
        logger.error(
            "signal receivers failed signal=%s task=%r error=%s",
            name, outer.label() if outer else "",
            quoted_error(speakable(exc), with_type=True),
        )  # fmt: skip


def speakable(exc: BaseException) -> BaseException:
    """Return the exception, or a TaskTimeout in its place if its own ``__str__`` does not end."""
    try:
        call_within_outer_limit(to_log, exc)
    except TaskTimeout as timeout:
        return TaskTimeout(f"{timeout} by the __str__ of {type(exc).__name__}")
    return exc
