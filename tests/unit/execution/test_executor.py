from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from beanstalk_dispatch import dispatch_table
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.exceptions import ConfigurationError, SendError, UnknownFunction
from beanstalk_dispatch.execution import executor as execution
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Outcome
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue
from tests import jobs
from tests.conftest import Environment
from tests.jobs import calls


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def delivery(**more: Any) -> Delivery:
    return Delivery(queue="q", message_id="from-sqs", receive_count=3, **more)


def run(function: str, *args: Any, resend: execution.Resend | None = None, **members: Any) -> Any:
    body = Message(function=function, args=args, **members).encode(queue="q")
    return execution.run(body, delivery(), resend=resend)


@pytest.fixture
def table(env: Environment) -> Environment:
    names = ("record", "fail", "coroutine", "generator", "async_generator", "Recorder", "Flaky",
             "AlwaysRetry", "NotATask", "NeedsArgument", "OwnProcess", "instance", "a_number",
             "missing", "Yields")  # fmt: skip
    pairs = [f"{name}=tests.jobs.{name}" for name in names]
    env(
        DISPATCH_TABLE=" ".join(
            [*pairs, "method=tests.jobs.Holder.method", "nested=tests.jobs.Missing.method",
             "nowhere=tests.nowhere.f", "no_package=nowhere.f"]
        )
    )  # fmt: skip
    return env


def test_a_function_runs(table: Environment) -> None:
    result = run("record", 1, kwargs={"a": 2})
    assert result.outcome is Outcome.DONE
    assert result.acknowledged
    assert calls == [((1,), {"a": 2})]


@pytest.mark.parametrize("function", ["coroutine", "method"])
def test_coroutines_and_static_methods_run(table: Environment, function: str) -> None:
    assert run(function, 5).outcome is Outcome.DONE
    assert calls == [(function, 5)]


def test_a_task_knows_its_delivery(table: Environment) -> None:
    run("Recorder", id="task-1", attempt=2)
    delivery = calls[0][3]
    assert (delivery.queue, delivery.receive_count) == ("q", 3)
    assert (delivery.message.id, delivery.message.attempt) == ("task-1", 2)


