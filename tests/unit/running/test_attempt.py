from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.attempt import _stuck_label, undelivered
from beanstalk_dispatch.running.limits import time_limit as timeouts
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded, time_limit
from beanstalk_dispatch.running.retries import MAX_BACKOFF_SECONDS
from beanstalk_dispatch.running.run import DONE, Run
from beanstalk_dispatch.safe_task import RETRY_LIMIT, Retry, SafeTask
from beanstalk_dispatch.signals import task_finished, task_started
from tests import jobs
from tests.conftest import Environment
from tests.jobs import Recorder, calls, run_in_steps
from tests.runs import attempt, deliver


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def test_success_calls_on_success_and_on_completion() -> None:
    came = attempt(Recorder(), 1, a=2)
    assert [call[:3] for call in calls] == [
        ("run", (1,), {"a": 2}),
        ("on_success", (1,), {"a": 2}),
        ("on_completion", (1,), {"a": 2}),
    ]
    assert came.attempted == DONE


def test_failure_calls_on_error_and_on_completion(caplog: pytest.LogCaptureFixture) -> None:
    came = attempt(Recorder(), "fail")
    assert [call[0] for call in calls] == ["run", "on_error", "on_completion"]
    assert isinstance(calls[1][1], ValueError)
    assert (came.outcome, came.exception) == (Outcome.FAILED, calls[1][1])
    assert "SafeTask failed id=1 function=f error=told to fail" in caplog.text
    assert "Traceback" in caplog.text


def test_a_retry_that_is_returned_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert attempt(SafeTask(Retry), "later").outcome is Outcome.FAILED
    assert "the task has returned a Retry, and does not run again; raise it" in caplog.text


def takes_one(number: int) -> None:
    raise TypeError("its own")


