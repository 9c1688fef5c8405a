from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path

import pytest

from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.running.limits import time_limit as timeouts
from beanstalk_dispatch.running.limits.thread_frames import is_interruptible
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded, time_limit
from tests.jobs import run_in_steps, spin


def in_thread(function: Callable[[], None]) -> None:
    """Run in a thread and raise here what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    if raised:
        raise raised[0]


def here(function: Callable[[], None]) -> None:
    function()


@pytest.fixture(params=[here, in_thread], ids=["main", "thread"])
def place(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], None]:
    """The main thread, or another."""
    chosen: Callable[[Callable[[], None]], None] = request.param
    return chosen


Place = Callable[[Callable[[], None]], None]


def limited(limit: time_limit, body: Callable[[], None]) -> None:
    try:
        with limit:
            body()
    except TimeLimitExceeded:  # in the instant in which the block ended
        limit.end()
        if limit.fires:
            raise TaskTimeout from None
        raise


def test_a_loop_is_ended(place: Place) -> None:
    started = time.monotonic()
    with pytest.raises(TaskTimeout, match=r"time limit of 0\.1 s exceeded"):
        place(lambda: limited(time_limit(0.1), lambda: spin(30)))
    assert time.monotonic() - started < 5


def test_except_exception_does_not_swallow_it(place: Place) -> None:
    def body() -> None:
        with suppress(Exception):
            spin(30)

    with pytest.raises(TaskTimeout):
        place(lambda: limited(time_limit(0.1), body))


def test_what_ends_in_time_is_left_alone(place: Place) -> None:
    def body() -> None:
        limited(time_limit(0.05), lambda: None)
        run_in_steps(0.15)

    place(body)


SLOW_MODULE = """
import time

until = time.monotonic() + {seconds}
while time.monotonic() < until:
    time.sleep(0.001)
complete = True
"""


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Make a module that takes ``seconds`` to import, and return its name."""
    names: list[str] = []

    def make(seconds: float) -> str:
        names.append(f"slow_module_{tmp_path.name}")
        (tmp_path / f"{names[0]}.py").write_text(SLOW_MODULE.format(seconds=seconds))
        return names[0]

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    sys.modules.pop(names[0], None)


@pytest.mark.slow
def test_an_import_is_finished_before_the_interrupt(
    place: Place, slow_module: Callable[..., str]
) -> None:
    name = slow_module(seconds=0.4)

    def body() -> None:
        importlib.import_module(name)
        run_in_steps(30)

    started = time.monotonic()
    with pytest.raises(TaskTimeout):
        place(lambda: limited(time_limit(0.1), body))
    assert sys.modules[name].complete
    assert 0.4 <= time.monotonic() - started < 5


@pytest.mark.usefixtures("short_grace")
def test_an_import_that_does_not_end_is_interrupted(
    place: Place, slow_module: Callable[..., str]
) -> None:
    name = slow_module(seconds=30)

    def import_it() -> None:
        importlib.import_module(name)

    started = time.monotonic()
    with pytest.raises(TaskTimeout):
        place(lambda: limited(time_limit(0.1), import_it))
    assert name not in sys.modules
    assert time.monotonic() - started < 10


def test_an_error_of_the_block_passes(place: Place) -> None:
    def body() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        place(lambda: limited(time_limit(5), body))


def test_a_system_call_is_ended_in_the_main_thread() -> None:
    started = time.monotonic()
    with pytest.raises(TaskTimeout):
        limited(time_limit(0.1), lambda: time.sleep(30))
    assert time.monotonic() - started < 5


def test_the_inner_limit_ends_the_inner_block(place: Place) -> None:
    def body() -> None:
        with pytest.raises(TaskTimeout, match=r"0\.1 s"):
            limited(time_limit(0.1), lambda: run_in_steps(30))
        run_in_steps(0.1)

    place(lambda: limited(time_limit(20), body))


def test_the_outer_limit_ends_both_blocks(place: Place) -> None:
    with pytest.raises(TaskTimeout, match=r"0\.1 s"):
        place(
            lambda: limited(
                time_limit(0.1), lambda: limited(time_limit(20), lambda: run_in_steps(30))
            )
        )


def test_the_handler_of_the_project_is_put_back_and_called() -> None:
    alarms: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda signum, frame: alarms.append(signum))
    try:
        with time_limit(5):
            signal.raise_signal(signal.SIGALRM)
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert alarms == [signal.SIGALRM] * 2


