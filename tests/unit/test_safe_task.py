from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections, transaction

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import MalformedMessage, TaskTimeout
from beanstalk_dispatch.execution import time_limit as timeouts
from beanstalk_dispatch.execution.time_limit import TimeLimitExceeded, time_limit
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.safe_task import MAX_BACKOFF, RETRY_LIMIT, Retry, SafeTask
from beanstalk_dispatch.signals import task_finished, task_started
from tests import jobs
from tests.conftest import Environment
from tests.jobs import Recorder, calls, spin


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def delivered(task: SafeTask, attempt: int = 1) -> SafeTask:
    task.delivery = Delivery(queue="q", message=Message(function="f", attempt=attempt))
    return task


def test_success_calls_on_success_and_on_completion() -> None:
    task = Recorder()
    task.process(1, a=2)
    assert calls == [
        ("run", (1,), {"a": 2}, None),
        ("on_success", (1,), {"a": 2}),
        ("on_completion", (1,), {"a": 2}),
    ]
    assert task._outcome is Outcome.DONE


def test_failure_calls_on_error_and_on_completion(caplog: pytest.LogCaptureFixture) -> None:
    task = Recorder()
    task.process("fail")
    assert [call[0] for call in calls] == ["run", "on_error", "on_completion"]
    assert isinstance(calls[1][1], ValueError)
    assert task._outcome is Outcome.FAILED
    assert "Error running SafeTask: Recorder: told to fail" in caplog.text
    assert "Traceback" in caplog.text


def test_the_base_class_does_nothing() -> None:
    task = SafeTask()
    task.process(1)
    assert task._outcome is Outcome.DONE


def test_base_hooks_take_a_failure() -> None:
    task = SafeTask(jobs.fail, verbose=False)
    task.process()
    assert task._outcome is Outcome.FAILED


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


def test_the_time_limit_comes_from_the_configuration(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="7s")
    assert SafeTask.timeout_timedelta == timedelta(seconds=7)
    assert SafeTask().timeout_timedelta == timedelta(seconds=7)
    assert SafeTask(timeout_timedelta=timedelta(1)).timeout_timedelta == timedelta(1)


class Timed(Recorder):
    timeout_timedelta = timedelta(seconds=0.1)

    def run(self, *args: Any, **kwargs: Any) -> None:
        spin(30)


def test_a_timeout_is_a_timeout_error_in_on_error(caplog: pytest.LogCaptureFixture) -> None:
    task = Timed()
    thread = threading.Thread(target=task.process)
    thread.start()
    thread.join(20)
    assert [call[0] for call in calls] == ["on_error", "on_completion"]
    assert isinstance(calls[0][1], TimeoutError)
    assert task._outcome is Outcome.TIMED_OUT
    assert "SafeTask timed out" in caplog.text


def test_a_timeout_error_of_the_task_itself_is_a_failure() -> None:
    class Impatient(SafeTask):
        verbose = False

        def run(self) -> None:
            raise TimeoutError("of a socket")

    task = Impatient()
    task.process()
    assert task._outcome is Outcome.FAILED


@pytest.mark.parametrize("error", [TimeLimitExceeded(), TaskTimeout()])
@pytest.mark.parametrize("has_returned", [True, False])
def test_the_instant_in_which_a_task_ends(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, has_returned: bool
) -> None:
    """An interrupt that strikes after ``run`` has returned does not undo it."""

    class Instant(time_limit):
        def __enter__(self) -> Any:
            self.fired = True
            if not has_returned:
                raise error
            return super().__enter__()

        def __exit__(self, *args: object) -> None:
            super().__exit__(None, None, None)
            raise error

        def end(self) -> None:
            if has_returned:
                super().end()

    monkeypatch.setattr("beanstalk_dispatch.safe_task.time_limit", Instant)
    task = SafeTask(jobs.record, verbose=False)
    task.process()
    assert task._outcome is (Outcome.DONE if has_returned else Outcome.TIMED_OUT)