def test_options_of_the_message_win(table: Environment) -> None:
    copies: list[Message] = []
    result = run(
        "fail", options={"max_retries": 1}, resend=lambda message, *rest: copies.append(message)
    )
    assert result.outcome is Outcome.RETRY
    assert [copy.attempt for copy in copies] == [2]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("unlisted", "Requested function not found: unlisted"),
        ("missing", "Unable to locate function: tests.jobs.missing"),
        ("nested", "Unable to locate function: tests.jobs.Missing.method"),
        ("nowhere", "Unable to locate function: tests.nowhere.f"),
        ("no_package", "Unable to locate function: nowhere.f"),
        ("NotATask", "Requested task is not a SafeTask subclass: NotATask"),
        ("instance", "Requested task is a SafeTask instance; list its class"),
        ("a_number", "Requested task is a int, not a function: a_number"),
        ("generator", "Requested task is a generator function"),
        ("async_generator", "Requested task is a generator function"),
        ("Yields", "Requested task is a generator function"),
    ],
)
def test_what_cannot_run_is_an_unknown_function(
    table: Environment, function: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(function)
    assert result.outcome is Outcome.UNKNOWN_FUNCTION
    assert result.reason.startswith(reason)
    assert not result.acknowledged
    assert len(caplog.records) == 1


def test_the_log_tells_why_an_import_failed(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    result = run("nowhere")
    assert "No module named 'tests.nowhere'" in caplog.text
    assert "No module named" not in result.reason


def test_without_a_table_nothing_runs(env: Environment) -> None:
    assert run("record").reason == "No beanstalk dispatch table configured"


def test_a_path_is_imported_once(table: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    run("record")
    monkeypatch.setattr(dispatch_table, "locate", lambda path: pytest.fail("imported again"))
    assert run("record").outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("on_failure", "acknowledged"), [("redeliver", False), ("acknowledge", True)]
)
def test_a_failure_is_acknowledged_only_if_configured(
    table: Environment, on_failure: str, acknowledged: bool
) -> None:
    table(DISPATCH_ON_FAILURE=on_failure)
    result = run("fail")
    assert result.outcome is Outcome.FAILED
    assert result.acknowledged is acknowledged
    assert isinstance(result.exception, ValueError)


def test_a_malformed_message_is_never_acknowledged(table: Environment) -> None:
    table(DISPATCH_ON_FAILURE="acknowledge")
    for body in (b"", b"nonsense"):
        result = execution.run(body, delivery())
        assert result.outcome is Outcome.MALFORMED
        assert not result.acknowledged


def test_wrong_options_make_a_malformed_message(table: Environment) -> None:
    result = run("record", options={"timeout": "soon"})
    assert result.outcome is Outcome.MALFORMED
    assert calls == []


def test_a_class_that_cannot_be_made_has_failed(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("NeedsArgument").outcome is Outcome.FAILED
    assert "missing 1 required positional argument" in caplog.text


def test_a_process_of_the_projects_own(table: Environment) -> None:
    assert run("OwnProcess", 1).outcome is Outcome.DONE
    assert calls == [("before",), ("run", (1,))]
    assert run("OwnProcess", "raise").outcome is Outcome.FAILED


def test_another_class_can_wrap_functions(table: Environment) -> None:
    table(DISPATCH_SAFE_TASK="tests.jobs.Recorder")
    run("record", 5)
    assert [call[0] for call in calls] == [(5,), "on_success", "on_completion"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("tests.nowhere.Task", "cannot import"), ("tests.jobs.NotATask", "not a SafeTask subclass"),
     ("tests.jobs.record", "not a SafeTask subclass")],
)  # fmt: skip
def test_a_wrapper_that_is_none_is_a_configuration_error(
    table: Environment, path: str, reason: str
) -> None:
    table(DISPATCH_SAFE_TASK=path)
    with pytest.raises(ConfigurationError, match=reason):
        run("record")


# --- signatures and periodic tasks ---


def test_a_bad_signature_is_told_to_the_log(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    table(DISPATCH_SIGNING_KEYS="key")
    result = run("record")
    assert result.outcome is Outcome.BAD_SIGNATURE
    assert "id=from-sqs function=None outcome=bad-signature" in caplog.text
    assert "reason='not signed'" in caplog.text
    assert calls == []


@pytest.mark.parametrize("message_id", ["from-sqs", None])
def test_a_listed_periodic_task_runs_even_where_messages_are_signed(
    table: Environment, message_id: str | None
) -> None:
    table(DISPATCH_PERIODIC_TASKS="record", DISPATCH_SIGNING_KEYS="key")
    periodic = Delivery(queue="q", message_id=message_id, task_name="record")
    assert execution.run(b"", periodic).outcome is Outcome.DONE
    assert calls == [((), {})]


def test_a_periodic_task_that_is_not_listed_is_not_allowed(table: Environment) -> None:
    result = execution.run(b"", delivery(task_name="record"))
    assert result.outcome is Outcome.NOT_ALLOWED
    assert "BEANSTALK_DISPATCH_PERIODIC_TASKS" in result.reason
    assert calls == []


def test_a_body_is_not_a_periodic_task(table: Environment) -> None:
    table(DISPATCH_PERIODIC_TASKS="record")
    assert execution.run(b"{}", delivery(task_name="record")).outcome is Outcome.MALFORMED


# --- sending again ---


class Resent:
    def __init__(self) -> None:
        self.sent: list[tuple[Message, float]] = []

    def __call__(self, message: Message, delay: float, delivery: Delivery) -> None:
        assert delivery.queue == "q"
        self.sent.append((message, delay))


def test_a_retry_is_sent_with_the_next_attempt(table: Environment) -> None:
    resend = Resent()
    result = run("AlwaysRetry", 7, id="same", attempt=3, resend=resend)
    assert result.outcome is Outcome.RETRY
    assert result.acknowledged
    ((copy, delay),) = resend.sent
    assert (copy.id, copy.attempt, copy.args, delay) == ("same", 4, [7], 7)


def test_a_retry_has_the_arguments_that_came_not_those_the_task_left(table: Environment) -> None:
    table(DISPATCH_TABLE="empties=tests.jobs.Empties")
    resent = Resent()
    assert run("empties", [1, 2, 3], {"a": 1}, resend=resent, id="task-1").acknowledged
    ((copy, _),) = resent.sent
    assert (copy.id, copy.attempt, copy.args) == ("task-1", 2, [[1, 2, 3], {"a": 1}])


def test_a_retry_of_a_periodic_task_keeps_its_id(table: Environment) -> None:
    table(DISPATCH_TABLE="retry=tests.jobs.AlwaysRetry", DISPATCH_PERIODIC_TASKS="retry")
    resent = Resent()
    due = Delivery(queue="q", task_name="retry")
    assert execution.run(b"", due, resend=resent).acknowledged
    assert due.message is not None
    assert [copy.id for copy, _ in resent.sent] == [due.message.id]


def test_the_exit_of_a_server_is_never_acknowledged(table: Environment) -> None:
    table(DISPATCH_TABLE="exits=tests.jobs.exits", DISPATCH_ON_FAILURE="acknowledge")
    result = run("exits")
    assert (result.outcome, result.acknowledged) == (Outcome.FAILED, False)


def test_a_limit_that_is_none_has_failed(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    table(DISPATCH_TABLE="x=tests.jobs.WrongLimit")
    assert run("x").outcome is Outcome.FAILED
    assert "could not convert string to float" in caplog.text


def test_a_message_before_its_time_is_deferred_and_not_run(table: Environment) -> None:
    resend = Resent()
    not_before = time.time() + 2000
    result = run("record", id="same", attempt=2, not_before=not_before, resend=resend)
    assert result.outcome is Outcome.DEFERRED
    assert result.acknowledged
    assert calls == []
    ((copy, delay),) = resend.sent
    assert (copy.id, copy.attempt, copy.not_before) == ("same", 2, not_before)
    assert delay == pytest.approx(2000, abs=10)


@pytest.mark.parametrize(("queue", "attempt"), [("q", 2), ("q.fifo", 4)])
def test_a_receive_is_an_attempt_only_where_no_copy_can_be_sent(
    table: Environment, queue: str, attempt: int
) -> None:
    body = Message(function="record", attempt=2).encode(queue=queue)
    received = Delivery(queue=queue, receive_count=3)
    execution.run(body, received, can_hide=True)
    assert received.message
    assert received.message.attempt == attempt


def test_a_hop_is_no_attempt(table: Environment) -> None:
    resend = Resent()
    body = Message(function="record", attempt=2, not_before=time.time() + 2000).encode(queue="q")
    execution.run(body, delivery(), resend=resend, can_hide=True)
    assert [copy.attempt for copy, _ in resend.sent] == [2]


def test_what_was_received_and_given_back_costs_no_retry(table: Environment) -> None:
    """The third receive, and still the first attempt of two."""
    resend = Resent()
    body = Message(function="fail", options={"max_retries": 1}).encode(queue="q")
    result = execution.run(body, delivery(), resend=resend, can_hide=True)
    assert (result.outcome, result.acknowledged) == (Outcome.RETRY, True)
    assert [copy.attempt for copy, _ in resend.sent] == [2]


@pytest.mark.parametrize(("suffix", "group"), [("", "tenant-1"), (".fifo", None)])
def test_a_copy_stays_in_its_fair_group(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, suffix: str, group: str | None
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Queue, "send", lambda self, body, options: seen.append(options))
    monkeypatch.setattr(
        execution, "send_parameters", lambda address, *, delay, group_id: {"group": group_id}
    )
    name = f"q{suffix}"
    execution.resend_copy(Message(function="record"), 5, Delivery(queue=name, group_id="tenant-1"))
    assert seen == [{"group": group}]


@pytest.mark.parametrize("queue", ["q", "q.fifo"])
def test_redelivery_backs_off_with_each_receive(table: Environment, queue: str) -> None:
    """The third receive: up to four times ``retry_backoff``."""
    body = Message(function="fail", options={"retry_backoff": 10}).encode(queue=queue)
    delays = [
        execution.run(body, Delivery(queue=queue, receive_count=3), can_hide=True).retry_after
        for _ in range(40)
    ]
    assert 20 < max(delay for delay in delays if delay is not None) <= 40


def test_the_consumer_learns_the_time_limit(table: Environment) -> None:
    limits: list[float] = []
    body = Message(function="record", options={"timeout": 7}).encode(queue="q")
    execution.run(body, delivery(), on_limit=limits.append)
    assert limits == [7]


def test_a_message_whose_time_has_come_runs(table: Environment) -> None:
    assert run("record", not_before=time.time() - 1).outcome is Outcome.DONE


def test_what_could_not_be_sent_again_is_not_acknowledged(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(message: Message, delay: float, delivery: Delivery) -> None:
        raise SendError("SQS is away")

    result = run("AlwaysRetry", resend=broken)
    assert result.outcome is Outcome.FAILED
    assert not result.acknowledged
    assert "could not be sent again: SQS is away" in caplog.text


@pytest.mark.parametrize("keys", ["", "signing-key"])
def test_a_copy_goes_to_the_deliverys_queue(
    sqs_env: Environment, queue_name: str, keys: str
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=keys)
    queue = open_queue("jobs")
    message = Message(function="record", id="same", attempt=2)
    execution.resend_copy(message, 0.2, Delivery(queue=queue_name))
    (received,) = queue.receive(count=1, wait=5, visibility=30)
    found = Message.decode(received.body, queue=queue_name, keys=[keys] if keys else [])
    assert (found.id, found.attempt, found.not_before) == ("same", 2, None)


def test_a_long_delay_hops(sqs_env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue("jobs")
    sent: list[tuple[str, Any]] = []
    monkeypatch.setattr(Queue, "send", lambda self, body, options: sent.append((body, options)))
    execution.resend_copy(Message(function="record"), 5000, Delivery(queue=queue.name))
    body, options = sent[0]
    assert options == {"DelaySeconds": 900}
    assert json.loads(body)["not_before"] == pytest.approx(time.time() + 5000, abs=10)


def test_one_line_is_logged_per_task(table: Environment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run("record", id="task-1")
    (line,) = caplog.messages
    assert line.startswith("task id=task-1 function=record outcome=done receive_count=3 ms=")


def test_a_line_nobody_asked_for_is_not_made(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="beanstalk_dispatch")
    run("record")
    assert caplog.messages == []


def test_resolve_is_for_one_configuration(table: Environment) -> None:
    assert dispatch_table.resolve("record", get_config()) is jobs.record
    table(DISPATCH_TABLE="other=tests.jobs.fail")
    with pytest.raises(UnknownFunction):
        dispatch_table.resolve("record", get_config())


def test_a_listed_class_that_the_configured_one_cannot_join_is_told(
    worker_env: Environment,
) -> None:
    """Python makes no class of two whose metaclasses have nothing to do with each other."""
    worker_env(
        DISPATCH_TABLE="mine=tests.jobs.OfOneKind", DISPATCH_SAFE_TASK="tests.jobs.OfAnother"
    )
    told = "BEANSTALK_DISPATCH_SAFE_TASK: tests.jobs.OfAnother cannot be a base of mine: metaclass"
    with pytest.raises(ConfigurationError, match=told):
        dispatch_table.task_class("mine", get_config())
