"""Observer: watches tasks, as Sentry does, and may fail without consequence.

    BEANSTALK_DISPATCH_OBSERVERS=shop.observers.Stopwatch

The observers that this names watch every task, delivery and send of the process, as do those of the
class in BEANSTALK_DISPATCH_SAFE_TASK. The ``observers`` of another class watch its own attempts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol

from .logging.log_lines import quoted_error
from .messages.delivery import Delivery, RunView
from .messages.message import Message
from .messages.outcomes import Outcome
from .safe_task import SafeTask

__all__ = ["Delivery", "Message", "Observer", "Outcome", "Publication", "RunView"]

logger = logging.getLogger("beanstalk_dispatch.task.observers")


class Publication(Protocol):
    """A message that is being sent, as an observer sees it."""

    @property
    def message(self) -> Message:
        """Return the message, which has the headers of all observers once it is being sent."""

    @property
    def headers(self) -> dict[str, str]:
        """Return the strings that travel with the message, to add to."""

    @property
    def body(self) -> str:
        """Return the body that SQS gets, once it is being sent."""


class Observer:
    """Context managers around the stations of a task. Override those you need.

    Their errors are logged and change nothing. An error of the block is shown to them, and is
    raised again in any case.
    """

    def publishing(
        self, publications: Sequence[Publication], queue: str
    ) -> AbstractContextManager[object]:
        """Surround the sending of messages to the queue of that name.

        To send something along, add to ``publication.headers`` on entry; a worker has them in
        ``delivery.message.headers``. A batch of which only some messages were sent raises a
        BatchError.
        """
        return nullcontext()

    def delivering(self, delivery: RunView) -> AbstractContextManager[object]:
        """Surround one delivery, also of a message that is refused.

        At its end ``delivery.outcome`` and ``delivery.exception`` are those of the delivery.
        """
        return nullcontext()

    def attempting(self, task: SafeTask, delivery: RunView) -> AbstractContextManager[object]:
        """Surround one run of a task and its hooks.

        At its end ``delivery.outcome`` and ``delivery.exception`` are those of the run. RETRY
        means that the task will run again. If the outcome is CUT at the start, the message was sent
        to the dead-letter queue, and the task does not run.
        """
        return nullcontext()

    def retrying(self, delivery: RunView) -> AbstractContextManager[object]:
        """Surround the sending of the copy with which a failed task is retried.

        It is part of the attempt. The next attempt may begin before this block ends.
        """
        return nullcontext()

    def cancelling(self, delivery: RunView) -> AbstractContextManager[object]:
        """Surround the end of a task that was cancelled and does not run, so it has no attempt.

        The end of a task that has expired is seen here, too. ``delivery.outcome`` tells them apart.
        A task that runs and raises TaskCancelled ends its attempt, and is not seen here.
        """
        return nullcontext()


class OwnObserver(Observer):
    """An observer of this package that needs no time limit: it cannot hang, or is within one."""


_NOT_OBSERVED: Final = nullcontext()


def _call(function: Callable[[], Any]) -> Any:
    return function()


class _Caller:
    """The function that calls the methods of observers. In a delivery, it sets them a limit."""

    call: Callable[[Callable[[], Any]], Any] = staticmethod(_call)


CALLER: Final = _Caller()


def observed(
    observers: Sequence[Observer], stage: str, *args: object
) -> AbstractContextManager[object]:
    """Make one context manager of those that a method of the observers returns.

    ``stage`` is the name of the method. An observer that does not override it costs nothing.
    """
    ignored = getattr(Observer, stage)
    watching = [
        _HarmlessContext(each, stage, args)
        for each in observers
        if getattr(type(each), stage, None) is not ignored
    ]
    if len(watching) == 1:
        return watching[0]
    return _observed(watching) if watching else _NOT_OBSERVED


@contextmanager
def _observed(watching: Sequence[_HarmlessContext]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in watching:
            stack.enter_context(each)
        yield


class _HarmlessContext:
    """Enters and leaves a context manager, and logs its errors instead of raising them."""

    __slots__ = ("_args", "_manager", "_observer", "_stage")

    def __init__(self, observer: Observer, stage: str, args: tuple[object, ...]) -> None:
        self._observer = observer
        self._stage = stage
        self._args = args
        self._manager: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        try:
            self._manager = self._caller()(self._make_and_enter)
        except Exception as error:
            self._log_observer_error("start", error)

    def _caller(self) -> Callable[[Callable[[], Any]], Any]:
        return _call if isinstance(self._observer, OwnObserver) else CALLER.call

    def _make_and_enter(self) -> AbstractContextManager[object]:
        manager: AbstractContextManager[object] = getattr(self._observer, self._stage)(*self._args)
        manager.__enter__()
        return manager

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._manager is None:
            return
        try:
            self._caller()(partial(self._manager.__exit__, exc_type, exc, traceback))
        except Exception as error:
            if error is not exc:
                self._log_observer_error("end", error)

    def _log_observer_error(self, moment: str, error: Exception) -> None:
        logger.error(
            "observer failed observer=%s stage=%s moment=%s error=%s",
            type(self._observer).__name__,
            self._stage,
            moment,
            quoted_error(error),
            exc_info=error,
        )
