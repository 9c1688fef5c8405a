"""What a backend of Django's task framework must do for a project, as tests for any backend.

    class TestMyBackend(BackendConformance):
        def run_tasks(self):
            ...  # have a worker run what was enqueued, until nothing is left

pytest collects the class. A part that the backend does not support, by its own flags, is skipped.
A worker in another process must be able to import this module, and to run its tasks.
https://docs.djangoproject.com/en/stable/ref/tasks/
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import SkipTest

from django.utils import timezone

from beanstalk_dispatch.contrib.tasks.library import (
    DEFAULT_TASK_BACKEND_ALIAS,
    DEFAULT_TASK_QUEUE_NAME,
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from beanstalk_dispatch.contrib.tasks.policy import task

# --- tasks -----------------------------------------------------------------------------------


@task
def echo(*args: Any, **kwargs: Any) -> Any:
    """Return the arguments."""
    return [args, kwargs]


@task
def fail(reason: str) -> None:
    """Raise an error."""
    raise ValueError(reason)


@task
def return_a_set() -> Any:
    """Return what is not JSON."""
    return {1, 2}


@task
def empty(items: list[int]) -> int:
    """Change an argument."""
    count = len(items)
    items.clear()
    return count


@task
async def wait_and_echo(value: str) -> str:
    """Await something."""
    await asyncio.sleep(0)
    return value


@task(takes_context=True)
def describe(context: Any, value: str) -> Any:
    """Return what the context says."""
    result = context.task_result
    return [context.attempt, result.id, str(result.status), list(result.args), value]


@task(max_attempts=3, backoff=0, takes_context=True)
def succeed_third(context: Any) -> int:
    """Succeed in the third attempt."""
    if context.attempt < 3:
        raise ConnectionError("not yet")
    return int(context.attempt)


@task(max_attempts=2, backoff=0)
def fail_twice() -> None:
    """Fail in each attempt."""
    raise ConnectionError("not ever")


# --- tests -----------------------------------------------------------------------------------


@contextmanager
def raises(*errors: type[BaseException]) -> Iterator[None]:
    """Fail unless the block raises one of these errors."""
    try:
        yield
    except errors:
        return
    raise AssertionError(f"expected {' or '.join(each.__name__ for each in errors)}")


def skip_unless(condition: object, reason: str) -> None:
    """Skip the test unless a condition holds."""
    if not condition:
        raise SkipTest(reason)


class BackendConformance:
    """Tests of the backend ``alias``. A subclass says how its tasks are run."""

    alias = DEFAULT_TASK_BACKEND_ALIAS
    """The backend's name in TASKS."""
    queue_name = DEFAULT_TASK_QUEUE_NAME
    """A queue of the backend."""

    def run_tasks(self) -> None:
        """Have a worker run what was enqueued, with its retries, until nothing is left to run."""
        raise NotImplementedError

    # --- what the tests need ---------------------------------------------------------------------

    @property
    def backend(self) -> Any:
        """The backend that is tested."""
        return task_backends[self.alias]

    def task(self, original: Any) -> Any:
        """A task of this module, for the backend."""
        return original.using(backend=self.alias, queue_name=self.queue_name)

    def finish(self, result: Any) -> Any:
        """The result when its task has ended."""
        self.run_tasks()
        if self.backend.supports_get_result:
            result.refresh()
        skip_unless(result.is_finished, "the backend has no results")
        return result

    @contextmanager
    def signals(self) -> Iterator[list[tuple[Any, ...]]]:
        """What the receivers of the three signals see meanwhile."""
        seen: list[tuple[Any, ...]] = []

        def receiver(name: str) -> Callable[..., None]:
            def receive(sender: Any, task_result: Any, **kwargs: Any) -> None:
                assert sender is type(self.backend)
                seen.append((name, str(task_result.status), task_result.attempts))

            return receive

        receivers = {
            signal: receiver(name)
            for name, signal in (
                ("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)
            )
        }  # fmt: skip
        for signal, each in receivers.items():
            signal.connect(each)
        try:
            yield seen
        finally:
            for signal, each in receivers.items():
                signal.disconnect(each)

    # --- enqueuing -------------------------------------------------------------------------------

    def test_enqueue_returns_a_result_with_an_id_of_its_own(self) -> None:
        results = [self.task(echo).enqueue(number) for number in range(3)]
        assert len({each.id for each in results}) == 3
        assert all(isinstance(each.id, str) and 0 < len(each.id) <= 64 for each in results)
        assert {each.backend for each in results} == {self.alias}
        assert results[0].task.func is echo.func
        assert results[0].enqueued_at is not None

    def test_arguments_become_json(self) -> None:
        result = self.task(echo).enqueue((1, 2), key=b"bytes")
        assert (result.args, result.kwargs) == ([[1, 2]], {"key": "bytes"})

    def test_an_argument_that_is_not_json_is_refused(self) -> None:
        with raises(TypeError, ValueError):
            self.task(echo).enqueue(object())

    def test_coroutines_enqueue(self) -> None:
        result = asyncio.run(self.task(echo).aenqueue(1))
        assert result.id

    def test_a_function_that_is_not_at_module_level_is_refused(self) -> None:
        def local() -> None:
            """Has no name that a worker could find."""

        with raises(InvalidTask):
            replace(self.task(echo), func=local)

    def test_a_context_needs_an_argument(self) -> None:
        with raises(InvalidTask):
            replace(self.task(fail), takes_context=True)

    def test_an_unknown_queue_is_refused(self) -> None:
        skip_unless(self.backend.queues, "the backend takes any queue")
        with raises(InvalidTask):
            echo.using(backend=self.alias, queue_name="no-such-queue")

    def test_a_priority_is_in_range_or_refused(self) -> None:
        wrong = (-101, 101) if self.backend.supports_priority else (1, -1)
        for priority in wrong:
            with raises(InvalidTask):
                self.task(echo).using(priority=priority)

    def test_a_deferred_task_waits(self) -> None:
        later = timezone.now() + timedelta(hours=1)
        if not self.backend.supports_defer:
            with raises(InvalidTask):
                self.task(echo).using(run_after=later)
            return
        result = self.task(echo).using(run_after=later).enqueue()
        self.run_tasks()
        if self.backend.supports_get_result:
            result.refresh()
        assert result.status == "READY"

    def test_the_checks_are_messages(self) -> None:
        assert [each for each in self.backend.check() if each.is_serious()] == []

    # --- running ---------------------------------------------------------------------------------

    def test_a_task_succeeds_with_a_json_value(self) -> None:
        result = self.finish(self.task(echo).enqueue(1, key=[2]))
        assert result.status == "SUCCESSFUL"
        assert result.return_value == [[1], {"key": [2]}]
        assert (result.attempts, result.errors) == (1, [])
        assert all(0 < len(each) <= 64 for each in result.worker_ids)

    def test_its_times_are_in_order(self) -> None:
        result = self.finish(self.task(echo).enqueue())
        times = [result.enqueued_at, result.started_at, result.finished_at]
        assert sorted(times) == times
        assert result.last_attempted_at == result.started_at

    def test_a_task_fails_with_its_error(self) -> None:
        result = self.finish(self.task(fail).enqueue("the reason"))
        assert result.status == "FAILED"
        assert result.errors[-1].exception_class is ValueError
        assert "the reason" in result.errors[-1].traceback
        with raises(ValueError):
            result.return_value  # noqa: B018

    def test_a_value_that_is_not_json_is_a_failure(self) -> None:
        result = self.finish(self.task(return_a_set).enqueue())
        assert result.status == "FAILED"

    def test_a_task_has_its_own_arguments(self) -> None:
        items = [1, 2]
        result = self.finish(self.task(empty).enqueue(items))
        assert result.return_value == 2
        assert items == [1, 2]

    def test_a_task_gets_its_context(self) -> None:
        result = self.finish(self.task(describe).enqueue("value"))
        assert result.return_value == [1, result.id, "RUNNING", ["value"], "value"]

    def test_a_coroutine_function_runs_or_is_refused(self) -> None:
        if not self.backend.supports_async_task:
            with raises(InvalidTask):
                self.task(wait_and_echo)
            return
        result = self.finish(self.task(wait_and_echo).enqueue("value"))
        assert result.return_value == "value"

    # --- signals ---------------------------------------------------------------------------------

    def test_each_signal_is_sent_once(self) -> None:
        with self.signals() as seen:
            self.task(echo).enqueue()
            self.run_tasks()
        assert seen == [
            ("enqueued", "READY", 0), ("started", "RUNNING", 1), ("finished", "SUCCESSFUL", 1)
        ]  # fmt: skip

    def test_a_failure_is_the_end(self) -> None:
        with self.signals() as seen:
            self.task(fail).enqueue("reason")
            self.run_tasks()
        assert [name for name, *_ in seen] == ["enqueued", "started", "finished"]
        assert seen[-1] == ("finished", "FAILED", 1)

    def test_retries_have_one_end(self) -> None:
        skip_unless(hasattr(self.task(succeed_third), "max_attempts"), "no policy")
        for each, end in ((succeed_third, "SUCCESSFUL"), (fail_twice, "FAILED")):
            attempts = self.task(each).max_attempts
            with self.signals() as seen:
                self.task(each).enqueue()
                self.run_tasks()
            skip_unless(seen[-1][2] > 1, "the backend has no retries")
            assert [name for name, *_ in seen] == ["enqueued", *["started"] * attempts, "finished"]
            assert seen[-1] == ("finished", end, attempts)

    # --- results ---------------------------------------------------------------------------------

    def test_a_result_is_found_by_its_id(self) -> None:
        skip_unless(self.backend.supports_get_result, "the backend has no results")
        result = self.task(echo).enqueue()
        assert self.task(echo).get_result(result.id).id == result.id
        assert asyncio.run(self.task(echo).aget_result(result.id)).id == result.id
        with raises(TaskResultMismatch):
            self.task(fail).get_result(result.id)
        with raises(TaskResultDoesNotExist):
            self.backend.get_result("no-such-id")

    def test_a_result_is_found_in_another_thread(self) -> None:
        skip_unless(self.backend.supports_get_result, "the backend has no results")
        result = self.finish(self.task(echo).enqueue(5))
        found: list[Any] = []

        def look() -> None:
            found.append(task_backends[self.alias].get_result(result.id).return_value)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert found == [[[5], {}]]

    def test_a_result_can_be_refreshed(self) -> None:
        skip_unless(self.backend.supports_get_result, "the backend has no results")
        result = self.task(echo).enqueue()
        self.run_tasks()
        asyncio.run(result.arefresh())
        assert result.status == "SUCCESSFUL"

    def test_without_results_there_is_none_to_get(self) -> None:
        skip_unless(not self.backend.supports_get_result, "the backend has results")
        with raises(Exception):
            self.backend.get_result("no-such-id")
