from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.cache import caches
from django.utils import timezone, translation

from beanstalk_dispatch.conf import get_config, import_rooms
from beanstalk_dispatch.exceptions import ConfigurationError, SendError, UnknownFunction
from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running import consumer as consumer_module
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.definitions.configured import configured_observers
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded, _watchdog, time_limit
from beanstalk_dispatch.running.recent_deliveries import RECENT
from beanstalk_dispatch.running.run import Consumer
from beanstalk_dispatch.running.stages import lease
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.signals import delivery_finished
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue
from tests import jobs
from tests.conftest import Environment
from tests.jobs import calls
from tests.runs import DELAYED_COPIES, deliver, deliver_and_keep


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def delivery(**more: Any) -> Delivery:
    return Delivery(queue="q", message_id="from-sqs", receive_count=3, **more)


class Recording(DelayedCopies):
    """A consumer that keeps what it is asked to send again, and the time limits of tasks."""

    def __init__(self, *, can_hide: bool = False, queue: str = "q") -> None:
        self.can_hide = can_hide
        self._queue = queue
        self.sent: list[tuple[Message, float]] = []
        self.limits: list[float] = []

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        assert delivery.queue == self._queue
        self.sent.append((message, delay))

    def task_starts(self, time_limit: float) -> None:
        self.limits.append(time_limit)


