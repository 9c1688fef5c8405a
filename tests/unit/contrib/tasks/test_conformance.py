"""The conformance suite: ours passes it on every consumer, and so do Django's own backends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import SkipTest

import pytest
from django.test import Client, override_settings
from django.urls import reverse

from beanstalk_dispatch.consumers.lambda_.batch import Batch
from beanstalk_dispatch.consumers.poller.runners import run_here
from beanstalk_dispatch.contrib.tasks import library
from beanstalk_dispatch.sqs.opening import open_queue
from tests import conformance
from tests.conformance import BackendConformance, raises
from tests.conftest import Environment
from tests.lambda_events import record_of
from tests.workers import drain

DJANGOS = f"{library.PACKAGE}.backends"  # type: ignore[attr-defined]


@pytest.fixture
def conforming(results_env: Environment) -> Environment:
    results_env(DISPATCH_TASKS=conformance.__name__, DISPATCH_ON_FAILURE="acknowledge")
    return results_env


@pytest.mark.usefixtures("conforming")
class TestThePoller(BackendConformance):
    def run_tasks(self) -> None:
        for _ in range(3):  # an empty answer may be older than a retry that is sent
            drain(run_here, "jobs", wait=0)


@pytest.mark.usefixtures("conforming")
class TestTheEndpoint(BackendConformance):
    """As the daemon does: a POST for each message, and a delete for each 200."""

    def run_tasks(self) -> None:
        queue = open_queue("jobs")
        while received := queue.receive(count=1, wait=0, visibility=60):
            response = Client().post(
                reverse("beanstalk_dispatcher"), received[0].body, "application/json",
                headers={
                    "X-Aws-Sqsd-Msgid": received[0].message_id,
                    "X-Aws-Sqsd-Queue": queue.name,
                    "X-Aws-Sqsd-Receive-Count": str(received[0].receive_count),
                },
            )  # fmt: skip
            assert response.status_code == 200
            assert queue.delete_batch(received) == []


@pytest.mark.usefixtures("conforming")
class TestLambda(BackendConformance):
    """As the event source mapping does: batches, of which what is not reported is deleted."""

    def run_tasks(self) -> None:
        queue = open_queue("jobs")
        while received := queue.receive(count=10, wait=0, visibility=60):
            assert Batch([record_of(each) for each in received], seconds=60).run() == []
            assert queue.delete_batch(received) == []


class TestTheCallingProcess(BackendConformance):
    @pytest.fixture(autouse=True)
    def _here(self, conforming: Environment) -> None:
        conforming(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)

    def run_tasks(self) -> None:
        """They have run."""

    def test_a_deferred_task_waits(self) -> None:
        """The calling process does not wait: a task with a delay runs at once."""
        with raises(AssertionError):
            super().test_a_deferred_task_waits()


class _Djangos(BackendConformance):
    """What Django's own backends pass, so that the suite asks for nothing of ours."""

    backend_name = ""

    @pytest.fixture(autouse=True)
    def _settings(self) -> Iterator[None]:
        entry = {"BACKEND": f"{DJANGOS}.{self.backend_name}"}
        with override_settings(TASKS={"default": entry}):
            yield

    def task(self, original: Any) -> Any:
        """Made by Django's own class: the policy is one of ours."""
        return library.Task(
            func=original.func, takes_context=original.takes_context, priority=0,
            backend=self.alias, queue_name=self.queue_name, run_after=None,
        )  # fmt: skip

    def run_tasks(self) -> None:
        """They have run, or never will."""


class TestDjangosImmediateBackend(_Djangos):
    backend_name = "immediate.ImmediateBackend"


class TestDjangosDummyBackend(_Djangos):
    backend_name = "dummy.DummyBackend"

    def finish(self, result: Any) -> Any:
        raise SkipTest("it runs no task")

    @pytest.mark.parametrize("name", ["test_each_signal_is_sent_once", "test_a_failure_is_the_end"])
    def test_it_sends_no_signal_of_a_run(self, name: str) -> None:
        with raises(AssertionError):
            getattr(BackendConformance, name)(self)

    def test_each_signal_is_sent_once(self) -> None:
        """It runs no task."""

    def test_a_failure_is_the_end(self) -> None:
        """It runs no task."""


class SimpleBackend(library.ImmediateBackend):
    supports_async_task = False


def test_a_backend_may_refuse_coroutine_functions() -> None:
    entry = {"BACKEND": f"{__name__}.SimpleBackend"}
    with override_settings(TASKS={"default": entry}):
        _Djangos().test_a_coroutine_function_runs_or_is_refused()


def test_a_subclass_says_how_tasks_are_run() -> None:
    with raises(NotImplementedError):
        BackendConformance().run_tasks()


def test_an_error_that_does_not_come_is_one() -> None:
    expected = pytest.raises(AssertionError, match="^expected KeyError or ValueError$")
    with expected, raises(KeyError, ValueError):
        pass