def test_an_alarm_while_a_limit_begins_is_that_of_the_limit_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if it came between the change of the handler and the next step."""

    def set_and_ring(number: int, handler: Callable[..., None]) -> None:
        signal.signal(number, handler)
        signal.raise_signal(signal.SIGALRM)

    with pytest.raises(TaskTimeout), time_limit(60) as around:
        around.fires = 1
        with monkeypatch.context() as patch:
            patch.setattr(timeouts, "_set_handler", set_and_ring)
            time_limit(60).__enter__()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_an_alarm_of_nobody_is_ignored_within_a_limit() -> None:
    with time_limit(5):
        signal.raise_signal(signal.SIGALRM)


@pytest.mark.slow
def test_a_thousand_blocks_that_end_within_a_millisecond_of_their_limit() -> None:
    """Nothing may come out but TaskTimeout or, in the very instant, TimeLimitExceeded.

    In a process without coverage, whose own lock an interrupt can leave locked.
    """
    run = subprocess.run(
        [sys.executable, "-m", "tests.close_to_the_limit"],
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
        cwd=Path(__file__).resolve().parents[4],
        capture_output=True,
        check=True,
        timeout=120,
    )
    counts = json.loads(run.stdout)
    assert sum(counts.values()) == 5 * 200
    assert counts.get("leaked", 0) == 0
    assert counts["done"] > 40
    assert counts["timeout"] > 40


def test_an_interrupt_while_the_limit_is_closed_does_not_come_out() -> None:
    """As if the watchdog struck between the end of the block and the end of ``__exit__``."""

    class Interrupted(time_limit):
        ends = 0

        def end(self) -> None:
            self.ends += 1
            if self.ends == 1:
                raise TimeLimitExceeded
            super().end()

    limit = Interrupted(5)
    with limit:
        pass
    assert limit.ends == 2


def test_a_limit_that_could_not_start_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(limit: time_limit) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGALRM)
    with monkeypatch.context() as patch:
        patch.setattr(timeouts._watchdog, "watch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            limited(time_limit(5), lambda: None)
    assert signal.getsignal(signal.SIGALRM) == handler


def test_a_foreign_interrupt_is_not_taken_for_a_timeout() -> None:
    def body() -> None:
        raise TimeLimitExceeded

    with pytest.raises(TimeLimitExceeded):
        limited(time_limit(5), body)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "GRACE", 0.1)


@pytest.mark.usefixtures("short_grace")
def test_a_blocked_call_is_reported_as_stuck(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    raised: list[BaseException] = []

    def wait() -> None:
        release.wait(20)

    def run() -> None:
        try:
            limited(time_limit(0.05, label=lambda: "blocker"), wait)
        except TaskTimeout as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    until(timeouts.stuck)
    assert [limit.label() for limit in timeouts.stuck()] == ["blocker"]
    until(lambda: "stuck task label=blocker" in caplog.text)
    release.set()
    thread.join(20)
    assert timeouts.stuck() == []
    assert "stuck task ended label=blocker" in caplog.text
    assert len(raised) == 1


@pytest.mark.usefixtures("short_grace")
def test_the_thread_of_a_stuck_block_is_named_outside_of_any_context() -> None:
    """Sentry's SDK, for one, keeps its tags in the context of the thread that starts another."""
    variable: ContextVar[str] = ContextVar("variable", default="empty")
    release, seen = threading.Event(), list[tuple[int, str]]()

    def note(thread_id: int) -> None:
        seen.append((thread_id, variable.get()))

    def run() -> None:
        variable.set("the task's")
        with suppress(TaskTimeout):
            limited(time_limit(0.05, on_stuck=note), lambda: assert_set(release))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: seen)
    release.set()
    thread.join(20)
    assert seen == [(thread.ident, "empty")]


def assert_set(event: threading.Event) -> None:
    assert event.wait(20)


def test_the_watchdog_is_not_woken_by_tasks_that_end_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited(time_limit(600), lambda: None)  # its thread starts with the first task
    until(lambda: timeouts._watchdog._wakes_at < math.inf)
    woken: list[None] = []
    monkeypatch.setattr(timeouts._watchdog._changed, "notify", lambda: woken.append(None))
    for _ in range(100):
        limited(time_limit(600), lambda: None)
    assert woken == []


def test_a_watchdog_is_ended_whether_it_runs_or_not() -> None:
    watchdog = timeouts._WatchdogThread()
    watchdog.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeouts, "_watchdog", watchdog)
        limited(time_limit(600), lambda: None)
        thread = watchdog._thread
        assert thread is not None
        timeouts.stop_watchdog()
    assert not thread.is_alive()