@pytest.mark.parametrize("hook", ["on_error", "on_success", "on_completion"])
def test_a_failing_hook_changes_nothing(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken hook")

    for argument, outcome in (("fail", Outcome.FAILED), ("fine", Outcome.DONE)):
        calls.clear()
        task = Recorder()
        setattr(task, hook, broken)
        task.process(argument)
        assert task._outcome is outcome
        expected = {"on_error" if argument == "fail" else "on_success", "on_completion"}
        assert {call[0] for call in calls} == {"run"} | (expected - {hook})
    assert f"failed in its hook {hook}" in caplog.text


def test_a_task_that_exits_has_failed() -> None:
    class Exits(Recorder):
        def run(self, *args: Any, **kwargs: Any) -> None:
            raise SystemExit(3)

    task = Exits()
    task.process()
    assert task._outcome is Outcome.FAILED
    assert isinstance(calls[0][1], SystemExit)


def test_ctrl_c_is_not_held_back_but_on_completion_runs() -> None:
    class Interrupted(Recorder):
        def run(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted().process()
    assert calls == [("on_completion", (), {})]


def test_signals_surround_a_task() -> None:
    seen: list[tuple[Any, ...]] = []

    def started(sender: type, delivery: Delivery, **kwargs: Any) -> None:
        seen.append(("started", sender, delivery))

    def finished(sender: type, outcome: str, exception: object, duration: float,
                 **kwargs: Any) -> None:  # fmt: skip
        seen.append(("finished", sender, outcome, exception, duration >= 0))

    task_started.connect(started)
    task_finished.connect(finished)
    try:
        task = delivered(Recorder())
        task.process()
    finally:
        task_started.disconnect(started)
        task_finished.disconnect(finished)
    assert seen == [
        ("started", Recorder, task.delivery),
        ("finished", Recorder, Outcome.DONE, None, True),
    ]


@pytest.mark.parametrize(
    ("attempt", "options", "outcome"),
    [
        (1, {}, Outcome.FAILED),
        (1, {"max_retries": 0}, Outcome.FAILED),
        (1, {"max_retries": 2}, Outcome.RETRY),
        (2, {"max_retries": 2}, Outcome.RETRY),
        (3, {"max_retries": 2}, Outcome.FAILED),
    ],
)
def test_max_retries_counts_repeats(
    attempt: int, options: dict[str, Any], outcome: Outcome
) -> None:
    task = delivered(SafeTask(jobs.fail, **options), attempt)
    task.process()
    assert task._outcome is outcome


def test_a_failure_outside_of_a_delivery_is_not_retried() -> None:
    task = SafeTask(jobs.fail, max_retries=5, verbose=False)
    task.process()
    assert task._outcome is Outcome.FAILED


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
    task = delivered(jobs.Choosy())
    task.process(error)
    assert (task._outcome, task._is_final) == (outcome, final)


def test_dont_retry_on_ends_a_task_that_has_no_retries_of_its_own() -> None:
    class Once(jobs.Choosy):
        max_retries = None

    task = delivered(Once())
    task.process(FileNotFoundError)
    assert (task._outcome, task._is_final) == (Outcome.FAILED, True)
    task = delivered(Once())
    task.process(ValueError)
    assert (task._outcome, task._is_final) == (Outcome.FAILED, False)


def test_a_callable_that_cannot_be_hashed_runs() -> None:
    class Callable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, value: int) -> None:
            calls.append((value,))

    SafeTask(Callable()).process(1)
    assert calls == [(1,)]


@pytest.mark.parametrize(
    ("attempt", "max_retries", "outcome"),
    [
        (1, None, Outcome.RETRY),
        (RETRY_LIMIT, None, Outcome.RETRY),
        (RETRY_LIMIT + 1, None, Outcome.FAILED),
        (1, 0, Outcome.FAILED),
        (20, 20, Outcome.RETRY),
    ],
)
def test_retry_is_granted_so_often(
    attempt: int, max_retries: int | None, outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    task = delivered(SafeTask(ask_again, max_retries=max_retries), attempt)
    task.process()
    assert task._outcome is outcome
    assert ("Traceback" in caplog.text) is (outcome is Outcome.FAILED)


def test_on_error_is_for_failures_not_for_a_granted_retry() -> None:
    errors: list[BaseException] = []
    for attempt in (1, RETRY_LIMIT + 1):
        task = delivered(SafeTask(ask_again, verbose=False), attempt)
        task.on_error = lambda exc, *args, **kwargs: errors.append(exc)  # type: ignore[method-assign]
        task.process()
    assert [type(error) for error in errors] == [Retry]


@pytest.mark.parametrize(
    ("delay", "seconds"), [(5, 5), (timedelta(minutes=1), 60), (0, 0), (-1, 0)]
)
def test_retry_can_name_its_delay(delay: Any, seconds: float) -> None:
    task = delivered(SafeTask(ask_again))
    task.process(delay=delay)
    assert task._retry_delay == seconds


@pytest.mark.parametrize(("attempt", "bound"), [(1, 10), (2, 20), (3, 40), (100, 3600)])
def test_backoff_doubles_with_full_jitter_up_to_an_hour(attempt: int, bound: float) -> None:
    delays = []
    for _ in range(60):
        task = delivered(SafeTask(ask_again, max_retries=1000, verbose=False), attempt)
        task.process()
        delays.append(task._retry_delay or 0)
    assert 0 <= min(delays) < bound / 2 < max(delays) <= bound
    assert timedelta(hours=1) == MAX_BACKOFF


def test_options_travel_and_come_back() -> None:
    task = SafeTask(
        jobs.record,
        timeout_timedelta=timedelta(seconds=30),
        verbose=False,
        max_retries=3,
        retry_backoff=timedelta(seconds=5),
    )
    options = task.options()
    assert options == {"timeout": 30.0, "verbose": False, "max_retries": 3, "retry_backoff": 5.0}
    other = SafeTask()
    assert other.options() == {}
    other.apply(options | {"unknown": 1})
    assert other.options() == options


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", -1), ("timeout", "soon"), ("timeout", []), ("verbose", 1), ("max_retries", -1),
     ("max_retries", True), ("max_retries", "3"), ("retry_backoff", None)],
)  # fmt: skip
def test_a_wrong_option_makes_a_malformed_message(option: str, value: object) -> None:
    with pytest.raises(MalformedMessage, match=f"option {option}: "):
        SafeTask().apply({option: value})


