"""The handler: when Django starts, and what an event is answered."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from beanstalk_dispatch.contrib import aws_lambda
from beanstalk_dispatch.contrib.aws_lambda import function as module
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.signals import invocation_finished
from beanstalk_dispatch.sqs.clients import Clients
from beanstalk_dispatch.sqs.opening import open_queue
from tests import jobs
from tests.conftest import Environment
from tests.lambda_events import Context, event, task

snapshot_restore_py: Any = pytest.importorskip("snapshot_restore_py")  # of Lambda's runtime


@pytest.fixture(autouse=True)
def _not_started() -> Iterator[None]:
    vars(aws_lambda).pop("handler", None)
    yield
    vars(aws_lambda).pop("handler", None)


@pytest.mark.usefixtures("function")
def test_the_handler_answers_with_what_is_to_be_delivered_again() -> None:
    records = [task("record", 1), task("fail")]
    assert aws_lambda.handler(event(*records), Context()) == {
        "batchItemFailures": [{"itemIdentifier": records[1]["messageId"]}]
    }
    assert jobs.calls == [((1,), {})]
    assert aws_lambda.handler is module.handle


@pytest.mark.usefixtures("function")
@pytest.mark.parametrize(("left", "expected"), [(60, 59.5), (0.2, 0)])
def test_receivers_at_the_end_of_an_invocation_learn_how_long_they_may_take(
    left: float, expected: float
) -> None:
    seconds = []

    def receive(**arguments: Any) -> None:
        seconds.append(arguments["seconds"])

    invocation_finished.connect(receive)
    aws_lambda.handler(event(), Context(left))
    invocation_finished.disconnect(receive)
    assert seconds == [pytest.approx(expected, abs=0.1)]


@pytest.mark.usefixtures("function")
def test_the_init_phase_leaves_nothing_for_the_first_message(
    monkeypatch: pytest.MonkeyPatch, function: Environment
) -> None:
    """Nor what a copy of the process shares."""
    function(DISPATCH_QUEUES="jobs=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs")
    module.start()
    assert (connections.close_all, (), {}) in snapshot_restore_py.get_before_snapshot()
    assert (random.seed, (), {}) in snapshot_restore_py.get_after_restore()
    monkeypatch.setattr(Clients, "_make_client", pytest.fail)
    assert open_queue("jobs").client


@pytest.mark.usefixtures("function")
def test_it_starts_without_lambdas_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", None)
    assert module.start() is module.handle


@pytest.mark.usefixtures("function")
def test_nothing_else_is_an_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'handle'"):
        _ = aws_lambda.handle


def test_an_attribute_that_is_missing_in_the_project_is_not_taken_for_the_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start() -> None:
        raise AttributeError("module 'shop' has no attribute 'gone'")

    monkeypatch.setattr(module, "start", start)
    with pytest.raises(RuntimeError, match="cannot start: module 'shop' has no") as caught:
        _ = aws_lambda.handler
    assert caught.traceback[-1].name == "start"


def test_without_the_worker_variable_the_function_does_not_start(env: Environment) -> None:
    with pytest.raises(ConfigurationError, match="set BEANSTALK_WORKER=True"):
        module.start()


def test_a_wrong_configuration_fails_the_whole_batch(function: Environment) -> None:
    module.start()
    function(DISPATCH_TASK_TIMEOUT="soon")
    with pytest.raises(ConfigurationError, match="TASK_TIMEOUT"):
        module.handle(event(task("record", 1)), Context())
    assert jobs.calls == []


def test_a_task_that_cannot_be_imported_does_not_keep_the_function_from_starting(
    function: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    function(DISPATCH_TABLE="gone=tests.gone.task record=tests.jobs.record")
    handler = module.start()
    assert "check failed id=beanstalk_dispatch.E002" in caplog.text
    assert handler(event(task("record", 1)), Context()) == {"batchItemFailures": []}


def test_django_is_started_if_the_project_has_not(
    function: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("beanstalk_dispatch.problems.check_log.log_failing", lambda: None)
        patch.setattr("django.setup", lambda: started.append(1))
        patch.setattr("django.apps.apps.ready", False)
        module.start()
    assert started == [1]
