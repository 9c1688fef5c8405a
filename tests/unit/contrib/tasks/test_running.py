"""How Django tasks run: context, policy, retries, one end, and what a receiver is told."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.client import cancel
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results import Status, get_result
from beanstalk_dispatch.contrib.tasks import library
from beanstalk_dispatch.exceptions import TaskCancelled, TaskCut
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running import cutting
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.safe_task import Retry, SafeTask
from beanstalk_dispatch.sqs.opening import open_queue
from tests import django_tasks as tasks
from tests.conftest import Environment
from tests.consumers import run_all
from tests.jobs import calls
from tests.runs import deliver, run_of

Sent = list[tuple[Any, ...]]


def test_a_task_is_attempted_once_and_fails_for_good(results_env: Environment, sent: Sent) -> None:
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    result = tasks.fail.enqueue("reason")
    assert run_all() == [Outcome.FAILED]
    assert sent[1:] == [("started", "RUNNING", 1), ("finished", "FAILED", 1)]
    result.refresh()
    (error,) = result.errors
    assert error.exception_class is ValueError
    assert "ValueError: reason" in error.traceback
    assert result.finished_at is not None
    with pytest.raises(ValueError, match="Task failed"):
        result.return_value  # noqa: B018


def test_a_failure_that_is_retried_is_ready_again(results_env: Environment, sent: Sent) -> None:
    result = tasks.flaky.enqueue(3)
    seen = []
    for _ in range(3):
        run_all(deliveries=1)
        result.refresh()
        seen.append((str(result.status), result.attempts, len(result.errors)))
    assert seen == [("READY", 1, 1), ("READY", 2, 2), ("SUCCESSFUL", 3, 2)]
    assert result.return_value == 3
    assert calls == [("flaky", 1), ("flaky", 2), ("flaky", 3)]
    assert [name for name, *_ in sent] == ["enqueued", *["started"] * 3, "finished"]
    assert sent[-1] == ("finished", "SUCCESSFUL", 3)
    times: list[Any] = [result.started_at, result.last_attempted_at, result.finished_at]
    assert sorted(set(times)) == times


def test_ready_is_written_before_the_retry_is_sent(
    results_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may end the next attempt before this one has sent its signals."""
    result = tasks.flaky.enqueue(2)
    resend = DelayedCopies.resend
    seen: list[Any] = []

    def resend_and_run(*args: Any) -> None:
        result.refresh()
        seen.append((str(result.status), result.attempts, len(result.errors)))
        resend(*args)
        monkeypatch.setattr(DelayedCopies, "resend", resend)
        assert run_all() == [Outcome.DONE]

    monkeypatch.setattr(DelayedCopies, "resend", resend_and_run)
    assert run_all(deliveries=1) == [Outcome.RETRY]
    assert seen == [("READY", 1, 1)]
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == ("SUCCESSFUL", 2, 1)


def test_a_receiver_may_enqueue_the_failed_task_again(results_env: Environment) -> None:
    """Another author's app asks the backend for the arguments, which are not kept."""
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    found: list[Any] = []

    def look(task_result: Any, **_: Any) -> None:
        found.extend(task_result.task.get_result(task_result.id).args)

    library.task_finished.connect(look)
    result = tasks.fail.enqueue("the reason")
    run_all()
    library.task_finished.disconnect(look)
    assert found == ["the reason"]
    assert tasks.fail.get_result(result.id).args == []


def test_a_cancelled_task_has_one_end_and_has_not_started(
    results_env: Environment, sent: Sent
) -> None:
    results_env(DISPATCH_LEASE_CACHE="default")
    result = tasks.add.enqueue(1, 2)
    cancel(result.id)
    message = open_queue("jobs").receive(count=1, wait=0, visibility=60)[0]
    for count in (1, 2):  # its delete was lost, and SQS delivers it again
        delivery = Delivery(queue=message.queue.name, receive_count=count)
        assert deliver(message.body, delivery).outcome is Outcome.CANCELLED
    assert sent[1:] == [("finished", "FAILED", 0)]
    result.refresh()
    assert result.errors[0].exception_class is TaskCancelled


def test_a_task_that_stops_when_it_is_cancelled_has_one_end(
    results_env: Environment, sent: Sent
) -> None:
    tasks.stop.enqueue()
    assert run_all() == [Outcome.CANCELLED]
    assert sent[1:] == [("started", "RUNNING", 1), ("finished", "FAILED", 1)]


def test_without_results_the_end_of_a_cancelled_task_is_sent_too(
    tasks_env: Environment, sent: Sent
) -> None:
    tasks_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    result = tasks.add.enqueue(1, 2)
    cancel(result.id)
    assert run_all() == [Outcome.CANCELLED]
    assert sent[1:] == [("finished", "FAILED", 0)]