def test_an_option_of_any_size_and_depth_is_refused_in_one_line() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 200):
        deep = [deep]
    for value in ("x" * 1_000_000, deep):
        with pytest.raises(MalformedMessage, match="option timeout") as caught:
            SafeTask().apply({"timeout": value})
        assert len(str(caught.value)) <= 200


def test_a_keyword_may_be_named_self() -> None:
    task = SafeTask(jobs.record)
    task.process(self=1)
    assert calls == [((), {"self": 1})]


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="unknown option 'timeout'; known: timeout_timedelta"):
        SafeTask(timeout=3)


def test_the_sample_tasks_of_other_tests_do_what_they_say() -> None:
    task = SafeTask(jobs.loop, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    task.process()
    assert task._outcome is Outcome.TIMED_OUT
    task = SafeTask(jobs.block, verbose=False)
    task.process(0.01)
    assert task._outcome is Outcome.DONE
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
    task = Async()
    task.process(0)
    assert calls == [("slept", 0), ("on_success", (0,), {}), ("async on_completion",)]


def test_a_coroutine_that_waits_is_ended_in_any_thread() -> None:
    task = Async(timeout_timedelta=timedelta(seconds=0.1))
    started = time.monotonic()
    thread = threading.Thread(target=task.process, args=(30,))
    thread.start()
    thread.join(20)
    assert time.monotonic() - started < 4
    assert task._outcome is Outcome.TIMED_OUT


def test_a_coroutine_may_have_timeouts_of_its_own() -> None:
    async def impatient() -> None:
        raise TimeoutError("mine")

    task = SafeTask(impatient, verbose=False)
    task.process()
    assert task._outcome is Outcome.FAILED
    assert str(task._exception) == "mine"


def test_a_number_is_a_limit_in_seconds() -> None:
    task = SafeTask(lambda: spin(30), verbose=False)
    task.timeout_timedelta = 0.1  # type: ignore[assignment]
    task.process()
    assert task._outcome is Outcome.TIMED_OUT
    assert timeouts.stuck() == []


# --- what is awaited ---


def in_thread(task: SafeTask, *args: Any) -> float:
    """Run a task in a thread; how long it took."""
    started = time.monotonic()
    thread = threading.Thread(target=task.process, args=args)
    thread.start()
    thread.join(25)
    return time.monotonic() - started


def here(task: SafeTask, *args: Any) -> float:
    started = time.monotonic()
    task.process(*args)
    return time.monotonic() - started


@pytest.fixture(params=[here, in_thread], ids=["main", "thread"])
def place(request: pytest.FixtureRequest) -> Callable[..., float]:
    chosen: Callable[..., float] = request.param
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
        task = SafeTask(run)
        task.process("x")
        assert (task._outcome, calls.pop()) == (Outcome.DONE, ("coroutine", "x"))


def test_what_a_task_returns_is_not_kept() -> None:
    task = SafeTask(lambda: 5)
    task.process()
    assert task._outcome is Outcome.DONE


def test_a_generator_has_run_nothing_and_so_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    for run in (decorated(jobs.generator), decorated(jobs.async_generator)):
        task = SafeTask(run)
        task.process()
        assert task._outcome is Outcome.FAILED
    assert "it returned a generator, of which nothing has run" in caplog.text


def test_a_coroutine_that_blocks_its_loop_is_ended(place: Callable[..., float]) -> None:
    task = SafeTask(jobs.blocks, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    assert place(task, 20) < 10
    assert task._outcome is Outcome.TIMED_OUT
    assert str(task._exception) == "time limit of 0.1 s exceeded"
    assert calls == []


def test_what_a_coroutine_does_synchronously_is_ended_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("beanstalk_dispatch.safe_task.GRACE", 0.3)
    ended: list[str] = []

    async def synchronous() -> None:
        try:
            await sync_to_async(spin)(20)
        finally:
            ended.append("yes")

    task = SafeTask(synchronous, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    assert in_thread(task) < 10
    assert (task._outcome, ended) == (Outcome.TIMED_OUT, ["yes"])


def test_a_coroutine_that_is_cancelled_has_failed() -> None:
    async def cancelled() -> None:
        child = asyncio.ensure_future(asyncio.sleep(10))
        child.cancel()
        await child

    task = Recorder()
    task.run = cancelled  # type: ignore[assignment,method-assign]
    task.process()
    assert task._outcome is Outcome.FAILED
    assert [call[0] for call in calls] == ["on_error", "on_completion"]


# --- limits around limits ---


def test_an_inner_task_does_not_take_the_outers_interrupt(place: Callable[..., float]) -> None:
    inner = SafeTask(spin, timeout_timedelta=timedelta(seconds=15), verbose=False)

    def run(seconds: float) -> None:
        inner.process(seconds)
        calls.append(("went on", seconds))

    outer = SafeTask(run, timeout_timedelta=timedelta(seconds=0.5), verbose=False)
    assert place(outer, 20) < 10
    assert (outer._outcome, calls) == (Outcome.TIMED_OUT, [])
    place(outer, 0)
    assert (outer._outcome, calls) == (Outcome.DONE, [("went on", 0)])


def test_an_outers_interrupt_passes_what_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise TimeLimitExceeded

    monkeypatch.setattr("beanstalk_dispatch.safe_task.async_to_sync", lambda *a, **k: interrupted)
    coroutine = jobs.coroutine("x")
    with pytest.raises(TimeLimitExceeded):
        SafeTask(lambda: coroutine).process()
    coroutine.close()


# --- hooks ---


@pytest.mark.parametrize("hook", ["on_error", "on_success", "on_completion"])
def test_a_hook_that_takes_too_long_is_ended(
    hook: str, place: Callable[..., float], caplog: pytest.LogCaptureFixture
) -> None:
    task = Recorder(timeout_timedelta=timedelta(seconds=0.2), verbose=False)
    setattr(task, hook, lambda *args, **kwargs: spin(20))
    failing = hook == "on_error"
    assert place(task, *(["fail"] if failing else [])) < 10
    assert task._outcome is (Outcome.FAILED if failing else Outcome.DONE)
    assert f"Recorder failed in its hook {hook}" in caplog.text
    others = {"on_success", "on_completion"} - {hook} - ({"on_success"} if failing else set())
    assert {call[0] for call in calls} == {"run"} | others


def test_a_hook_may_exit(caplog: pytest.LogCaptureFixture) -> None:
    task = Recorder()
    task.on_success = sys.exit  # type: ignore[method-assign]
    task.process()
    assert task._outcome is Outcome.DONE
    assert "failed in its hook on_success" in caplog.text


# --- retries ---


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), 2**31, timedelta.max])
def test_a_delay_that_is_no_time_is_refused(delay: Any) -> None:
    with pytest.raises(ValueError, match="is not a number of seconds below"):
        Retry(delay=delay)