def run(function: str, *args: Any, consumer: Consumer = DELAYED_COPIES, **members: Any) -> Result:
    body = Message(function=function, args=args, **members).encode(queue="q")
    return deliver(body, delivery(), consumer)


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
    assert result.is_acknowledged
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
    consumer = Recording()
    result = run("fail", options={"max_retries": 1}, consumer=consumer)
    assert result.outcome is Outcome.RETRY
    assert [copy.attempt for copy, _ in consumer.sent] == [2]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("unlisted", "Requested function not found: unlisted"),
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
    assert not result.is_acknowledged
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("missing", "Unable to locate function: tests.jobs.missing"),
        ("nested", "Unable to locate function: tests.jobs.Missing.method"),
        ("nowhere", "Unable to locate function: tests.nowhere.f"),
        ("no_package", "Unable to locate function: nowhere.f"),
        ("nowhere.task", "Unable to locate function: nowhere.task"),
    ],
)
def test_what_this_machine_cannot_import_waits_as_a_copy_from_the_third_receive_on(
    table: Environment, function: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    table(DISPATCH_TASKS="nowhere")
    import_rooms()
    body = Message(function=function, id="the-id").encode(queue="q")
    consumer = Recording(can_hide=True)
    for receive_count in (1, 2):
        result = deliver(body, Delivery(queue="q", receive_count=receive_count), consumer)
        assert (result.outcome, result.is_acknowledged) == (Outcome.UNAVAILABLE, False)
        assert (result.reason, result.retry_after, result.is_final) == (reason, 10, False)
    assert consumer.sent == []
    result = deliver(body, Delivery(queue="q", receive_count=3), consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.DEFERRED, True)
    assert result.reason == f"{reason}; the message waits for 10 s"
    ((copy, delay),) = consumer.sent
    assert (copy.id, copy.function, copy.attempt, delay) == ("the-id", function, 1, 10)
    assert caplog.text.count("outcome=unavailable") == 1, "one line a minute"
    assert run("record").outcome is Outcome.DONE


def test_the_longer_it_cannot_be_imported_the_longer_a_copy_waits(
    table: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    assert dispatch_table.not_importable_since("nowhere", get_config()) is None
    for seconds, waits in ((0, 10), (600, 300), (7200, 900)):
        monkeypatch.setattr("time.time", lambda seconds=seconds: began + seconds)
        assert run("nowhere").retry_after == pytest.approx(waits, abs=1)
    assert dispatch_table.not_importable(get_config()) == {"nowhere": began}


@pytest.mark.parametrize(("receive_count", "hidden"), [(1, 10), (2, 20), (7, 640), (8, 900)])
def test_on_a_fifo_queue_it_can_only_be_held(
    table: Environment, receive_count: int, hidden: float
) -> None:
    consumer = Recording(can_hide=True)
    body = Message(function="nowhere").encode(queue="q.fifo")
    delivery = Delivery(queue="q.fifo", receive_count=receive_count)
    result = deliver(body, delivery, consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.UNAVAILABLE, False)
    assert result.retry_after == hidden
    assert consumer.sent == []


def test_once_it_can_be_imported_it_runs(
    table: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(dispatch_table, "import_dotted_path", raising(ImportError))
        assert run("record").outcome is Outcome.UNAVAILABLE
    assert list(dispatch_table.not_importable(get_config())) == ["record"]
    assert run("record").outcome is Outcome.DONE
    assert dispatch_table.not_importable(get_config()) == {}


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (0, Outcome.DEFERRED), (3500, Outcome.DEFERRED), (-60, Outcome.DEFERRED),
        (3700, Outcome.UNKNOWN_FUNCTION), (-7200, Outcome.UNKNOWN_FUNCTION),
        (None, Outcome.UNKNOWN_FUNCTION),
    ],
)  # fmt: skip
@pytest.mark.parametrize("max_age", [None, "2h"])
def test_an_unknown_name_waits_for_an_hour_after_its_sending(
    table: Environment, age: float | None, outcome: Outcome, max_age: str | None
) -> None:
    """Without a renewal: its copies would wait for ever."""
    key = "a-key-of-the-tests"
    table(DISPATCH_SIGNING_KEYS=key, DISPATCH_MAX_AGE=max_age)
    sent_at = None if age is None else round(time.time()) - age
    if max_age and age is None:
        return  # it is refused for another reason
    body = Message(function="unlisted", sent_at=sent_at).encode(queue="q", keys=[key])
    consumer = Recording()
    result = deliver(body, Delivery(queue="q", receive_count=3), consumer)
    assert result.outcome is outcome
    assert [copy.sent_at for copy, _ in consumer.sent] == (
        [sent_at] if outcome is Outcome.DEFERRED else []
    )


def test_a_task_that_a_listed_module_lacks_is_an_unknown_name(table: Environment) -> None:
    table(DISPATCH_TASKS="tests.jobs")
    assert run("tests.jobs.missing").outcome is Outcome.UNKNOWN_FUNCTION


def test_the_log_tells_why_an_import_failed(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    result = run("nowhere")
    assert "(ModuleNotFoundError: No module named 'tests.nowhere')" in caplog.text
    assert "No module named" not in result.reason


def test_the_log_tells_where_an_import_failed(
    table: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    module = tmp_path / "broken_on_import.py"
    module.write_text("def divide(number):\n    1 / number\n\n\ndivide(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    table(DISPATCH_TABLE="broken=broken_on_import.divide")
    run("broken")
    assert f"(ZeroDivisionError: division by zero at {module}:2)" in caplog.text


def test_without_a_table_nothing_runs(env: Environment) -> None:
    assert run("record").reason == "No beanstalk dispatch table configured"


def test_a_path_is_imported_once(table: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    run("record")
    monkeypatch.setattr(dispatch_table, "import_dotted_path", pytest.fail)
    assert run("record").outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("on_failure", "acknowledged"), [("redeliver", False), ("acknowledge", True)]
)
def test_a_failure_is_acknowledged_only_if_configured(
    table: Environment, on_failure: str, acknowledged: bool
) -> None:
    table(DISPATCH_ON_FAILURE=on_failure)
    body = Message(function="fail").encode(queue="q")
    failed, result = deliver_and_keep(body, delivery())
    assert result.outcome is Outcome.FAILED
    assert result.is_acknowledged is acknowledged
    assert isinstance(failed.exception, ValueError)


def test_a_malformed_message_is_never_acknowledged(table: Environment) -> None:
    table(DISPATCH_ON_FAILURE="acknowledge")
    for body in (b"", b"nonsense"):
        result = deliver(body, delivery())
        assert result.outcome is Outcome.MALFORMED
        assert not result.is_acknowledged


def test_wrong_options_make_a_malformed_message(table: Environment) -> None:
    result = run("record", options={"timeout": "soon"})
    assert result.outcome is Outcome.MALFORMED
    assert calls == []


def test_a_class_that_cannot_be_made_has_failed(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("NeedsArgument").outcome is Outcome.FAILED
    assert "missing 1 required positional argument" in caplog.text


@pytest.mark.parametrize("name", ["NeedsArgument", "LimitThatRaises", "WrongLimit"])
def test_a_task_that_has_not_begun_is_not_acknowledged(table: Environment, name: str) -> None:
    table(DISPATCH_TABLE=f"name=tests.jobs.{name}", DISPATCH_ON_FAILURE="acknowledge")
    result = run("name")
    assert (result.outcome, result.is_acknowledged) == (Outcome.FAILED, False)


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
    table(DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    result = run("record")
    assert result.outcome is Outcome.BAD_SIGNATURE
    assert "id=from-sqs function=None outcome=bad-signature" in caplog.text
    assert "reason='not signed; set BEANSTALK_DISPATCH_SIGNING_KEYS where it is sent, too'" in (
        caplog.text
    )
    assert calls == []


@pytest.mark.parametrize(
    ("sent", "not_before", "reason"),
    [
        (-60, None, ""),
        (-3601, None, "too old: sent 3601 s ago; BEANSTALK_DISPATCH_MAX_AGE is 1:00:00"),
        (-90000, -60, ""),
        (-90000, -3601, "too old: sent 3601 s ago; BEANSTALK_DISPATCH_MAX_AGE is 1:00:00"),
        (None, None, ("the message does not say when it was sent, and BEANSTALK_DISPATCH_MAX_AGE "
                      "is set")),
    ],
)  # fmt: skip
def test_a_signed_message_that_is_too_old_is_refused(
    table: Environment, sent: float | None, not_before: float | None, reason: str
) -> None:
    table(DISPATCH_SIGNING_KEYS="a-key-of-the-tests", DISPATCH_MAX_AGE="1h")
    now = time.time()
    message = Message(
        function="record",
        sent_at=None if sent is None else now + sent,
        not_before=None if not_before is None else now + not_before,
    )
    text = message.encode(queue="q", keys=["a-key-of-the-tests"])
    for task_name in (None, "record"):  # which its sender may add, to no avail
        RECENT.forget()
        calls.clear()
        delivery = Delivery(queue="q", message_id="from-sqs", task_name=task_name)
        result = deliver(text, delivery)
        assert (result.reason, bool(calls)) == (reason, not reason)
        assert result.outcome is (Outcome.BAD_SIGNATURE if reason else Outcome.DONE)


def test_a_task_that_is_due_in_years_is_malformed(table: Environment) -> None:
    result = run("record", not_before=time.time() + 402 * 86400)
    assert result.outcome is Outcome.MALFORMED
    assert result.reason == "not_before is more than 400 days ahead"


def test_a_periodic_task_has_no_age(table: Environment) -> None:
    table(DISPATCH_PERIODIC_TASKS="record", DISPATCH_SIGNING_KEYS="a-key-of-the-tests",
          DISPATCH_MAX_AGE="1h")  # fmt: skip
    periodic = Delivery(queue="q", message_id="from-sqs", task_name="record")
    assert deliver(b"", periodic).outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("accounts", "in_delivery", "outcome"),
    [
        (["123456789012"], None, Outcome.BAD_SIGNATURE),
        (["999999999999"], None, Outcome.DONE),
        (["999999999999", "123456789012"], None, Outcome.DONE),  # which of the two is not known
        ([], None, Outcome.DONE),
        ([], "eu-west-1/123456789012", Outcome.BAD_SIGNATURE),
        (["123456789012"], "eu-west-1/999999999999", Outcome.DONE),
    ],
)
def test_where_the_queue_is_known_a_message_from_elsewhere_is_refused(
    table: Environment, accounts: list[str], in_delivery: str | None, outcome: Outcome
) -> None:
    key = "a-key-of-the-tests"
    queues = " ".join(f"q{each}=arn:aws:sqs:eu-west-1:{each}:q" for each in accounts)
    table(DISPATCH_SIGNING_KEYS=key, DISPATCH_QUEUES=queues)
    body = Message(function="record").encode(
        queue="q", keys=[key], location="eu-west-1/999999999999"
    )
    result = deliver(body, Delivery(queue="q", location=in_delivery))
    assert result.outcome is outcome


def test_a_copy_has_the_age_of_its_own_signature(table: Environment) -> None:
    key = "a-key-of-the-tests"
    table(DISPATCH_SIGNING_KEYS=key, DISPATCH_MAX_AGE="1h")
    consumer, moment = Recording(), time.time()
    message = Message(function="record", sent_at=moment - 60, not_before=moment + 2000)
    deliver(message.encode(queue="q", keys=[key]), Delivery(queue="q"), consumer)
    assert [copy.sent_at for copy, _ in consumer.sent] == [pytest.approx(moment, abs=10)]


@pytest.mark.parametrize("message_id", ["from-sqs", None])
def test_a_listed_periodic_task_runs_even_where_messages_are_signed(
    table: Environment, message_id: str | None
) -> None:
    table(DISPATCH_PERIODIC_TASKS="record", DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    periodic = Delivery(queue="q", message_id=message_id, task_name="record")
    assert deliver(b"", periodic).outcome is Outcome.DONE
    assert calls == [((), {})]


@pytest.mark.parametrize(
    ("due_at", "sent_at", "ids"),
    [
        (1700000000.0, 1700000001.0, 1),
        (1700000000.0, None, 1),
        (None, 1700000001.0, 2),
        (1700003600.0, 1700000001.0, 2),  # forged, to make the next occurrence a duplicate
        (4000000000.0, None, 2),
    ],
)
def test_all_messages_of_one_occurrence_of_a_periodic_task_have_one_id(
    table: Environment, due_at: float | None, sent_at: float | None, ids: int
) -> None:
    table(DISPATCH_PERIODIC_TASKS="record")
    runs = [
        deliver_and_keep(
            b"",
            Delivery(queue="q", message_id=message_id, task_name="record", scheduled_at=due_at,
                     sent_at=sent_at),
        )[0]
        for message_id in ("first", "second")
    ]  # fmt: skip
    assert len({run.message.id for run in runs}) == ids


def test_the_lease_runs_one_of_two_messages_of_an_occurrence(table: Environment) -> None:
    table(DISPATCH_PERIODIC_TASKS="record", DISPATCH_LEASE_CACHE="default")
    results = [
        deliver(
            b"",
            Delivery(queue="q", message_id=message_id, task_name="record", scheduled_at=due_at),
        )
        for message_id, due_at in [("1", 60.0), ("2", 60.0), ("3", 120.0)]
    ]
    outcomes = [result.outcome for result in results]
    assert outcomes == [Outcome.DONE, Outcome.DUPLICATE, Outcome.DONE]


def test_a_periodic_task_that_is_not_listed_is_not_allowed(table: Environment) -> None:
    result = deliver(b"", delivery(task_name="record"))
    assert result.outcome is Outcome.NOT_ALLOWED
    assert "BEANSTALK_DISPATCH_PERIODIC_TASKS" in result.reason
    assert calls == []


def test_a_body_is_not_a_periodic_task(table: Environment) -> None:
    table(DISPATCH_PERIODIC_TASKS="record")
    assert deliver(b"{}", delivery(task_name="record")).outcome is Outcome.MALFORMED


# --- sending again ---


def test_a_retry_is_sent_with_the_next_attempt(table: Environment) -> None:
    consumer = Recording()
    result = run("AlwaysRetry", 7, id="same", attempt=3, consumer=consumer)
    assert result.outcome is Outcome.RETRY
    assert result.is_acknowledged
    ((copy, delay),) = consumer.sent
    assert (copy.id, copy.attempt, copy.args, delay) == ("same", 4, [7], 7)


def test_a_retry_has_the_arguments_that_came_not_those_the_task_left(table: Environment) -> None:
    table(DISPATCH_TABLE="empties=tests.jobs.Empties")
    consumer = Recording()
    assert run("empties", [1, 2, 3], {"a": 1}, consumer=consumer, id="task-1").is_acknowledged
    ((copy, _),) = consumer.sent
    assert (copy.id, copy.attempt, copy.args) == ("task-1", 2, [[1, 2, 3], {"a": 1}])


def test_a_retry_of_a_periodic_task_keeps_its_id(table: Environment) -> None:
    table(DISPATCH_TABLE="retry=tests.jobs.AlwaysRetry", DISPATCH_PERIODIC_TASKS="retry")
    consumer = Recording()
    due = Delivery(queue="q", task_name="retry")
    received, result = deliver_and_keep(b"", due, consumer)
    assert result.is_acknowledged
    assert [copy.id for copy, _ in consumer.sent] == [received.message.id]


def test_the_exit_of_a_server_in_its_main_thread_is_not_acknowledged(table: Environment) -> None:
    table(DISPATCH_TABLE="exits=tests.jobs.exits", DISPATCH_ON_FAILURE="acknowledge")
    with pytest.raises(SystemExit):
        run("exits")
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run, "exits").result(20)
    assert (result.outcome, result.is_acknowledged) == (Outcome.FAILED, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_main_threads_interrupt_passes_a_tasks_construction(
    table: Environment, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.Recorder, "__init__", raising(error))
    with pytest.raises(error):
        run("Recorder")
    monkeypatch.setattr(jobs.Recorder, "__init__", raising(GeneratorExit))
    assert run("Recorder").outcome is Outcome.FAILED


def raising(error: type[BaseException]) -> Any:
    def function(*args: Any, **kwargs: Any) -> None:
        raise error

    return function


def test_a_limit_that_is_none_has_failed(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    table(DISPATCH_TABLE="x=tests.jobs.WrongLimit")
    assert run("x").outcome is Outcome.FAILED
    assert "could not convert string to float" in caplog.text


def test_a_message_before_its_time_is_deferred_and_not_run(table: Environment) -> None:
    consumer = Recording()
    not_before = time.time() + 2000
    result = run("record", id="same", attempt=2, not_before=not_before, consumer=consumer)
    assert result.outcome is Outcome.DEFERRED
    assert result.is_acknowledged
    assert calls == []
    ((copy, delay),) = consumer.sent
    assert (copy.id, copy.attempt, copy.not_before) == ("same", 2, not_before)
    assert delay == pytest.approx(2000, abs=10)


@pytest.mark.parametrize(("first_attempt", "is_retried"), [(1, False), (5, True), (9, True)])
def test_retries_are_counted_from_the_first_attempt(
    table: Environment, first_attempt: int, is_retried: bool
) -> None:
    """A redrive that resets the attempts sets it."""
    consumer = Recording()
    run("fail", attempt=5, first_attempt=first_attempt, options={"max_retries": 1},
        consumer=consumer)  # fmt: skip
    copies = [(copy.attempt, copy.first_attempt) for copy, _ in consumer.sent]
    assert copies == ([(6, first_attempt)] if is_retried else [])


@pytest.mark.parametrize(("queue", "attempt"), [("q", 2), ("q.fifo", 4)])
def test_a_receive_is_an_attempt_only_where_no_copy_can_be_sent(
    table: Environment, queue: str, attempt: int
) -> None:
    body = Message(function="record", attempt=2).encode(queue=queue)
    delivery = Delivery(queue=queue, receive_count=3)
    received, _ = deliver_and_keep(body, delivery, Recording(can_hide=True))
    assert received.message.attempt == attempt


@pytest.mark.parametrize(("unrun", "attempt"), [(1, 2), (2, 1), (5, 1)])
def test_a_receive_that_started_no_task_is_no_attempt(
    table: Environment, unrun: int, attempt: int
) -> None:
    body = Message(function="record").encode(queue="q.fifo")
    delivery = Delivery(queue="q.fifo", receive_count=3, unrun_receives=unrun)
    received, _ = deliver_and_keep(body, delivery, Recording(can_hide=True))
    assert received.message.attempt == attempt


def test_a_hop_is_no_attempt(table: Environment) -> None:
    consumer = Recording()
    body = Message(function="record", attempt=2, not_before=time.time() + 2000).encode(queue="q")
    deliver(body, delivery(), consumer)
    assert [copy.attempt for copy, _ in consumer.sent] == [2]


def test_what_was_received_and_given_back_costs_no_retry(table: Environment) -> None:
    """The third receive, and still the first attempt of two."""
    consumer = Recording()
    body = Message(function="fail", options={"max_retries": 1}).encode(queue="q")
    result = deliver(body, delivery(), consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.RETRY, True)
    assert [copy.attempt for copy, _ in consumer.sent] == [2]


@pytest.mark.parametrize(("hours", "copies"), [(6, 0), (6.01, 1), (11.9, 1)])
def test_a_retry_is_hidden_for_half_of_the_12_hours_of_sqs_at_most(
    table: Environment, hours: float, copies: int
) -> None:
    """They are counted from the receive, and the task has run since."""
    body = Message(function="AlwaysRetry", args=[hours * 3600]).encode(queue="q.fifo")
    consumer = Recording(can_hide=True, queue="q.fifo")
    result = deliver(body, Delivery(queue="q.fifo", message_id="1"), consumer)
    assert (result.outcome, result.is_acknowledged) == (Outcome.RETRY, bool(copies))
    assert len(consumer.sent) == copies


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0), (0.2, 1), (7, 7), (7.001, 8), (5000, 900)])
def test_a_copy_is_never_early(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, delay: float, seconds: int
) -> None:
    """SQS takes whole seconds."""
    sent: list[Any] = []
    monkeypatch.setattr(Queue, "send", lambda self, body, options: sent.append(options))
    name = open_queue("jobs").name
    DELAYED_COPIES.resend(Message(function="record"), delay, Delivery(queue=name))
    assert sent[0].get("DelaySeconds", 0) == seconds


@pytest.mark.parametrize(("suffix", "group"), [("", "tenant-1"), (".fifo", None)])
def test_a_copy_stays_in_its_fair_group(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, suffix: str, group: str | None
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(Queue, "send", lambda self, body, options: seen.append(options))
    monkeypatch.setattr(
        consumer_module, "send_parameters", lambda address, *, delay, group_id: {"group": group_id}
    )
    name = f"q{suffix}"
    DELAYED_COPIES.resend(Message(function="record"), 5, Delivery(queue=name, group_id="tenant-1"))
    assert seen == [{"group": group}]


@pytest.mark.parametrize("queue", ["q", "q.fifo"])
def test_redelivery_backs_off_with_each_receive(table: Environment, queue: str) -> None:
    """The third receive: up to four times ``retry_backoff``."""
    body = Message(function="fail", options={"retry_backoff": 10}).encode(queue=queue)
    delays = [
        deliver(body, Delivery(queue=queue, receive_count=3), Recording(can_hide=True)).retry_after
        for _ in range(40)
    ]
    assert 20 < max(delay for delay in delays if delay is not None) <= 40


class Paced(SafeTask):
    """Fails, and notes the numbers of the attempts for which it is asked for a delay."""

    asked: ClassVar[list[int]] = []

    def retry_backoff(self, exception: BaseException | None, attempt: int) -> float:
        self.asked.append(attempt)
        return 7.0

    def run(self) -> None:
        raise ValueError


def test_a_backoff_function_is_called_once_for_each_failure(table: Environment) -> None:
    table(DISPATCH_TABLE=f"paced={__name__}.Paced")
    assert deliver(Message(function="paced").encode(queue="q"), delivery()).retry_after == 7
    assert Paced.asked == [3]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Lies(Exception):
    is_shown = False
    """Set at the end, because pytest itself fails if it cannot show why a test has failed."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        if self.is_shown:
            return Lies
        raise RuntimeError


def raises(kind: str) -> None:
    raise {"Unspeakable": Unspeakable, "Lies": Lies}[kind]


@pytest.mark.parametrize("kind", ["Unspeakable", "Lies"])
def test_an_exception_that_cannot_be_looked_at_is_a_failure_like_any_other(
    env: Environment, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    env(WORKER=True, DISPATCH_TABLE=f"raises={__name__}.raises")
    body = Message(function="raises", args=[kind], id="1").encode(queue="q")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(deliver, body, delivery())
        running.exception()
    monkeypatch.setattr(Lies, "is_shown", True)
    assert Lies().__class__ is Lies
    assert running.result().outcome is Outcome.FAILED
    assert "task id=1 function=raises outcome=failed receive_count=3" in caplog.text
    assert all(record.getMessage() for record in caplog.records)


def leaves_a_limit_open() -> None:
    time_limit(0.01).__enter__()
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("is_eager", [False, True])
def test_an_interrupt_of_nobodys_fails_its_task_and_not_the_consumer(
    env: Environment, *, is_eager: bool
) -> None:
    """Only where the caller waits for the task, it may be the interrupt of the caller's limit."""
    env(WORKER=True, DISPATCH_TABLE=f"leaves={__name__}.leaves_a_limit_open",
        DISPATCH_EXECUTE_SYNCHRONOUSLY=is_eager)  # fmt: skip
    body = Message(function="leaves").encode(queue="q")

    def run() -> Result:
        try:
            return deliver(body, delivery())
        finally:
            for limit in [*_watchdog._limits]:  # which would strike again and again
                _watchdog.forget(limit)

    with ThreadPoolExecutor(1) as pool:
        came = pool.submit(run)
    if is_eager:
        assert isinstance(came.exception(), TimeLimitExceeded)
    else:
        assert came.result().outcome is Outcome.FAILED


def test_the_consumer_learns_the_time_limit(table: Environment) -> None:
    consumer = Recording()
    run("record", options={"timeout": 7}, consumer=consumer)
    assert consumer.limits == [7]


def test_a_message_whose_time_has_come_runs(table: Environment) -> None:
    assert run("record", not_before=time.time() - 1).outcome is Outcome.DONE


def test_what_could_not_be_sent_again_is_not_acknowledged(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recording):
        def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
            raise SendError("SQS is away")

    result = run("AlwaysRetry", consumer=Broken())
    assert result.outcome is Outcome.FAILED
    assert not result.is_acknowledged
    assert re.search(
        r"could not be sent again id=\S+ function=AlwaysRetry error=SQS is away", caplog.text
    )


@pytest.mark.parametrize("keys", ["", "a-key-of-the-tests"])
@pytest.mark.slow
def test_a_copy_goes_to_the_deliverys_queue(
    sqs_env: Environment, queue_name: str, keys: str
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=keys)
    queue = open_queue("jobs")
    message = Message(function="record", id="same", attempt=2)
    DELAYED_COPIES.resend(message, 0.2, Delivery(queue=queue_name))
    (received,) = queue.receive(count=1, wait=5, visibility=30)
    found = Message.decode(received.body, queue=queue_name, keys=[keys] if keys else [])
    assert (found.id, found.attempt, found.not_before) == ("same", 2, None)


def test_a_copy_in_the_format_of_0_1_is_the_same_task(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the lease of the task that runs would let its copy run beside it."""
    sqs_env(DISPATCH_MESSAGE_FORMAT="base64")
    sent: list[str] = []
    monkeypatch.setattr(Queue, "send", lambda self, body, options: sent.append(body))
    name = open_queue("jobs").name
    DELAYED_COPIES.resend(Message(function="record", id="from-sqs"), 30, Delivery(queue=name))
    assert Message.decode(sent[0], queue=name, default_id="of-the-copy").id == "from-sqs"


def test_a_long_delay_hops(sqs_env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue("jobs")
    sent: list[tuple[str, Any]] = []
    monkeypatch.setattr(Queue, "send", lambda self, body, options: sent.append((body, options)))
    DELAYED_COPIES.resend(Message(function="record"), 5000, Delivery(queue=queue.name))
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


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(SystemExit, Outcome.UNAVAILABLE), (GeneratorExit, Outcome.FAILED)],
)
def test_a_module_that_cannot_be_imported_costs_one_task(
    table: Environment, error: type[BaseException], outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(dispatch_table, "import_dotted_path", raising(error))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, "record").result(20).outcome is outcome


def test_the_main_threads_exit_passes_an_import(
    table: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch_table, "import_dotted_path", raising(SystemExit))
    with pytest.raises(SystemExit):
        run("record")


# --- the configured class and a listed class that does not inherit from it ---


class Listed(SafeTask):
    def run(self, *args: Any) -> None:
        calls.append(("run", self.max_retries, self.verbose))
        if args:
            raise ValueError


class ListedWithHook(Listed):
    max_retries = 7

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        calls.append(("own on_error", args))


class Watcher(Observer):
    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def delivering(self, delivery: RunView) -> Iterator[None]:
        yield
        calls.append((f"{self.name} delivered", delivery.outcome))

    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        yield
        calls.append((f"{self.name} attempted {type(task).__name__}", delivery.outcome))


class Configured(SafeTask):
    """A project's own class, which BEANSTALK_DISPATCH_SAFE_TASK names."""

    max_retries = 3
    verbose = False
    observers: ClassVar[Sequence[Observer]] = (Watcher("configured"),)

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        assert self.delivery
        calls.append(("configured on_error", args, self.delivery.receive_count))

    def process(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("before",))
        super().process(*args, **kwargs)
        calls.append(("after",))


class ListedChild(Configured, Listed):
    observers: ClassVar[Sequence[Observer]] = (*Configured.observers, Watcher("own"))


@pytest.fixture
def configured(env: Environment) -> None:
    here = "tests.unit.running.test_executor"
    env(
        DISPATCH_TABLE=f"listed={here}.Listed hook={here}.ListedWithHook child={here}.ListedChild "
        "record=tests.jobs.record fail=tests.jobs.fail",
        DISPATCH_SAFE_TASK=f"{here}.Configured",
    )


@pytest.mark.usefixtures("configured")
def test_the_configured_classs_hooks_options_and_process_reach_a_listed_class() -> None:
    consumer = Recording()
    assert run("listed", 1, consumer=consumer).outcome is Outcome.RETRY
    assert calls == [
        ("before",),
        ("run", 3, False),
        ("configured on_error", (1,), 3),
        ("after",),
        ("configured attempted Listed", Outcome.RETRY),
        ("configured delivered", Outcome.RETRY),
    ]


@pytest.mark.usefixtures("configured")
def test_they_come_after_the_listed_classs_own() -> None:
    assert run("hook", 1, attempt=8).outcome is Outcome.FAILED
    assert calls[1:4] == [
        ("run", 7, False),
        ("own on_error", (1,)),
        ("configured on_error", (1,), 3),
    ]


@pytest.mark.usefixtures("configured")
def test_a_child_of_the_configured_class_has_everything_once() -> None:
    assert run("child").outcome is Outcome.DONE
    assert calls == [
        ("before",),
        ("run", 3, False),
        ("after",),
        ("own attempted ListedChild", Outcome.DONE),
        ("configured attempted ListedChild", Outcome.DONE),
        ("configured delivered", Outcome.DONE),
    ]


@pytest.mark.usefixtures("configured")
def test_a_plain_function_is_wrapped_in_the_configured_class() -> None:
    assert run("fail", "x", consumer=Recording()).outcome is Outcome.RETRY
    assert ("configured on_error", ("x",), 3) in calls


@pytest.mark.usefixtures("configured")
def test_an_observer_sees_a_refused_delivery() -> None:
    assert run("unlisted").outcome is Outcome.UNKNOWN_FUNCTION
    assert calls == [("configured delivered", Outcome.UNKNOWN_FUNCTION)]


def test_a_listed_base_of_the_configured_class_is_run_as_the_configured_class(
    env: Environment,
) -> None:
    here = "tests.unit.running.test_executor"
    env(DISPATCH_TABLE=f"listed={here}.Listed", DISPATCH_SAFE_TASK=f"{here}.ListedWithHook")
    assert run("listed").outcome is Outcome.DONE
    assert calls == [("run", 7, True)]


def test_without_a_configured_class_that_loads_nothing_is_observed(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(DISPATCH_SAFE_TASK="tests.nowhere.Task")
    assert configured_observers(get_config()) == ()
    assert "BEANSTALK_DISPATCH_SAFE_TASK could not be loaded; tasks are not observed" in caplog.text


class SetsOptions(SafeTask):
    """An attribute that the instance sets is not replaced by the configured class's."""

    def __init__(self) -> None:
        super().__init__(max_retries=0)

    def run(self) -> None:
        calls.append((self.max_retries, self.verbose))


def test_an_option_that_the_instance_sets_is_kept(env: Environment) -> None:
    here = "tests.unit.running.test_executor"
    env(DISPATCH_TABLE=f"sets={here}.SetsOptions", DISPATCH_SAFE_TASK=f"{here}.Configured")
    assert run("sets").outcome is Outcome.DONE
    assert (0, False) in calls


def test_the_signal_of_a_delivery_has_its_outcome(table: Environment) -> None:
    seen: list[tuple[Any, ...]] = []

    def finished(delivery: RunView, outcome: Outcome, exception: object, **more: Any) -> None:
        seen.append((delivery.message_id, outcome, exception))

    delivery_finished.connect(finished)
    try:
        run("record")
        body = Message(function="unlisted").encode(queue="q")
        failure, _ = deliver_and_keep(body, delivery())
    finally:
        delivery_finished.disconnect(finished)
    assert seen == [
        ("from-sqs", Outcome.DONE, None),
        ("from-sqs", Outcome.UNKNOWN_FUNCTION, failure.exception),
    ]


# --- what a task activates ---


def test_what_a_task_activates_ends_with_its_delivery(env: Environment) -> None:
    env(DISPATCH_TABLE="activates=tests.unit.running.test_executor.activates")
    language, zone = translation.get_language(), timezone.get_current_timezone_name()
    assert run("activates").outcome is Outcome.DONE
    assert calls == [("de", "Asia/Tokyo")]
    assert translation.get_language() == language != "de"
    assert timezone.get_current_timezone_name() == zone != "Asia/Tokyo"


def activates() -> None:
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    calls.append((translation.get_language(), timezone.get_current_timezone_name()))


def test_a_threads_tasks_share_its_caches(env: Environment) -> None:
    env(DISPATCH_TABLE="cached=tests.unit.running.test_executor.cached")
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            assert pool.submit(run, "cached").result(20).outcome is Outcome.DONE
    assert calls[0] == calls[1]


def cached() -> None:
    calls.append((id(caches["default"]),))


# --- what becomes of a message ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "on_failure", "is_final"),
    [
        ("record", "redeliver", False),
        ("fail", "redeliver", False),
        ("fail", "acknowledge", True),
        ("unlisted", "redeliver", True),
        ("AlwaysRetry", "acknowledge", False),
    ],
)
def test_a_delivery_says_whether_its_failure_is_final(
    table: Environment, function: str, on_failure: str, is_final: bool
) -> None:
    table(DISPATCH_ON_FAILURE=on_failure)
    body, delivery = Message(function=function).encode(queue="q"), Delivery(queue="q")
    ended, _ = deliver_and_keep(body, delivery, Recording())
    assert (ended.is_final, ended.is_dead_lettered) == (is_final, False)


@pytest.mark.parametrize("message_id", [None, "from-sqs"])
def test_a_periodic_task_has_the_id_of_its_message(
    table: Environment, message_id: str | None
) -> None:
    table(DISPATCH_PERIODIC_TASKS="record")
    delivery = Delivery(queue="q", message_id=message_id, task_name="record")
    ended, result = deliver_and_keep("", delivery)
    assert result.outcome is Outcome.DONE
    assert (ended.message.id == "from-sqs") is (message_id is not None)


@pytest.mark.parametrize(
    ("result", "call"),
    [
        (Result(outcome=Outcome.DONE), "done"),
        (Result(outcome=Outcome.RETRY, successor=Successor.COPY), "handed_on"),
        (Result(outcome=Outcome.RETRY), "give_up"),  # hidden, or its copy was not sent
        (Result(outcome=Outcome.FAILED, successor=Successor.DEAD_LETTER), "handed_on"),
        (Result(outcome=Outcome.FAILED), "give_up"),
        (Result(outcome=Outcome.FAILED, successor=Successor.NOBODY), "give_up"),
        (Result(outcome=Outcome.TIMED_OUT), "give_up"),
        (Result(outcome=Outcome.OVERDUE), "give_up"),
    ],
)
def test_a_lease_learns_the_end_of_its_attempt(result: Result, call: str) -> None:
    calls: list[str] = []

    class Lease:
        def __getattr__(self, name: str) -> Any:
            return lambda: calls.append(name)

    lease.update(Lease(), result)  # type: ignore[arg-type]
    assert calls == [call]


def test_only_an_import_that_failed_shows_its_cause_in_the_line(
    table: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "beanstalk_dispatch.task")
    for function in ("fail", "no_package"):
        message = Message(function=function)
        deliver(message.encode(queue="q"), Delivery(queue="q", message_id=function))
    lines = [each for each in caplog.messages if each.startswith("task id=")]
    assert "reason='the task failed'" in lines[0]
    assert "(ModuleNotFoundError: No module named 'nowhere')" in lines[1]
    assert not any("dead_letter_queue=" in line for line in lines)