def test_a_task_that_is_cancelled_in_this_process_says_so_to_its_caller(
    results_env: Environment, sent: Sent
) -> None:
    results_env(DISPATCH_LEASE_CACHE="default", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    result = tasks.cancels_itself.enqueue()
    assert sent[1:] == [("started", "RUNNING", 1), ("finished", "FAILED", 1)]
    assert (str(result.status), len(result.errors)) == ("FAILED", 2)


def test_without_results_the_attempts_are_counted_too(tasks_env: Environment, sent: Sent) -> None:
    tasks.flaky.enqueue(3)
    assert run_all() == [Outcome.RETRY, Outcome.RETRY, Outcome.DONE]
    assert calls == [("flaky", 1), ("flaky", 2), ("flaky", 3)]
    assert sent[-1] == ("finished", "SUCCESSFUL", 3)


def test_spent_attempts_are_one_end(results_env: Environment, sent: Sent) -> None:
    """SQS delivers the message again, since no dead-letter queue has taken it."""
    result = tasks.flaky.enqueue(9)
    outcomes = run_all(deliveries=5)
    assert outcomes == [Outcome.RETRY, Outcome.RETRY, *[Outcome.FAILED] * 3]
    assert calls == [("flaky", 1), ("flaky", 2), ("flaky", 3)]
    assert [name for name, *_ in sent].count("finished") == 1
    assert len(sent) == 5
    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == ("FAILED", 3, 3)


def test_a_kill_before_the_end_was_announced_repeats_the_attempt(
    results_env: Environment, sent: Sent
) -> None:
    result = tasks.fail.enqueue()
    run_all(deliveries=1)
    record = get_result(result.id)
    assert record.is_announced
    record.is_announced = False
    library_store().save(record)
    assert run_all(deliveries=2) == [Outcome.FAILED] * 2
    assert [name for name, *_ in sent] == ["enqueued", *["started", "finished"] * 2]


def test_a_dead_letter_runs_again_when_it_is_moved_back(
    results_env: Environment, queue_name: str, sent: Sent
) -> None:
    dead = f"jobs={queue_name} dead={queue_name}-dead"
    results_env(DISPATCH_QUEUES=dead, DISPATCH_DEAD_LETTER_QUEUE="dead")
    result = tasks.flaky.enqueue(4)
    assert run_all() == [Outcome.RETRY, Outcome.RETRY, Outcome.FAILED]
    result.refresh()
    assert result.status == "FAILED"
    (letter,) = open_queue("dead").receive(count=1, wait=0, visibility=60)
    open_queue("jobs").send(letter.body, {})
    assert run_all() == [Outcome.DONE]
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 4, 4)