def test_exceptions_may_be_listed_as_a_list() -> None:
    class Listed(jobs.Choosy):
        retry_on = [OSError]  # type: ignore[assignment]  # noqa: RUF012
        dont_retry_on = [FileNotFoundError]  # type: ignore[assignment]  # noqa: RUF012

    outcomes = []
    for error in (OSError, FileNotFoundError, ValueError):
        task = delivered(Listed())
        task.process(error)
        outcomes.append(task._outcome)
    assert outcomes == [Outcome.RETRY, Outcome.FAILED, Outcome.FAILED]


# --- the database ---


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_an_interrupted_tasks_connections_are_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []
    for alias in ("default", "other"):
        connections[alias].ensure_connection()
        monkeypatch.setattr(connections[alias], "close", lambda alias=alias: closed.append(alias))
    for seconds, expected in ((0.0, []), (20.0, ["default", "other"])):
        task = SafeTask(spin, timeout_timedelta=timedelta(seconds=0.2), verbose=False)
        task.process(seconds)
        assert sorted(closed) == expected
    closed.clear()
    with transaction.atomic():
        SafeTask(spin, timeout_timedelta=timedelta(seconds=0.1), verbose=False).process(20)
        assert closed == ["other"]

    def broken() -> None:
        raise DatabaseError("the server has gone")

    monkeypatch.setattr(connections["other"], "close", broken)
    SafeTask(spin, timeout_timedelta=timedelta(seconds=0.1), verbose=False).process(20)
    assert "close of database 'other' failed: the server has gone" in caplog.text


def test_a_hook_is_told_the_outcome() -> None:
    seen: list[Outcome] = [SafeTask.outcome]

    class Told(SafeTask):
        def run(self) -> None:
            raise ValueError

        def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
            seen.append(self.outcome)

    Told().process()
    Told(lambda: None).process()
    assert seen == [Outcome.DONE, Outcome.FAILED]


def test_a_coroutine_that_waits_for_ever_in_its_cleanup_is_ended(
    place: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beanstalk_dispatch.safe_task._LOOP_LEEWAY", 0.2)

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.Event().wait()

    task = SafeTask(hangs, timeout_timedelta=timedelta(seconds=0.1), verbose=False)
    assert place(task) < 10
    assert task._outcome is Outcome.TIMED_OUT
