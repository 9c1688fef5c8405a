"""The thread of the event loops is kept from task to task, and nothing else is."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.execution import coroutines
from beanstalk_dispatch.execution.attempt import Attempt, run_attempt
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.safe_task import SafeTask

Coro = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture(autouse=True)
def no_idle_thread() -> Iterator[None]:
    coroutines._forget_threads()
    yield
    coroutines._forget_threads()


def run(function: Coro | Callable[[], Any], *, limit: float = 20) -> Attempt:
    delivery = Delivery(queue="q", message=Message(function="f"))
    task = SafeTask(function, timeout_timedelta=timedelta(seconds=limit), verbose=False)
    task.delivery = delivery
    return run_attempt(task, (), {}, delivery=delivery)


def loop_thread() -> int:
    """Run a task, which must be done, and return the thread of its loop."""
    seen: list[int] = []

    async def look() -> None:
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        seen.append(threading.get_ident())

    assert run(look).outcome is Outcome.DONE
    return seen[0]


def test_one_thread_runs_the_loops_of_one_task_thread() -> None:
    first = loop_thread()
    assert first == loop_thread() != threading.get_ident()
    elsewhere: list[int] = []
    thread = threading.Thread(target=lambda: elsewhere.append(loop_thread()))
    thread.start()
    thread.join(20)
    assert elsewhere != [first]


def test_each_task_has_a_loop_of_its_own() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def keep() -> None:
        loops.append(asyncio.get_running_loop())

    run(keep)
    run(keep)
    assert loops[0] is not loops[1]
    assert all(loop.is_closed() for loop in loops)


def test_synchronous_calls_of_a_coroutine_run_in_the_task_thread() -> None:
    seen: list[int] = []

    async def calls() -> None:
        seen.append(await sync_to_async(threading.get_ident)())

    run(calls)
    run(calls)
    assert seen == [threading.get_ident()] * 2


def test_what_a_task_leaves_on_its_loop_does_not_outlive_it() -> None:
    happened: list[str] = []
    ends = socket.socketpair()

    async def background() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            happened.append("cancelled")

    async def leaves() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, happened.append, "timer")
        loop.add_reader(ends[0], happened.append, "reader")
        loop.set_exception_handler(lambda *about: happened.append("handler"))
        leaves.task = asyncio.ensure_future(background())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    async def waits() -> None:
        ends[1].send(b"x")
        await asyncio.sleep(0.1)

    assert run(leaves).outcome is Outcome.DONE
    assert run(waits).outcome is Outcome.DONE
    assert happened == ["cancelled"]
    for each in ends:
        each.close()


def test_what_a_task_sets_in_its_context_ends_with_its_delivery() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def sets() -> None:
        seen.append(variable.get())
        variable.set("set by a task")
        await asyncio.sleep(0)

    def through_executor() -> None:
        assert run(sets).outcome is Outcome.DONE

    for _ in range(2):
        contextvars.copy_context().run(through_executor)  # as executor.run() does
    assert seen == ["unset", "unset"]


async def close_the_loop() -> None:
    asyncio.get_running_loop().close()


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(10)


async def set_another_loop() -> None:
    other = asyncio.new_event_loop()
    asyncio.set_event_loop(other)
    other.close()


async def cancel_everything() -> None:
    for each in asyncio.all_tasks():
        each.cancel()
    await asyncio.sleep(10)


async def exit_the_thread() -> None:
    raise SystemExit


async def exit_from_a_callback() -> None:
    def leave() -> None:
        raise SystemExit

    asyncio.get_running_loop().call_soon(leave)
    await asyncio.sleep(10)


async def break_the_selector() -> None:
    loop: Any = asyncio.get_running_loop()
    loop._selector.close()
    await asyncio.sleep(0.01)


@pytest.mark.filterwarnings("ignore")  # a loop that a task has broken is not closed
@pytest.mark.parametrize(
    "culprit",
    [
        close_the_loop, stop_the_loop, set_another_loop, cancel_everything, exit_the_thread,
        exit_from_a_callback, break_the_selector,
    ],
    ids=lambda each: each.__name__,
)  # fmt: skip
def test_a_loop_that_a_task_breaks_is_not_that_of_the_next(culprit: Coro) -> None:
    loop_thread()
    attempts: list[Attempt] = []
    thread = threading.Thread(target=lambda: attempts.append(run(culprit)))
    thread.start()  # not the main thread, in which a SystemExit is the process's
    thread.join(20)
    expected = Outcome.DONE if culprit is set_another_loop else Outcome.FAILED
    assert [each.outcome for each in attempts] == [expected]
    loop_thread()


@pytest.mark.slow
def test_a_thread_in_which_an_interrupt_has_struck_is_not_used_again() -> None:
    first = loop_thread()

    async def blocks() -> None:
        with suppress(BaseException):
            while True:
                time.sleep(0.01)  # noqa: ASYNC251

    assert run(blocks, limit=0.1).outcome is Outcome.TIMED_OUT
    assert loop_thread() != first


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_in_the_loops_own_code_leave_the_next_task_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coroutines, "_LOOP_LEEWAY", 0.0)

    async def busy() -> None:
        with suppress(asyncio.CancelledError):  # that of asyncio's own timeout
            await turns()
        await turns()

    async def turns() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)  # not an Event: the loop must be busy

    for _ in range(5):
        assert run(busy, limit=0.01).outcome is Outcome.TIMED_OUT
        loop_thread()
    gc.collect()  # coroutines that were never awaited, while their warnings are ignored


def test_a_coroutine_may_run_another_tasks_coroutine() -> None:
    seen: list[int] = []

    def inner() -> None:
        seen.append(loop_thread())

    async def outer() -> None:
        seen.append(threading.get_ident())
        await sync_to_async(inner)()

    assert run(outer).outcome is Outcome.DONE
    assert seen[0] != seen[1]


def test_a_thread_of_a_coroutine_may_run_coroutines() -> None:
    async def innermost() -> int:
        return 1

    async def outer() -> None:
        assert await asyncio.to_thread(async_to_sync(innermost)) == 1

    assert run(outer).outcome is Outcome.DONE


@pytest.mark.slow
def test_a_forked_process_has_a_thread_of_its_own() -> None:
    loop_thread()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a process that waits for its parent's thread
        loop_thread()
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
