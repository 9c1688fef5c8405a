"""The project's code outside of ``run`` and the hooks cannot keep a thread for ever."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from beanstalk_dispatch import signals
from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running.limits import outer_limit
from beanstalk_dispatch.running.limits import time_limit as timeouts
from beanstalk_dispatch.running.limits.outer_limit import call_import, call_within_outer_limit
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded, time_limit
from beanstalk_dispatch.running.stages.limit import label
from beanstalk_dispatch.safe_task import SafeTask
from tests.conftest import Environment
from tests.runs import deliver, run_of
from tests.services import until


def hang(*args: object, **kwargs: object) -> NoReturn:
    while True:
        time.sleep(0.001)


class HangsInInit(SafeTask):
    def __init__(self) -> None:
        hang()


class HangsInBackoff(SafeTask):
    max_retries = 1
    retry_backoff = hang
    verbose = False

    def run(self) -> None:
        raise ValueError


class Endless(Exception):
    __str__ = hang


class HangsInStr(SafeTask):
    def run(self) -> None:
        raise Endless


class HangsInProcess(SafeTask):
    def process(self, *args: Any, **kwargs: Any) -> None:
        super().process(*args, **kwargs)
        hang()

    def run(self) -> None:
        pass


class FailsInProcess(SafeTask):
    def process(self, *args: Any, **kwargs: Any) -> None:
        raise Endless


class HangsInStrOfHook(SafeTask):
    def run(self) -> None:
        pass

    def on_success(self) -> None:
        raise Endless


class HangingObserver(Observer):
    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        if delivery.receive_count == 1:
            hang()
        yield
        hang()


class Unspeakable(Observer):
    def attempting(self, task: SafeTask, delivery: RunView) -> Any:
        raise Endless


class Observed(SafeTask):
    observers = (HangingObserver(),)

    def run(self) -> None:
        pass


class ObservedUnspeakably(SafeTask):
    observers = (Unspeakable(),)

    def run(self) -> None:
        pass


class TakesItsTimes(SafeTask):
    """``run`` and a hook take almost as long as they may, within a ``process`` of its own."""

    timeout_timedelta = 0.5

    def process(self, *args: Any, **kwargs: Any) -> None:
        super().process(*args, **kwargs)

    def run(self) -> None:
        work(0.4)

    def on_success(self) -> None:
        work(0.4)


def work(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer_limit, "OUTER_SECONDS", 0.2)
    monkeypatch.setattr(outer_limit, "IMPORT_SECONDS", 0.3)
    monkeypatch.setattr(timeouts, "GRACE", 0.1)
    monkeypatch.setattr(timeouts, "PULSE", 0.1)


def run(env: Environment, task: str, **facts: Any) -> tuple[Outcome, float]:
    """Run a task in a thread; its outcome, and the seconds that it took."""
    env(WORKER=True, DISPATCH_TABLE=f"culprit={task}", DISPATCH_TASK_TIMEOUT="0.1s")
    outcomes: list[Outcome] = []
    body = Message(function="culprit", id="task-1").encode(queue="q")
    started = time.monotonic()
    thread = threading.Thread(
        target=lambda: outcomes.append(deliver(body, Delivery(queue="q", **facts)).outcome)
    )
    thread.start()
    thread.join(20)
    return outcomes[0], time.monotonic() - started


@pytest.mark.parametrize(
    ("task", "outcome", "line"),
    [
        ("HangsInInit", Outcome.TIMED_OUT, "SafeTask failed outside of its run() id=task-1"),
        ("HangsInBackoff", Outcome.FAILED, "retry options are wrong id=task-1 function=culprit"),
        ("HangsInStr", Outcome.TIMED_OUT, "time limit of 0.3 s exceeded by the __str__ of Endless"),
        ("HangsInProcess", Outcome.TIMED_OUT, "failed outside of its run() id=task-1"),
        ("FailsInProcess", Outcome.TIMED_OUT, "exceeded by the __str__ of Endless"),
        ("TakesItsTimes", Outcome.DONE, ""),
        ("HangsInStrOfHook", Outcome.DONE, "hook failed hook=on_success id=task-1"),
        ("Observed", Outcome.DONE, "observer failed observer=HangingObserver stage=attempting"),
        ("ObservedUnspeakably", Outcome.DONE, "exceeded by the __str__ of Endless"),
    ],
)
def test_what_hangs_is_ended_and_named(
    task: str, outcome: Outcome, line: str, env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    came, seconds = run(env, f"{__name__}.{task}")
    assert (came, seconds < 5) == (outcome, True)
    assert line in caplog.text


class Exits(Observer):
    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        yield
        raise SystemExit(3)


class Exited(SafeTask):
    observers = (Exits(),)

    def run(self) -> None:
        pass


def test_a_task_is_done_whatever_those_who_watch_it_raise(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    def exits(**arguments: Any) -> None:
        raise GeneratorExit

    signals.delivery_finished.connect(exits)
    try:
        assert run(env, f"{__name__}.Exited")[0] is Outcome.DONE
    finally:
        signals.delivery_finished.disconnect(exits)
    assert "observer=Exits stage=attempting moment=end error=SystemExit: 3" in caplog.text
    line = "signal=delivery_finished task='culprit id=task-1' error=GeneratorExit: "
    assert f"signal receivers failed {line}" in caplog.text


@pytest.mark.usefixtures("env")
def test_what_is_for_the_process_passes_those_who_watch() -> None:
    def exits(**arguments: Any) -> None:
        raise SystemExit(3)

    signals.delivery_finished.connect(exits)
    try:
        with pytest.raises(SystemExit):
            outer_limit.send_signal("delivery_finished", signals.delivery_finished, sender=None)
    finally:
        signals.delivery_finished.disconnect(exits)


def test_a_limit_around_the_caller_passes_a_task_that_hangs_before_its_run(
    env: Environment,
) -> None:
    env(DISPATCH_TABLE=f"culprit={__name__}.HangsInInit", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    went_on: list[str] = []

    def call() -> None:
        with time_limit(0.1):
            went_on.append(schedule_function("q", "culprit"))

    with ThreadPoolExecutor(1) as pool, pytest.raises(TaskTimeout):
        pool.submit(call).result(20)
    assert went_on == []


def test_an_observer_that_hangs_at_its_end(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(env, f"{__name__}.Observed", receive_count=2)[0] is Outcome.DONE
    assert "observer failed observer=HangingObserver stage=attempting moment=end" in caplog.text


@pytest.mark.parametrize("name", ["task_started", "task_finished", "delivery_finished"])
def test_a_receiver_that_hangs(
    name: str, env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    signal = getattr(signals, name)
    signal.connect(hang)
    try:
        assert run(env, "tests.jobs.record")[0] is Outcome.DONE
    finally:
        signal.disconnect(hang)
    assert f"signal receivers failed signal={name} task='culprit id=task-1'" in caplog.text


def test_an_import_that_hangs(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_module.py").write_text("import time\nwhile True:\n    time.sleep(0.001)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run(env, "hanging_module.task")[0] is Outcome.UNAVAILABLE
    assert "hanging_module" not in sys.modules


def test_an_import_may_take_longer_than_a_short_time_limit(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each process would begin it again, and none would end it."""
    module = tmp_path / "slow_module.py"
    module.write_text(f"from {__name__} import work as task\ntask(0.6)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(outer_limit, "IMPORT_SECONDS", 20.0)
    env(WORKER=True, DISPATCH_TABLE="slow=slow_module.task", DISPATCH_TASK_TIMEOUT="0.1s")
    body = Message(function="slow", args=[0]).encode(queue="q")
    with ThreadPoolExecutor(4) as pool:
        came = list(pool.map(lambda _: deliver(body, Delivery(queue="q")).outcome, range(4)))
    assert came == [Outcome.DONE] * 4
    assert timeouts.stuck() == []


def test_our_own_code_that_hangs_is_reported_once_and_not_interrupted(
    env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hang_in_c(*args: object) -> None:
        until(timeouts.stuck)
        time.sleep(0.3)

    monkeypatch.setattr("beanstalk_dispatch.running.stages.restore.put_right", hang_in_c)
    assert run(env, "tests.jobs.record")[0] is Outcome.DONE
    assert caplog.text.count("stuck task label=culprit id=task-1") == 1
    assert timeouts.stuck() == []


@pytest.mark.usefixtures("env")
def test_a_message_that_cannot_be_read_is_named_by_its_delivery() -> None:
    assert label(run_of(message_id="m-1")) == "message_id=m-1"


def test_outside_of_a_delivery_there_is_no_limit() -> None:
    before = timeouts._watchdog._limits
    for call in (call_within_outer_limit, call_import):
        assert call(lambda: timeouts._watchdog._limits) is before
    outer_limit.allow(5)
    outer_limit.set_task_limit(5)


def test_the_interrupt_of_a_limit_around_it_passes(env: Environment) -> None:
    def interrupted() -> None:
        raise TimeLimitExceeded

    with outer_limit.OuterLimit(5, str), pytest.raises(TimeLimitExceeded):
        call_within_outer_limit(interrupted)


def test_a_timeout_of_the_projects_own_is_no_interrupt(env: Environment) -> None:
    def fails() -> None:
        raise TaskTimeout("own")

    with outer_limit.OuterLimit(5, str), pytest.raises(TaskTimeout, match="own"):
        call_within_outer_limit(fails)


def test_an_interrupt_in_the_instant_in_which_the_code_ends(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(time_limit):
        def __exit__(self, *args: object) -> None:
            self.end()
            self.fires = 1
            raise TimeLimitExceeded

    with outer_limit.OuterLimit(5, str):
        monkeypatch.setattr(outer_limit, "time_limit", Late)
        with pytest.raises(TaskTimeout):
            call_within_outer_limit(int)