@pytest.mark.parametrize(
    ("path", "kwargs", "explained"),
    [
        ("tests.unit.running.test_attempt.takes_one", {"delay": 60},
         "it is task(number); delay= belongs to Call: schedule(queue, Call('task', [...], delay"),
        ("tests.unit.running.test_attempt.takes_one", {}, ""),
        ("tests.unit.scheduling.test_call_check.WithOwnProcess", {"delay": 60}, ""),
    ],
)  # fmt: skip
def test_arguments_that_the_task_does_not_take_are_explained(
    path: str, kwargs: dict[str, int], explained: str, env: Environment,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    env(DISPATCH_TABLE=f"task={path}")
    body = json.dumps({"v": 1, "id": "1", "function": "task", "args": [1], "kwargs": kwargs})
    assert deliver(body, Delivery(queue="q")).outcome is Outcome.FAILED
    assert explained in caplog.text
    assert ("deploy the worker, too" in caplog.text) is bool(explained)


def test_a_class_without_a_run_of_its_own_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    class Misspelt(SafeTask):
        Run = staticmethod(jobs.record)

    for task in (SafeTask(), Misspelt()):
        assert attempt(task, 1).outcome is Outcome.FAILED
    assert "Misspelt has no run() of its own; write 'def run(self, …)'" in caplog.text


def test_a_task_may_be_processed_outside_of_a_delivery() -> None:
    Recorder().process(1)
    assert calls[0] == ("run", (1,), {}, None)
    Recorder(verbose=False).process("fail")
    assert [call[0] for call in calls[3:]] == ["run", "on_error", "on_completion"]


@pytest.mark.parametrize("place", [SafeTask, Recorder, None])
def test_a_process_that_is_set_later_is_called_too(
    place: type[SafeTask] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library may patch it, for all tasks, a class, or an instance."""
    task, process, seen = Recorder(), SafeTask.process, []

    def processed(*args: Any, **kwargs: Any) -> None:
        seen.append("in")
        process(*(args if place else (task, *args)), **kwargs)
        seen.append("out")

    monkeypatch.setattr(place or task, "process", processed, raising=False)
    assert attempt(task, 1).outcome is Outcome.DONE
    assert seen == ["in", "out"]
    assert [call[0] for call in calls] == ["run", "on_success", "on_completion"]


def test_base_hooks_take_a_failure() -> None:
    task = SafeTask(jobs.fail, verbose=False)
    assert attempt(task).outcome is Outcome.FAILED


def test_a_quiet_task_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Quiet(Recorder):
        verbose = False

    Quiet().process("fail")
    assert caplog.text == ""


def test_a_class_of_0_1_works_unchanged() -> None:
    class Old(SafeTask):
        timeout_timedelta = timedelta(seconds=1000)

        def __init__(self) -> None:
            self.seen: list[Any] = []

        def run(self, *args: Any, **kwargs: Any) -> None:
            self.seen.append(args)
            raise ValueError(args[0])

        def on_error(self, e: Exception, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            self.seen.append((str(e), args, kwargs))

    task = Old()
    task.process("x", a=1)
    assert task.seen == [("x",), ("x", ("x",), {"a": 1})]


class Timed(Recorder):
    timeout_timedelta = timedelta(seconds=0.1)

    def run(self, *args: Any, **kwargs: Any) -> None:
        run_in_steps(30)


def test_a_timeout_is_a_timeout_error_in_on_error(caplog: pytest.LogCaptureFixture) -> None:
    _, came = in_thread(Timed())
    assert [call[0] for call in calls] == ["on_error", "on_completion"]
    assert isinstance(calls[0][1], TimeoutError)
    assert came.outcome is Outcome.TIMED_OUT
    assert "SafeTask timed out" in caplog.text


def test_a_timeout_error_of_the_task_itself_is_a_failure() -> None:
    class Impatient(SafeTask):
        verbose = False

        def run(self) -> None:
            raise TimeoutError("of a socket")

    task = Impatient()
    assert attempt(task).outcome is Outcome.FAILED


@pytest.mark.parametrize("struck_in_exit", [True, False])
@pytest.mark.parametrize("has_returned", [True, False])
def test_the_instant_in_which_a_task_ends(
    monkeypatch: pytest.MonkeyPatch, struck_in_exit: bool, has_returned: bool
) -> None:
    """An interrupt that strikes after ``run`` has returned does not undo it."""

    class Instant(time_limit):
        def __enter__(self) -> Any:
            self.fires = 1
            if not has_returned:
                raise TimeLimitExceeded
            return super().__enter__()

        def __exit__(self, *args: object) -> None:
            error = TimeLimitExceeded()
            if struck_in_exit:
                raise error
            super().__exit__(TimeLimitExceeded, error, None)

        def end(self) -> None:
            if has_returned:
                super().end()

    monkeypatch.setattr("beanstalk_dispatch.running.attempt.time_limit", Instant)
    came = attempt(SafeTask(jobs.record, verbose=False))
    assert came.outcome is (Outcome.DONE if has_returned else Outcome.TIMED_OUT)


@pytest.mark.parametrize("hook", ["on_error", "on_success", "on_completion"])
def test_a_failing_hook_changes_nothing(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken hook")

    for argument, outcome in (("fail", Outcome.FAILED), ("fine", Outcome.DONE)):
        calls.clear()
        task = Recorder()
        setattr(task, hook, broken)
        assert attempt(task, argument).outcome is outcome
        expected = {"on_error" if argument == "fail" else "on_success", "on_completion"}
        assert {call[0] for call in calls} == {"run"} | (expected - {hook})
    assert f"hook failed hook={hook} id=1 function=f" in caplog.text


class Panic(BaseException):
    """As pyo3's PanicException, gevent.Timeout and trio.Cancelled, no Exception."""


class Raises(Recorder):
    def run(self, *args: Any, **kwargs: Any) -> None:
        raise args[0]


@pytest.mark.parametrize("error", [Panic, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_in_a_thread_whatever_is_raised_is_a_failure_of_the_task(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    _, came = in_thread(Raises(max_retries=1), error)
    assert (came.outcome, type(came.exception)) == (Outcome.RETRY, error)
    assert [call[0] for call in calls] == ["on_error", "on_completion"]
    assert "SafeTask will be retried id=1 function=f" in caplog.text


@pytest.mark.parametrize("error", [Panic, GeneratorExit])
def test_in_the_main_thread_too(error: type[BaseException]) -> None:
    assert attempt(Raises(verbose=False), error).outcome is Outcome.FAILED


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_in_the_main_thread_ctrl_c_and_an_exit_are_for_the_process(
    error: type[BaseException],
) -> None:
    with pytest.raises(error):
        attempt(Raises(), error)
    assert calls == [("on_completion", (error,), {})]
    task = Recorder()
    task.on_success = interrupt_with(error)  # type: ignore[method-assign]
    with pytest.raises(error):
        attempt(task)


def interrupt_with(error: type[BaseException]) -> Callable[[], None]:
    def hook() -> None:
        raise error

    return hook


def test_signals_surround_a_task() -> None:
    seen: list[tuple[Any, ...]] = []

    def started(sender: type, delivery: RunView, **kwargs: Any) -> None:
        seen.append(("started", sender, delivery))

    def finished(sender: type, outcome: str, exception: object, duration: float,
                 **kwargs: Any) -> None:  # fmt: skip
        seen.append(("finished", sender, outcome, exception, duration >= 0))

    task_started.connect(started)
    task_finished.connect(finished)
    try:
        task = Recorder()
        attempt(task)
    finally:
        task_started.disconnect(started)
        task_finished.disconnect(finished)
    assert seen == [
        ("started", Recorder, task.delivery),
        ("finished", Recorder, Outcome.DONE, None, True),
    ]


@pytest.mark.parametrize(
    ("number", "options", "outcome"),
    [
        (1, {}, Outcome.FAILED),
        (1, {"max_retries": 0}, Outcome.FAILED),
        (1, {"max_retries": 2}, Outcome.RETRY),
        (2, {"max_retries": 2}, Outcome.RETRY),
        (3, {"max_retries": 2}, Outcome.FAILED),
    ],
)
def test_max_retries_counts_repeats(number: int, options: dict[str, Any], outcome: Outcome) -> None:
    assert attempt(SafeTask(jobs.fail, **options), number=number).outcome is outcome


def test_a_failure_outside_of_a_delivery_is_not_retried() -> None:
    task = Recorder(max_retries=5, verbose=False)
    task.run = ask_again  # type: ignore[method-assign]
    task.process()
    assert [call[0] for call in calls] == ["on_error", "on_completion"]


def ask_again(**options: Any) -> None:
    raise Retry("not yet", **options)


@pytest.mark.parametrize(
    ("error", "outcome", "final"),
    [
        (OSError, Outcome.RETRY, False),
        (ConnectionError, Outcome.RETRY, False),
        (FileNotFoundError, Outcome.FAILED, True),
        (ValueError, Outcome.FAILED, True),
        (Retry, Outcome.RETRY, False),
    ],
)
def test_only_some_errors_are_worth_a_retry(
    error: type[Exception], outcome: Outcome, final: bool
) -> None:
    came = attempt(jobs.Choosy(), error)
    assert (came.outcome, came.attempted.is_final) == (outcome, final)


def test_dont_retry_on_ends_a_task_that_has_no_retries_of_its_own() -> None:
    class Once(jobs.Choosy):
        max_retries = None

    came = attempt(Once(), FileNotFoundError)
    assert (came.outcome, came.attempted.is_final) == (Outcome.FAILED, True)
    came = attempt(Once(), ValueError)
    assert (came.outcome, came.attempted.is_final) == (Outcome.FAILED, False)


def test_a_callable_that_cannot_be_hashed_runs() -> None:
    class Callable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, value: int) -> None:
            calls.append((value,))

    SafeTask(Callable()).process(1)
    assert calls == [(1,)]


@pytest.mark.parametrize(
    ("number", "max_retries", "outcome"),
    [
        (1, None, Outcome.RETRY),
        (RETRY_LIMIT, None, Outcome.RETRY),
        (RETRY_LIMIT + 1, None, Outcome.FAILED),
        (1, 0, Outcome.FAILED),
        (20, 20, Outcome.RETRY),
    ],
)
def test_retry_is_granted_so_often(
    number: int, max_retries: int | None, outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    task = SafeTask(ask_again, max_retries=max_retries)
    assert attempt(task, number=number).outcome is outcome
    assert ("Traceback" in caplog.text) is (outcome is Outcome.FAILED)


def test_on_error_is_for_failures_not_for_a_granted_retry() -> None:
    errors: list[BaseException] = []
    for number in (1, RETRY_LIMIT + 1):
        task = SafeTask(ask_again, verbose=False)
        task.on_error = lambda exc, *args, **kwargs: errors.append(exc)  # type: ignore[method-assign]
        attempt(task, number=number)
    assert [type(error) for error in errors] == [Retry]


@pytest.mark.parametrize(
    ("delay", "seconds"), [(5, 5), (timedelta(minutes=1), 60), (0, 0), (-1, 0)]
)
def test_retry_can_name_its_delay(delay: Any, seconds: float) -> None:
    assert attempt(SafeTask(ask_again), delay=delay).attempted.retry_after == seconds


@pytest.mark.parametrize(("number", "bound"), [(1, 10), (2, 20), (3, 40), (100, 3600)])
def test_backoff_doubles_with_full_jitter_up_to_an_hour(number: int, bound: float) -> None:
    delays = []
    for _ in range(60):
        task = SafeTask(ask_again, max_retries=1000, verbose=False)
        delays.append(attempt(task, number=number).attempted.retry_after or 0)
    assert 0 <= min(delays) < bound / 2 < max(delays) <= bound
    assert MAX_BACKOFF_SECONDS == 3600


def test_a_keyword_may_be_named_self() -> None:
    task = SafeTask(jobs.record)
    task.process(self=1)
    assert calls == [((), {"self": 1})]


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="unknown option 'time_limit'; known: timeout_timedelta"):
        SafeTask(time_limit=3)


def test_the_sample_tasks_of_other_tests_do_what_they_say() -> None:
    task = SafeTask(jobs.loop, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    assert attempt(task).outcome is Outcome.TIMED_OUT
    task = SafeTask(jobs.block, verbose=False)
    assert attempt(task, 0.01).outcome is Outcome.DONE
    assert jobs.NeedsArgument(5).needed == 5
    assert list(jobs.generator()) == [*jobs.Yields().run(), 1]
    asyncio.run(jobs.blocks(0.01))
    assert calls == [("blocked", 0.01)]

    async def all_of_them() -> list[int]:
        return [value async for value in jobs.async_generator()]

    assert asyncio.run(all_of_them()) == [1]


class Async(Recorder):
    async def run(self, seconds: float) -> None:  # type: ignore[override]
        await asyncio.sleep(seconds)
        calls.append(("slept", seconds))

    async def on_completion(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        calls.append(("async on_completion",))


def test_a_coroutine_is_awaited_and_so_are_hooks() -> None:
    attempt(Async(), 0)
    assert calls == [("slept", 0), ("on_success", (0,), {}), ("async on_completion",)]


def test_a_coroutine_that_waits_is_ended_in_any_thread() -> None:
    task = Async(timeout_timedelta=timedelta(seconds=0.1))
    seconds, came = in_thread(task, 30)
    assert seconds < 4
    assert came.outcome is Outcome.TIMED_OUT


def test_a_coroutine_may_have_timeouts_of_its_own() -> None:
    async def impatient() -> None:
        raise TimeoutError("mine")

    came = attempt(SafeTask(impatient, verbose=False))
    assert (came.outcome, str(came.exception)) == (Outcome.FAILED, "mine")


def test_a_number_is_a_limit_in_seconds() -> None:
    task = SafeTask(lambda: run_in_steps(30), verbose=False)
    task.timeout_timedelta = 0.1
    assert attempt(task).outcome is Outcome.TIMED_OUT
    assert timeouts.stuck() == []


# --- what is awaited ---


def here(task: SafeTask, *args: Any) -> tuple[float, Run]:
    """Run a task in this thread: how long it took, and what came of it."""
    started = time.monotonic()
    came = attempt(task, *args)
    return time.monotonic() - started, came


def in_thread(task: SafeTask, *args: Any) -> tuple[float, Run]:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(here, task, *args).result(25)


Place = Callable[..., tuple[float, Run]]


@pytest.fixture(params=[here, in_thread], ids=["main", "thread"])
def place(request: pytest.FixtureRequest) -> Place:
    chosen: Place = request.param
    return chosen


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def test_a_coroutine_is_awaited_whoever_made_it() -> None:
    class Called:
        async def __call__(self, value: str) -> None:
            await jobs.coroutine(value)

    for run in (decorated(jobs.coroutine), Called()):
        came = attempt(SafeTask(run), "x")
        assert (came.outcome, calls.pop()) == (Outcome.DONE, ("coroutine", "x"))


def test_what_a_task_returns_is_not_kept() -> None:
    task = SafeTask(lambda: 5)
    assert attempt(task).outcome is Outcome.DONE


def test_a_generator_has_run_nothing_and_so_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    for run in (decorated(jobs.generator), decorated(jobs.async_generator)):
        assert attempt(SafeTask(run)).outcome is Outcome.FAILED
    assert "run() returned a generator, of which nothing has run" in caplog.text


@pytest.mark.slow
def test_a_coroutine_that_blocks_its_loop_is_ended(place: Place) -> None:
    task = SafeTask(jobs.blocks, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    seconds, came = place(task, 20)
    assert seconds < 10
    assert came.outcome is Outcome.TIMED_OUT
    assert str(came.exception) == "time limit of 0.1 s exceeded"
    assert calls == []


def test_what_a_coroutine_does_synchronously_is_ended_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beanstalk_dispatch.running.coroutines.GRACE", 0.3)
    ended: list[str] = []

    async def synchronous() -> None:
        try:
            await sync_to_async(run_in_steps)(20)
        finally:
            ended.append("yes")

    task = SafeTask(synchronous, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    seconds, came = in_thread(task)
    assert seconds < 10
    assert (came.outcome, ended) == (Outcome.TIMED_OUT, ["yes"])


def test_a_coroutine_that_is_cancelled_has_failed() -> None:
    async def cancelled() -> None:
        child = asyncio.ensure_future(asyncio.sleep(10))
        child.cancel()
        await child

    task = Recorder()
    task.run = cancelled  # type: ignore[assignment,method-assign]
    assert attempt(task).outcome is Outcome.FAILED
    assert [call[0] for call in calls] == ["on_error", "on_completion"]


# --- limits around limits ---


@pytest.mark.slow
def test_an_inner_task_does_not_take_the_outers_interrupt(place: Place) -> None:
    inner = SafeTask(run_in_steps, timeout_timedelta=timedelta(seconds=15), verbose=False)

    def run(seconds: float) -> None:
        inner.process(seconds)
        calls.append(("went on", seconds))

    outer = SafeTask(run, timeout_timedelta=timedelta(seconds=0.5), verbose=False)
    seconds, came = place(outer, 20)
    assert seconds < 10
    assert (came.outcome, calls) == (Outcome.TIMED_OUT, [])
    _, came = place(outer, 0)
    assert (came.outcome, calls) == (Outcome.DONE, [("went on", 0)])


def test_an_outers_interrupt_passes_what_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise TimeLimitExceeded

    monkeypatch.setattr(
        "beanstalk_dispatch.running.coroutines.async_to_sync", lambda *a, **k: interrupted
    )
    coroutine = jobs.coroutine("x")
    with pytest.raises(TimeLimitExceeded):
        SafeTask(lambda: coroutine).process()
    coroutine.close()


# --- hooks ---


@pytest.mark.parametrize("hook", ["on_error", "on_success", "on_completion"])
def test_a_hook_that_takes_too_long_is_ended(
    hook: str, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    task = Recorder(timeout_timedelta=timedelta(seconds=0.2), verbose=False)
    setattr(task, hook, lambda *args, **kwargs: run_in_steps(20))
    failing = hook == "on_error"
    seconds, came = place(task, *(["fail"] if failing else []))
    assert seconds < 10
    assert came.outcome is (Outcome.FAILED if failing else Outcome.DONE)
    assert f"hook failed hook={hook} id=1 function=f" in caplog.text
    others = {"on_success", "on_completion"} - {hook} - ({"on_success"} if failing else set())
    assert {call[0] for call in calls} == {"run"} | others


def test_a_hook_may_exit(caplog: pytest.LogCaptureFixture) -> None:
    task = Recorder()
    task.on_success = sys.exit  # type: ignore[method-assign]
    _, came = in_thread(task)
    assert came.outcome is Outcome.DONE
    assert "hook failed hook=on_success" in caplog.text


# --- retries ---


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), 2**31, timedelta.max])
def test_a_delay_that_is_no_time_is_refused(delay: Any) -> None:
    with pytest.raises(ValueError, match="is not a number of seconds below"):
        Retry(delay=delay)


@pytest.mark.parametrize("delay", [60, 0.5, timedelta(minutes=1)])
def test_a_delay_in_the_place_of_the_reason_is_refused(delay: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"a string; write Retry(delay={delay!r})")):
        Retry(delay)


def test_exceptions_may_be_listed_as_a_list() -> None:
    class Listed(jobs.Choosy):
        retry_on = [OSError]  # type: ignore[assignment]  # noqa: RUF012
        dont_retry_on = [FileNotFoundError]  # type: ignore[assignment]  # noqa: RUF012

    errors = (OSError, FileNotFoundError, ValueError)
    outcomes = [attempt(Listed(), error).outcome for error in errors]
    assert outcomes == [Outcome.RETRY, Outcome.FAILED, Outcome.FAILED]


def test_a_hook_sees_the_outcome() -> None:
    seen: list[Outcome | None] = []

    class Told(SafeTask):
        def run(self) -> None:
            raise ValueError

        def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
            assert self.delivery
            seen.append(self.delivery.outcome)

    attempt(Told())
    attempt(Told(lambda: None))
    attempt(Told(max_retries=1))
    assert seen == [Outcome.FAILED, Outcome.RETRY]


def test_a_coroutine_that_swallows_its_cancellation_has_timed_out(place: Place) -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(20)

    task = SafeTask(stubborn, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    seconds, came = place(task)
    assert seconds < 10
    assert came.outcome is Outcome.TIMED_OUT


def test_a_coroutine_that_waits_for_ever_in_its_cleanup_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beanstalk_dispatch.running.coroutines._LOOP_LEEWAY", 0.2)

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.Event().wait()

    task = SafeTask(hangs, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    seconds, came = place(task)
    assert seconds < 10
    assert came.outcome is Outcome.TIMED_OUT


def test_a_task_without_a_message_is_named_by_its_class() -> None:
    run = undelivered()
    run.task = Recorder()
    assert _stuck_label(run) == "Recorder"