def test_a_task_that_ends_its_process_has_failed(
    results_env: Environment, queue_name: str, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"jobs={queue_name} dead={queue_name}-dead"
    results_env(DISPATCH_QUEUES=dead, DISPATCH_DEAD_LETTER_QUEUE="dead")
    monkeypatch.setattr(cutting, "MAX_CUTS", 0)  # as if it had been cut off that often
    result = tasks.add.enqueue(1, 2)
    assert run_all() == [Outcome.CUT]
    result.refresh()
    assert (result.status, result.errors[0].exception_class) == ("FAILED", TaskCut)
    # It did not run now: the attempt is the one that was cut off, by a process that is not known.
    assert sent[1:] == [("finished", "FAILED", 1)]
    assert (result.attempts, result.worker_ids) == (1, ["unknown"])


def test_only_listed_errors_are_retried(tasks_env: Environment, sent: Sent) -> None:
    tasks_env(DISPATCH_ON_FAILURE="acknowledge")
    tasks.choosy.enqueue("os")
    assert run_all() == [*[Outcome.RETRY] * 4, Outcome.FAILED]
    tasks.choosy.enqueue("value")
    assert run_all() == [Outcome.FAILED]


def test_a_backoff_function_gets_the_error_and_the_result(tasks_env: Environment) -> None:
    tasks_env(DISPATCH_ON_FAILURE="acknowledge")
    tasks.own_backoff.enqueue()
    assert run_all() == [Outcome.RETRY, Outcome.FAILED]
    assert calls[0] == ("backoff", "KeyError", 1)


def test_a_broken_backoff_function_costs_a_log_line(
    tasks_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    tasks_env(DISPATCH_ON_FAILURE="acknowledge")
    tasks.broken_backoff.enqueue()
    assert run_all(deliveries=1) == [Outcome.RETRY]
    assert "backoff failed seconds=10 error=ZeroDivisionError: of the backoff" in caplog.messages


def test_a_time_limit_fails_the_task(results_env: Environment) -> None:
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    result = tasks.too_slow.enqueue()
    assert run_all() == [Outcome.TIMED_OUT]
    result.refresh()
    assert result.status == "FAILED"
    assert result.errors[0].exception_class_path.endswith(".TaskTimeout")


def test_retry_can_be_raised(results_env: Environment, sent: Sent) -> None:
    results_env(DISPATCH_SAFE_TASK="tests.unit.contrib.tasks.test_running.Patient")
    result = tasks.retry_once.enqueue()
    assert run_all() == [Outcome.RETRY, Outcome.DONE]
    result.refresh()
    assert (result.return_value, result.attempts, result.errors) == ("done", 2, [])


class Patient(SafeTask):
    max_retries = 2


def test_a_value_becomes_json(results_env: Environment) -> None:
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    good: Any = tasks.coroutine.enqueue("x")
    bad = tasks.not_json.enqueue()
    assert run_all() == [Outcome.DONE, Outcome.FAILED]
    good.refresh()
    bad.refresh()
    assert good.return_value == ["x"]
    assert "TypeError: Unsupported type" in bad.errors[0].traceback


def test_a_killed_attempt_is_counted(results_env: Environment, sent: Sent) -> None:
    """The message of a process that is killed is delivered again, with nothing said of it."""
    result = tasks.add.enqueue(1, 2)
    record = get_result(result.id)
    record.worker_ids.append("killed")
    record.status = type(record.status)("RUNNING")
    library_store().save(record)
    queue = open_queue("jobs")
    received = queue.receive(count=1, wait=0, visibility=60)
    queue.change_visibility_batch(received, [0])
    assert run_all() == [Outcome.DONE]
    result.refresh()
    assert (result.status, result.attempts, result.worker_ids[0]) == ("SUCCESSFUL", 2, "killed")


def library_store() -> Any:
    from beanstalk_dispatch.contrib.results.stores import store_of

    return store_of(get_config())


def test_a_duplicate_is_no_attempt(results_env: Environment, sent: Sent) -> None:
    """A message that the lease refuses changes neither the result nor the receivers' records."""
    results_env(DISPATCH_LEASE_CACHE="default")
    result = tasks.add.enqueue(1, 2)
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=0)
    open_queue("jobs").send(received.body, {})
    assert run_all() == [Outcome.DONE, Outcome.DUPLICATE]
    result.refresh()
    assert (result.status, result.attempts) == ("SUCCESSFUL", 1)
    assert [name for name, *_ in sent] == ["enqueued", "started", "finished"]


def test_a_late_duplicate_of_a_success_changes_nothing(
    results_env: Environment, sent: Sent
) -> None:
    """There is no lease, so it runs. Neither the result nor a receiver is told that it failed."""
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    result = tasks.flaky.enqueue(1)
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=0)
    assert run_all() == [Outcome.DONE]
    result.refresh()
    before = get_result(result.id)
    body = Message(function=before.function, id=result.id, args=[9], attempt=3)
    open_queue("jobs").send(body.encode(queue=received.queue.name), {})
    assert run_all() == [Outcome.FAILED]
    assert get_result(result.id) == before
    assert [name for name, *_ in sent] == ["enqueued", "started", "finished"]


def test_a_duplicate_that_is_slower_than_a_success_has_no_end_of_its_own(
    results_env: Environment, sent: Sent
) -> None:
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    result = tasks.fails_after.enqueue()
    record = get_result(result.id)
    record.status = Status.SUCCESSFUL
    tasks.meanwhile.append(lambda: library_store().save(record))
    assert run_all() == [Outcome.FAILED]
    assert get_result(result.id) == record
    assert [name for name, *_ in sent] == ["enqueued", "started"]


def test_a_failure_in_this_process_is_one_end(results_env: Environment, sent: Sent) -> None:
    results_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    result = tasks.fail.enqueue()
    assert (str(result.status), len(result.errors)) == ("FAILED", 1)
    assert sent[1:] == [("started", "RUNNING", 1), ("finished", "FAILED", 1)]
    result.refresh()
    assert str(result.status) == "FAILED"


def test_ctrl_c_in_this_process_leaves_nothing_running(
    results_env: Environment, sent: Sent
) -> None:
    results_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    ids: list[str] = []

    def receive(task_result: Any, **_: Any) -> None:
        ids.append(task_result.id)

    library.task_enqueued.connect(receive)
    with pytest.raises(KeyboardInterrupt):
        tasks.interrupted.enqueue()
    library.task_enqueued.disconnect(receive)
    assert get_result(ids[0]).status is Status.FAILED


