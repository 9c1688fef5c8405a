"""Run to its end what a task returns, if that is to be awaited, within the task's time limit.

The event loop runs in a thread of its own, because the task's thread must be free for the
synchronous calls of the coroutine, such as the ORM's. Each coroutine has a new loop, so that no
task finds timers, readers or background tasks of another one. The thread is kept for the next
coroutine of the same task thread: to start one takes longer than all the rest.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable
from contextlib import nullcontext
from typing import Final, TypeVar

from asgiref.sync import AsyncSingleThreadContext, AsyncToSync, async_to_sync

from .time_limit import GRACE, TimeLimitExceeded, time_limit

T = TypeVar("T")

_LOOP_LEEWAY: Final = 1.0  # seconds for asyncio's own limit to end what awaits
_loop_thread: Final = AsyncToSync.async_single_thread_context
"""The context variable in which asgiref looks for the thread of a new loop."""


class _IdleThread(threading.local):
    """The thread that waits for the next coroutine of this task thread."""

    loop_thread: AsyncSingleThreadContext | None = None


_idle = _IdleThread()


def _forget_threads() -> None:
    """A forked child has none of its parent's threads."""
    _idle.loop_thread = None


os.register_at_fork(after_in_child=_forget_threads)


def run_to_end(result: object, limit: time_limit) -> object:
    """Await ``result`` if it is awaitable, and return what it comes to.

    Raises TaskTimeout, and TypeError for a generator.
    """
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("run() returned a generator, of which nothing has run")
    if not inspect.isawaitable(result):
        return result
    # For code of the coroutine that blocks its event loop, which is in a thread of its own.
    inside = time_limit(limit.seconds, limit.label, leeway=_LOOP_LEEWAY, on_stuck=limit.on_stuck)
    # For synchronous calls of the coroutine's, such as the ORM's, which run in this thread. In
    # the main thread an alarm would end the wait for a coroutine that then runs on.
    around = time_limit(limit.seconds, limit.label, leeway=GRACE, on_stuck=limit.on_stuck)
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        with nullcontext() if in_main_thread else around:
            return _run_on_new_loop(result, inside)
    except TimeLimitExceeded:
        if not (inside.fires or around.fires):
            raise  # raised by an enclosing time limit
        raise limit.timeout() from None
    finally:
        inside.end()
        around.end()


def _run_on_new_loop(result: Awaitable[T], limit: time_limit) -> T:
    # There is no idle thread if this coroutine is run by synchronous code of another one.
    thread = _idle.loop_thread or AsyncSingleThreadContext()  # type: ignore[no-untyped-call]
    _idle.loop_thread = None
    token = _loop_thread.set(thread)
    is_sound = True
    try:
        # Not on a loop that runs already: under ASGI that is the server's.
        return async_to_sync(_await_within, force_new_loop=True)(result, limit)
    except BaseException as exc:
        is_sound = isinstance(exc, Exception)
        raise
    finally:
        _loop_thread.reset(token)
        # An interrupt that has missed its block may strike the thread later.
        _idle.loop_thread = thread if is_sound and not limit.fires else None


async def _await_within(result: Awaitable[T], limit: time_limit) -> T:
    # Or a thread that the coroutine starts would wait for this one.
    _loop_thread.set(None)  # type: ignore[arg-type]
    gentle = asyncio.timeout(limit.seconds)
    loop = asyncio.get_running_loop()

    def wake_loop() -> None:
        """Wake the loop: an asynchronous exception is raised only when bytecode runs."""
        loop.call_later(_LOOP_LEEWAY, wake_loop)

    loop.call_later(limit.seconds, wake_loop)
    with limit:
        try:
            async with gentle:
                value = await result
        except TimeoutError:
            if not gentle.expired():
                raise
            raise limit.timeout() from None
        if gentle.expired():  # the coroutine has swallowed its cancellation
            raise limit.timeout()
        return value
