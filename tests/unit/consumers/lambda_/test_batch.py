"""A batch on Lambda: what is run, what is reported, and in which time."""

from __future__ import annotations

import builtins
import logging
import time
from typing import Any

import pytest

from beanstalk_dispatch.consumers.lambda_.batch import RESERVE_SECONDS, Batch, LambdaConsumer
from beanstalk_dispatch.exceptions import NoTimeLeft, TaskTimeout
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.safe_task import SafeTask
from tests import jobs
from tests.conftest import Environment
from tests.lambda_events import record, task

pytestmark = pytest.mark.usefixtures("function")


class SlowHook(SafeTask):
    """Runs for too long, and so do its hooks."""

    verbose = False

    def run(self) -> None:
        jobs.run_in_steps(30)

    def on_error(self, e: BaseException, /, *args: Any, **kwargs: Any) -> None:
        jobs.calls.append(("on_error", type(e)))
        jobs.run_in_steps(30)


class ExitsHooked(SafeTask):
    verbose = False

    def run(self, kind: str) -> None:
        raise getattr(builtins, kind)

    def on_error(self, e: BaseException, /, *args: Any, **kwargs: Any) -> None:
        jobs.calls.append(("on_error", type(e).__name__))


def run(*records: dict[str, Any], seconds: float = 60) -> list[int]:
    """The positions of the records that are reported."""
    ids = [each["messageId"] for each in records]
    return [ids.index(each) for each in Batch(records, seconds=seconds).run()]


def test_what_is_done_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert run(task("record", 1), task("record", 2)) == []
    assert jobs.calls == [((1,), {}), ((2,), {})]
    assert "batch queue=jobs records=2 reported=0 unstarted=0 ms=" in caplog.text


def test_an_empty_batch_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert run() == []
    assert "batch queue=None records=0" in caplog.text


def test_only_what_fails_is_reported() -> None:
    records = [task("record", 1), task("fail"), record("not a message"), task("record", 2)]
    assert run(*records) == [1, 2]
    assert jobs.calls == [((1,), {}), ((2,), {})]


def test_a_failure_that_is_acknowledged_is_not_reported(function: Environment) -> None:
    function(DISPATCH_ON_FAILURE="acknowledge")
    assert run(task("fail")) == []


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
def test_an_exit_of_a_task_is_its_failure(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks run in the main thread, where it would end the function."""
    assert run(task("exits-hooked", kind), task("record", 1)) == [0]
    assert jobs.calls == [("on_error", kind), ((1,), {})]
    assert "function=exits-hooked outcome=failed" in caplog.text
    assert RUNNING.now() == []


def test_a_fault_of_this_package_costs_one_record(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise SystemExit(3)

    monkeypatch.setattr("beanstalk_dispatch.running.pipeline.run_delivery", fail)
    assert run(task("record", 1), task("record", 2)) == [0, 1]
    assert "record failed id=sqs-" in caplog.text
    assert "error=SystemExit: 3" in caplog.text


def test_a_message_that_this_process_has_finished_does_not_run_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    again = task("record", 1)
    assert run(again, again) == []
    assert len(jobs.calls) == 1
    assert "proxy_read_timeout" not in caplog.text


def test_an_empty_body_of_a_periodic_task_runs_it(function: Environment) -> None:
    function(DISPATCH_PERIODIC_TASKS="record")
    assert run(record("ignored", beanstalk_sqsd_task_name="record")) == []
    assert jobs.calls == [((), {})]


# --- FIFO ------------------------------------------------------------------------------------


def test_a_group_stops_at_its_first_failure_and_others_run() -> None:
    def one(function: str, *args: Any, group: str) -> dict[str, Any]:
        return task(function, *args, queue="q.fifo", group=group)

    records = [
        one("record", "a1", group="a"), one("fail", group="a"), one("record", "b1", group="b"),
        one("record", "a3", group="a"), one("record", "b2", group="b"),
    ]  # fmt: skip
    assert run(*records) == [1, 3]
    assert [args[0] for args, _ in jobs.calls] == ["a1", "b1", "b2"]


def test_on_a_standard_queue_a_group_is_no_order() -> None:
    """SQS takes a group id there too, for fairness between tenants."""
    assert run(task("fail", group="a"), task("record", 1, group="a")) == [0]
    assert jobs.calls == [((1,), {})]


# --- time ------------------------------------------------------------------------------------


def test_the_limit_is_what_the_invocation_has_left(caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    assert run(task("loop", 30), seconds=RESERVE_SECONDS + 0.3) == [0]
    assert time.monotonic() - started < 15
    assert "outcome=timed-out" in caplog.text


def test_the_tasks_own_limit_holds_if_it_is_shorter(caplog: pytest.LogCaptureFixture) -> None:
    assert run(task("loop", 30, options={"timeout": 0.2})) == [0]
    assert "time limit of 0.2 s exceeded" in caplog.text


def test_hooks_have_a_part_of_the_reserve() -> None:
    started = time.monotonic()
    assert run(task("slow-hook"), seconds=RESERVE_SECONDS + 0.2) == [0]
    assert jobs.calls == [("on_error", TaskTimeout)]
    assert time.monotonic() - started < 15


@pytest.mark.slow
def test_what_does_not_fit_any_more_is_reported_unstarted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The default limit, two minutes, is longer than the invocation: the first half counts."""
    caplog.set_level(logging.INFO)
    records = [task("nap", 0.6), task("record", 1), task("record", options={"timeout": 0.9})]
    assert run(*records, seconds=RESERVE_SECONDS + 1) == [1, 2]
    assert jobs.calls == [("nap", 0.6)]
    assert "outcome=overdue" in caplog.text
    assert "reported=2 unstarted=2" in caplog.text


def test_once_no_time_is_left_no_record_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert run(task("record", 1), task("record", 2), seconds=0.5) == [0, 1]
    assert jobs.calls == []
    assert "reported=2 unstarted=2" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "passed", "limit", "starts"),
    [
        (899, 0, 120, True),
        (899, 700, 120, True),
        (899, 790, 120, False),
        (899, 890, 5, True),
        (60, 20, 120, True),  # longer than any invocation: in its first half
        (60, 31, 120, False),
    ],
)
def test_a_later_task_starts_if_its_limit_is_left(
    monkeypatch: pytest.MonkeyPatch, seconds: float, passed: float, limit: float, starts: bool
) -> None:
    consumer = LambdaConsumer(seconds=seconds)
    now = clock.monotonic() + passed
    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: now)
    consumer.task_starts(10_000)  # the first one always does
    if starts:
        consumer.task_starts(limit)
    else:
        with pytest.raises(NoTimeLeft, match=f"its time limit is {limit} s, and "):
            consumer.task_starts(limit)