def test_spent_retries_of_a_task_that_asks_for_them_have_its_error(
    results_env: Environment, sent: Sent
) -> None:
    results_env(DISPATCH_ON_FAILURE="acknowledge")
    result = tasks.asks_again.enqueue()
    assert run_all() == [Outcome.RETRY, Outcome.FAILED]
    result.refresh()
    (error,) = result.errors
    assert error.exception_class is Retry
    assert "KeyError: 'the cause'" in error.traceback


def test_djangos_own_line_of_a_failure_has_its_traceback(
    tasks_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    tasks_env(DISPATCH_ON_FAILURE="acknowledge")
    tasks.fail.enqueue("reason")
    run_all()
    (line,) = [each for each in caplog.records if "state=FAILED" in each.getMessage()]
    assert line.levelno == logging.ERROR
    assert line.exc_info is not None
    assert repr(line.exc_info[1]) == "ValueError('reason')"


def test_a_receiver_that_fails_changes_nothing(tasks_env: Environment) -> None:
    def fail(**_: Any) -> None:
        raise ValueError("a receiver's own")

    signals = (library.task_enqueued, library.task_started, library.task_finished)
    for signal in signals:
        signal.connect(fail)
    try:
        assert tasks.add.enqueue(1, 2).id
        assert run_all() == [Outcome.DONE]
    finally:
        for signal in signals:
            signal.disconnect(fail)


def test_a_task_in_another_task_has_its_own_context(tasks_env: Environment) -> None:
    tasks_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    result = tasks.outer.enqueue()
    assert result.return_value == [result.id, True]
    assert result.attempts == 1


def test_the_context_is_made_anew_without_its_observer(tasks_env: Environment) -> None:
    found: Any = entry("tests.django_tasks.flaky", get_config())
    safe_task, _ = found.make_task()
    message = Message(function="tests.django_tasks.flaky", attempt=2)
    safe_task.delivery = run_of(message, queue="q")
    result = safe_task.run.result()
    assert (result.id, result.task) == (message.id, tasks.flaky)


def test_a_message_imports_nothing_but_the_module_that_lists_its_task(
    tasks_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unlisted_module.py").write_text("loaded = True\n")
    (tmp_path / "broken_tasks.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    tasks_env(DISPATCH_TASKS="broken_tasks tests.django_tasks")

    def outcome(function: str) -> Outcome:
        body = Message(function=function, args=[1, 2]).encode(queue="q")
        return deliver(body, Delivery(queue="q")).outcome

    assert outcome("tests.django_tasks.add") == Outcome.DONE
    assert outcome("unlisted_module.loaded") == Outcome.UNKNOWN_FUNCTION
    assert outcome("broken_tasks.task") == Outcome.UNAVAILABLE
    assert "unlisted_module" not in sys.modules
    (tmp_path / "broken_tasks.py").write_text(
        "from tests.django_tasks import add, task\n@task\ndef task(): pass\n"
    )
    assert entry("broken_tasks.task", get_config()).make_task()
    del sys.modules["broken_tasks"]  # a check looks for all tasks that are imported


def test_a_task_that_the_list_does_not_name_is_unknown(tasks_env: Environment) -> None:
    tasks_env(DISPATCH_TASKS="tests.django_tasks.add")
    message = Message(function="tests.django_tasks.echo")
    open_queue("jobs").send(message.encode(queue=open_queue("jobs").name), {})
    assert run_all(deliveries=1) == [Outcome.UNKNOWN_FUNCTION]


def test_messages_of_a_renamed_task_run_if_the_table_has_the_old_name(
    results_env: Environment,
) -> None:
    queue = open_queue("jobs")
    message = Message(function="tests.django_tasks.sum_up", args=[1, 2])
    queue.send(message.encode(queue=queue.name), {})
    assert run_all(deliveries=1) == [Outcome.UNKNOWN_FUNCTION]
    assert get_result(message.id).errors[0].exception_class_path.endswith(".UnknownFunction")
    results_env(DISPATCH_TABLE="tests.django_tasks.sum_up=tests.django_tasks.add")
    assert run_all() == [Outcome.DONE]
    assert get_result(message.id).return_value == 3
    assert tasks.add.get_result(message.id).return_value == 3


def test_a_delay_of_the_policy(tasks_env: Environment) -> None:
    found: Any = entry("tests.django_tasks.patient", get_config())
    safe_task, _ = found.make_task()
    assert safe_task.timeout_timedelta == timedelta(minutes=5)
    assert safe_task.max_retries == 1
    assert safe_task.retry_backoff == timedelta(seconds=90)
