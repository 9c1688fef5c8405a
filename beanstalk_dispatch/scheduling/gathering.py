"""Sends together the calls that coroutines schedule in one iteration of their event loop.

``asyncio.gather`` over fifty calls makes five requests instead of fifty. Each call runs in its own
context and gets the result that it would get alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.sqs.batch_sender import batches
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .destination import Destination
from .prepare import Prepared
from .send import SendResult, send_together
from .threads import sending_executor

Steps: TypeAlias = Generator[tuple[Destination, Prepared], SendResult | None, str]
"""One call in two steps. It yields its message, is given the result and returns the task id.

Given None, it sends the message by itself.
"""

_ABSENT: Final = object()


@dataclass(slots=True, eq=False)
class _Call:
    """A call whose coroutine waits for it."""

    steps: Steps
    future: asyncio.Future[str]
    context: Context = field(default_factory=copy_context)
    ready: tuple[Destination, Prepared] | None = None
    """Its message, once it can be sent."""
    task_id: str = ""
    error: BaseException | None = None

    def resume(self, result: SendResult | None) -> None:
        """Run the next step."""
        try:
            self.ready = self.context.run(self.steps.send, result)
        except StopIteration as stop:
            self.task_id = stop.value
        except SchedulingError as exc:  # the frames have the message as a local
            self.error = exc.with_traceback(None)
        except BaseException as exc:  # raised again where the call is awaited
            self.error = exc


class _Pending(threading.local):
    """The calls of the loop that runs in this thread, by the queue that their callers named."""

    loop: asyncio.AbstractEventLoop | None = None
    calls: dict[str, list[_Call]]


_pending: Final = _Pending()


async def join(queue: str, steps: Steps) -> str:
    """Run a call with the others of this iteration of the loop, and return its task id.

    Changes that it makes to context variables are seen by the caller, as asgiref does it.
    """
    loop = asyncio.get_running_loop()
    call = _Call(steps, loop.create_future())
    if _pending.loop is not loop:  # no call waits in this loop
        _pending.loop, _pending.calls = loop, {}
        loop.call_soon(_start)
    # A name that is not a string has perhaps no hash; its call raises the error.
    _pending.calls.setdefault(str(queue), []).append(call)
    try:
        return await call.future
    finally:
        for variable, value in call.context.items():
            if variable.get(_ABSENT) is not value:
                variable.set(value)


def _start() -> None:
    """Hand the calls of this iteration to the threads for sending, ten at a time."""
    calls_by_queue, _pending.loop, _pending.calls = _pending.calls, None, {}
    for calls in calls_by_queue.values():
        waiting = [each for each in calls if not each.future.done()]
        for start in range(0, len(waiting), MAX_BATCH_ENTRIES):
            _submit(_prepare, waiting[start : start + MAX_BATCH_ENTRIES])


def _submit(work: Callable[[Sequence[_Call]], None], calls: Sequence[_Call]) -> None:
    try:
        sending_executor().submit(work, calls)
    except RuntimeError:  # the interpreter is ending
        work(calls)


def _prepare(calls: Sequence[_Call]) -> None:
    """Prepare calls of one queue, and send those that can share a request together."""
    for each in calls:
        each.resume(None)
    _settle([each for each in calls if each.ready is None])
    ready = {each: each.ready for each in calls if each.ready is not None}
    if not ready:
        return
    destination, _ = next(iter(ready.values()))
    if destination.is_fifo:
        groups = [[each] for each in ready]
    else:
        sendable = list(ready)
        runs = batches([prepared for _, prepared in ready.values()])
        groups = [[sendable[n] for n in positions] for positions in runs]
    for group in groups[1:]:
        _submit(_send, group)
    _send(groups[0])


def _send(calls: Sequence[_Call]) -> None:
    """Send calls in one request. A call by itself is sent as SendMessage."""
    results: Sequence[SendResult | None] = [None] * len(calls)
    ready = [each.ready for each in calls if each.ready is not None]
    if len(ready) > 1:
        with suppress(Exception):  # each call then sends by itself, and gets its own error
            results = send_together(ready[0][0], [prepared for _, prepared in ready])
    for each, result in zip(calls, results, strict=True):
        each.resume(result)
    _settle(calls)


def _settle(calls: Sequence[_Call]) -> None:
    """Have the loop of these calls tell their coroutines."""
    if calls:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            calls[0].future.get_loop().call_soon_threadsafe(_tell, calls)


def _tell(calls: Sequence[_Call]) -> None:
    for each in calls:
        if each.future.done():  # its coroutine was cancelled
            continue
        if each.error is not None:
            each.future.set_exception(each.error)
        else:
            each.future.set_result(each.task_id)
