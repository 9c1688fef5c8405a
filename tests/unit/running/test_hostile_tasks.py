"""A project's SafeTask may use every attribute name that is not documented.

Each class here has, or sets in its ``run``, what a run of it could be confused by.
"""

from __future__ import annotations

from typing import Any

import pytest

from beanstalk_dispatch import safe_task
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.run import DONE
from beanstalk_dispatch.safe_task import SafeTask
from tests.runs import attempt

# The private names that the class had once, and those that one would think of.
NAMES = [
    "_limit", "_failed", "_delay", "_hook", "_outcome", "_exception", "_retry_delay", "_is_final",
    "_on_done", "_label", "_within_limit", "_retry_limit", "_log_failure", "_run", "_call", "_end",
    "_message", "_delivery", "_attempt", "outcome", "exception", "attempt", "options", "apply",
    "label", "limit", "state", "status", "result", "started", "message", "cancelled",
]  # fmt: skip
VALUES: list[Any] = [100, None, "text", [], print]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_class_attribute_of_any_name_changes_nothing(value: Any) -> None:
    for name in NAMES:
        run_with_attribute(name, value)


def run_with_attribute(name: str, value: Any) -> None:
    seen: list[Any] = []

    def work(self: Any) -> None:
        seen.append(getattr(self, name))
        setattr(self, name, "set by run")

    done = type("Hostile", (SafeTask,), {name: value, "run": work})
    assert attempt(done()).attempted == DONE
    assert seen == [value] or callable(value)

    def failing(self: Any) -> None:
        setattr(self, name, value)
        raise ValueError

    failed = type("Failing", (SafeTask,), {"run": failing, "max_retries": 1, "verbose": False})
    assert attempt(failed()).outcome is Outcome.RETRY
    assert attempt(failed(), number=2).attempted.is_final


def test_a_task_may_have_an_attribute_named_cancelled() -> None:
    seen: list[object] = []

    class Own(SafeTask):
        def run(self) -> None:
            seen.append(self.cancelled)
            self.cancelled = True
            seen.append(self.cancelled)

    assert attempt(Own()).outcome is Outcome.DONE
    assert seen == [False, True]


def test_nothing_is_left_in_the_object() -> None:
    class Plain(SafeTask):
        def run(self) -> None:
            pass

    task = Plain()
    before = {"delivery"}
    attempt(task)
    assert vars(task).keys() == before
    assert safe_task.PROCESSES == {}


def test_a_task_may_overwrite_its_delivery() -> None:
    class Overwrites(SafeTask):
        max_retries = 1
        verbose = False

        def run(self) -> None:
            self.delivery = None
            raise ValueError

    run = attempt(Overwrites())
    assert (run.attempted.outcome, run.outcome) == (Outcome.RETRY, Outcome.RETRY)


def test_a_task_may_be_unhashable_equal_to_all_and_without_a_truth_value() -> None:
    class Odd(SafeTask):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

        __bool__ = None  # nobody may ask

        def run(self) -> None:
            pass

    assert attempt(Odd()).outcome is Outcome.DONE
    assert Odd() == 5


def test_a_process_that_runs_in_another_thread_is_the_same_run() -> None:
    import threading

    class Elsewhere(SafeTask):
        verbose = False

        def process(self, *args: Any, **kwargs: Any) -> None:
            thread = threading.Thread(target=super().process)
            thread.start()
            thread.join(20)

        def run(self) -> None:
            raise ValueError

    assert attempt(Elsewhere()).outcome is Outcome.FAILED


def test_options_that_cannot_be_read_after_a_failure_leave_it_to_redelivery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Wrong(SafeTask):
        max_retries = "3"  # type: ignore[assignment]

        def run(self) -> None:
            raise ValueError("the work")

    came = attempt(Wrong())
    assert (came.outcome, str(came.exception)) == (Outcome.FAILED, "the work")
    assert came.attempted.retry_after is None  # 0 would use up its receives in a moment
    assert "retry options are wrong" in caplog.text
