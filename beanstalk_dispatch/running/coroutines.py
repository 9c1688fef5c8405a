"""Await the value that a task returns, if it is awaitable, within the task's time limit."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Final, TypeVar

from asgiref.sync import async_to_sync
from django.db import connections

from .limits.time_limit import GRACE, TimeLimitExceeded, time_limit

T = TypeVar("T")

_LOOP_LEEWAY: Final = 1.0  # seconds for asyncio's own limit to end what awaits


def run_to_end(result: object, limit: time_limit) -> object:
    """Await ``result`` if it is awaitable, and return its value.

    Raise TaskTimeout if it takes too long, and TypeError for a generator.
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
            # Not on a loop that runs already: under ASGI that is the server's.
            return async_to_sync(_await_within, force_new_loop=True)(result, inside)
    except TimeLimitExceeded:
        if not (inside.fires or around.fires):
            raise  # raised by an enclosing time limit
        raise limit.timeout() from None
    finally:
        inside.end()
        around.end()


async def _await_within(result: Awaitable[T], limit: time_limit) -> T:
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


def call_outside_of_loop(action: Callable[[], T]) -> T:
    """Call ``action``, in a thread of its own if this one runs coroutines.

    Django refuses to ask a database in a thread that does, and so does a cache in a database.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return action()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_call_and_disconnect, action).result()


def _call_and_disconnect(action: Callable[[], T]) -> T:
    try:
        return action()
    finally:
        connections.close_all()
