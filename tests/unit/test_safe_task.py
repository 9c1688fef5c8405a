"""The keywords that SafeTask and ``@task`` have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.tasks import SQSTask, task
from beanstalk_dispatch.contrib.tasks.policy import Policy, apply_policy
from beanstalk_dispatch.running.definitions.options import options_to_send, time_limit_of
from beanstalk_dispatch.running.retries import decide, retry_delay
from beanstalk_dispatch.safe_task import POLICY, SafeTask
from beanstalk_dispatch.testing import capture_tasks
from tests import jobs
from tests.conftest import TABLE, Environment

KEYWORDS: dict[str, Any] = {
    "max_attempts": 3,
    "backoff": 0,
    "timeout": timedelta(seconds=20),
    "retry_on": (OSError,),
}


class Report(SafeTask, **KEYWORDS):
    def run(self) -> None: ...


def same_for_django() -> SafeTask:
    decorate: Any = task(**KEYWORDS)
    made = decorate(jobs.record)
    safe_task = SafeTask()
    apply_policy(made, safe_task, lambda: pytest.fail("no result is needed"))
    return safe_task


def test_the_keywords_are_the_same() -> None:
    assert [*POLICY] == [*Policy.__annotations__]
    assert all(hasattr(SQSTask, name) and hasattr(SafeTask, POLICY[name]) for name in POLICY)


@pytest.mark.parametrize("made", [Report(), same_for_django()])
def test_they_mean_the_same_for_a_class_and_for_a_django_task(made: SafeTask) -> None:
    retried = [decide(made, OSError(), attempt).is_retried for attempt in (1, 2, 3)]
    assert retried == [True, True, False]
    assert not decide(made, ValueError(), 1).is_retried
    assert (time_limit_of(made), retry_delay(made, None, 1)) == (20, 0)


def test_a_function_gives_the_delay_of_a_class() -> None:
    class Slow(SafeTask, backoff=lambda exception, attempt: 7 * attempt):
        def run(self) -> None: ...

    class Slower(Slow, max_attempts=2, backoff=None):
        retry_on = (OSError,)

    assert retry_delay(Slower(), None, 3) == 21
    assert (Slower.max_retries, Slower.retry_on, Slow.max_retries) == (1, (OSError,), None)


def test_one_call_has_them_too_and_sends_them_as_before(env: Environment) -> None:
    env(DISPATCH_TABLE=TABLE)
    wrapped = SafeTask(jobs.record, max_attempts=3, backoff=5, timeout=20, verbose=False)
    old = SafeTask(jobs.record, max_retries=2, retry_backoff=5, timeout_timedelta=20, verbose=False)
    with capture_tasks() as tasks:
        schedule_function("mail", wrapped)
    assert tasks[0].message.options == options_to_send(old)


@pytest.mark.parametrize("attempts", [0, -1, True, "3", 1.5])
def test_a_wrong_number_of_attempts_is_refused(attempts: object) -> None:
    problem = f"max_attempts is {attempts!r}; expected a whole number of 1 or more."
    with pytest.raises(ValueError, match=problem):
        SafeTask(jobs.record, max_attempts=attempts)
    with pytest.raises(ValueError, match=problem):
        type("Wrong", (SafeTask,), {}, max_attempts=attempts)


def test_a_wrong_isolation_is_refused() -> None:
    with pytest.raises(ValueError, match="isolation is 'alone'; expected thread, process, fresh."):
        type("Wrong", (SafeTask,), {}, isolation="alone")


def test_an_unknown_keyword_of_a_class_is_named_beside_those_that_exist() -> None:
    problem = "takes no keyword arguments: 'max_retries'; known: max_attempts, backoff, timeout, "
    with pytest.raises(TypeError, match=problem):
        type("Wrong", (SafeTask,), {}, max_retries=3)


def test_two_words_of_one_meaning_are_refused() -> None:
    problem = "max_retries is set, and by max_attempts again; write one of them"
    with pytest.raises(TypeError, match=problem):
        SafeTask(jobs.record, max_attempts=3, max_retries=2)
    with pytest.raises(TypeError, match=problem):
        type("Twice", (SafeTask,), {"max_retries": 2}, max_attempts=3)


def test_a_retry_is_raised_and_not_called() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'retry'; write raise Retry\(delay=…\)"):
        getattr(Report(), "retry")  # noqa: B009 - mypy knows that there is none


@pytest.mark.parametrize("word", ["delay", "apply_async"])
def test_the_words_of_celery_say_what_to_write(word: str) -> None:
    with pytest.raises(AttributeError, match=f"'Report' has no attribute '{word}'; write schedule"):
        getattr(Report, word)
    task = SQSTask(func=jobs.record, priority=0, queue_name="q", backend="default", run_after=None)
    with pytest.raises(AttributeError, match=rf"no attribute '{word}'; write task\..*enqueue\("):
        getattr(task, word)


def test_the_keywords_of_another_base_reach_it() -> None:
    class Labelled:
        label = ""

        def __init_subclass__(cls, *, label: str, **options: Any) -> None:
            super().__init_subclass__(**options)
            cls.label = label

    class Both(SafeTask, Labelled, label="x", timeout=5):
        timeout = "an attribute of the project"

    assert (Both.label, Both.timeout_timedelta, Both.timeout) == (
        "x", 5, "an attribute of the project",
    )  # fmt: skip