def test_a_watchdog_that_fails_watches_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory, for example. A process without it would have no time limit for ever."""
    errors = [MemoryError()]

    def fail_once(thread_id: int, *, is_late: bool) -> bool:
        if errors:
            raise errors.pop()
        return is_interruptible(thread_id, is_late=is_late)

    monkeypatch.setattr(timeouts, "is_interruptible", fail_once)
    with pytest.raises(TaskTimeout):
        limited(time_limit(0.1), lambda: spin(10))


def test_a_forked_child_has_a_watchdog_of_its_own() -> None:
    limited(time_limit(5), lambda: None)  # the parent's watchdog runs
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child
        try:
            limited(time_limit(0.1), lambda: spin(20))
        except TaskTimeout:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.usefixtures("short_grace")
def test_what_swallows_an_interrupt_is_interrupted_again(place: Place) -> None:
    swallowed: list[BaseException] = []

    def body() -> None:
        while True:
            try:
                run_in_steps(20)
            except BaseException as exc:
                swallowed.append(exc)
                if len(swallowed) == 3:
                    raise

    with pytest.raises(TaskTimeout):
        place(lambda: limited(time_limit(0.05), body))
    assert len(swallowed) == 3


@pytest.mark.usefixtures("short_grace")
@pytest.mark.slow
def test_an_outer_limit_whose_interrupt_an_inner_one_took_strikes_again(place: Place) -> None:
    """Both pass during one C call: the interpreter keeps one of the two interrupts."""

    def in_one_call() -> None:
        sum(range(30_000_000))

    def body() -> None:
        with suppress(TaskTimeout):
            limited(time_limit(0.05), in_one_call)
        run_in_steps(20)

    with pytest.raises(TaskTimeout):
        place(lambda: limited(time_limit(0.05), body))


def test_a_limit_that_an_outer_interrupt_kept_from_being_closed_is_closed_with_the_outer_one(
    place: Place,
) -> None:
    inner: list[time_limit] = []

    def body() -> None:
        inner.append(time_limit(20).__enter__())
        run_in_steps(20)

    with time_limit(10) as around:
        with pytest.raises(TaskTimeout):
            place(lambda: limited(time_limit(0.1), body))
        assert timeouts._watchdog.is_watched(around)
    assert not timeouts._watchdog.is_watched(inner[0])
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_no_limit_is_too_long_for_the_watchdog(place: Place) -> None:
    limited(time_limit(1e12), lambda: run_in_steps(0.05))
    test_a_loop_is_ended(place)


def test_a_watchdog_that_could_not_be_started_is_started_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeouts, "_watchdog", timeouts._WatchdogThread())

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            limited(time_limit(5), lambda: None)
    with pytest.raises(TaskTimeout):
        limited(time_limit(0.1), lambda: run_in_steps(20))


@pytest.mark.usefixtures("short_grace")
def test_without_a_thread_to_report_it_a_stuck_block_is_still_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def wait() -> None:
        release.wait(20)

    def run() -> None:
        with suppress(TaskTimeout):
            limited(time_limit(0.05), wait)

    limited(time_limit(5), lambda: None)  # the watchdog runs
    blocked = threading.Thread(target=run)
    blocked.start()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        until(timeouts.stuck)
    release.set()
    blocked.join(20)
    with pytest.raises(TaskTimeout):
        in_thread(lambda: limited(time_limit(0.1), lambda: run_in_steps(20)))


def test_an_interrupt_between_the_taking_of_the_lock_and_the_next_line_leaves_it_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Struck:
        """A lock whose taker is interrupted, before or after."""

        def __init__(self, *, has_it: bool) -> None:
            self.has_it = has_it

        def acquire(self) -> None:
            if self.has_it:
                lock.acquire()
            raise TimeLimitExceeded

        def release(self) -> None:
            lock.release()

    lock = timeouts._watchdog._lock
    for has_it in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(timeouts._watchdog, "_lock", Struck(has_it=has_it))
            for call in (timeouts._watchdog.watch, timeouts._watchdog.forget):
                with pytest.raises(TimeLimitExceeded):
                    call(time_limit(5))
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()


# --- an interrupt that has struck is a timeout, whatever the block made of it ---


def swallow(seconds: float) -> None:
    with suppress(BaseException):
        run_in_steps(seconds)


def test_a_block_that_swallows_the_interrupt_and_returns_has_timed_out(place: Place) -> None:
    def run() -> None:
        with time_limit(0.1):
            swallow(20)

    with pytest.raises(TaskTimeout):
        place(run)


def test_a_block_that_turns_the_interrupt_into_another_error_has_timed_out(place: Place) -> None:
    def run() -> None:
        with time_limit(0.1):
            swallow(20)
            raise ValueError("instead")

    with pytest.raises(TaskTimeout) as caught:
        place(run)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_the_main_thread_passes_all_the_same(error: type[BaseException]) -> None:
    with pytest.raises(error), time_limit(0.1):
        swallow(20)
        raise error


@pytest.mark.parametrize(("fires", "has_struck"), [(1, False), (2, True)])
def test_an_interrupt_that_is_still_on_its_way_has_not_struck_the_block(
    fires: int, has_struck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second interrupt replaces the first, which may have struck or not."""

    def strike() -> None:
        raise TimeLimitExceeded

    def run() -> None:
        monkeypatch.setattr(timeouts, "_let_interrupts_strike", strike)
        with time_limit(60) as limit:
            limit.fires = fires

    if has_struck:
        with pytest.raises(TaskTimeout):
            in_thread(run)
    else:
        in_thread(run)
