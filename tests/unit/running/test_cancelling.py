"""A cancelled task does not run, or not again; and the messages of a paused queue wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from django.core.cache import caches

from beanstalk_dispatch.client import cancel
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.calling_process import execute
from beanstalk_dispatch.exceptions import SendError, TaskCancelled
from beanstalk_dispatch.messages.delivery import Delivery, RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.messages.record import pause, paused_key, resume
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.safe_task import Retry, SafeTask
from beanstalk_dispatch.scheduling.destination import resolve
from beanstalk_dispatch.signals import task_finished
from tests.conftest import Environment
from tests.jobs import calls
from tests.runs import deliver

seen: list[tuple[Any, ...]] = []


class Watch(Observer):
    @contextmanager
    def cancelling(self, delivery: RunView) -> Iterator[None]:
        seen.append(("cancelling", delivery.outcome))
        yield

    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        yield
        seen.append(("attempted", delivery.outcome))


class Watched(SafeTask):
    observers = (Watch(), Observer())

    def run(self) -> None:
        calls.append(("watched",))


class CancelsItself(SafeTask):
    """Is cancelled while it runs."""

    max_retries = 3
    verbose = False

    def run(self, then: str) -> None:
        assert self.delivery is not None
        assert self.delivery.message is not None
        assert not self.cancelled
        cancel(self.delivery.message.id)
        cast("Run", self.delivery)._next_ask_at = 0  # as if a second had passed
        calls.append(("cancelled", self.cancelled))
        if then == "stop":
            raise TaskCancelled
        if then == "retry":
            raise Retry(delay=0)
        if then == "fail":
            raise ValueError("to be tried again")

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_error",))

    def on_success(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_success",))

    def on_completion(self, *args: Any, **kwargs: Any) -> None:
        calls.append(("on_completion",))


class Copies(DelayedCopies):
    """Keeps what it is to send again."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, float]] = []

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        self.sent.append((message, delay))


@pytest.fixture
def copies(env: Environment) -> Iterator[Copies]:
    env(
        DISPATCH_TABLE="record=tests.jobs.record retry=tests.jobs.AlwaysRetry "
        f"itself={__name__}.CancelsItself watched={__name__}.Watched",
        DISPATCH_LEASE_CACHE="default",
    )
    caches["default"].clear()
    calls.clear()
    seen.clear()
    yield Copies()
    caches["default"].clear()


def run(message: Message, consumer: DelayedCopies, *, queue: str = "q") -> Result:
    return deliver(message.encode(queue=queue), Delivery(queue=queue), consumer)


# --- cancel ---


def test_a_cancelled_task_does_not_run(copies: Copies, caplog: pytest.LogCaptureFixture) -> None:
    message = Message(function="record", id="one")
    cancel("one")
    caplog.set_level("INFO")
    result = run(message, copies)
    assert (result.outcome, result.status, result.is_acknowledged) == (Outcome.CANCELLED, 200, True)
    assert (result.is_final, result.successor) == (False, None)
    assert calls == []
    assert "outcome=cancelled receive_count=1" in caplog.text
    assert "reason='it was cancelled before it ran'" in caplog.text
    assert run(message, copies).outcome is Outcome.CANCELLED
    assert run(Message(function="record", id="two"), copies).outcome is Outcome.DONE


def test_a_task_that_is_done_is_a_duplicate_although_it_is_cancelled(copies: Copies) -> None:
    message = Message(function="record", id="one")
    assert run(message, copies).outcome is Outcome.DONE
    cancel("one")
    assert run(message, copies).outcome is Outcome.DUPLICATE


def test_the_cache_is_not_asked_more_often(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark comes with the lease's own entries."""
    cache, asked = caches["default"], []

    def note(name: str) -> None:
        method = getattr(cache, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            return method(*args, **kwargs)

        monkeypatch.setattr(cache, name, noted)

    get_many = cache.get_many
    monkeypatch.setattr(cache, "get_many", lambda keys: asked.append("get_many") or get_many(keys))  # type: ignore[func-returns-value]
    note("add")
    note("set")
    run(Message(function="record"), copies)
    assert asked == ["add", "get_many", "set"]


def test_observers_see_the_end_and_no_attempt(copies: Copies) -> None:
    finished: list[Any] = []

    def note(**arguments: Any) -> None:
        finished.append(arguments["outcome"])

    task_finished.connect(note)
    cancel("one")
    assert run(Message(function="watched", id="one"), copies).outcome is Outcome.CANCELLED
    assert (seen, finished) == ([("cancelling", Outcome.CANCELLED)], [])
    assert run(Message(function="watched"), copies).outcome is Outcome.DONE
    task_finished.disconnect(note)
    assert (seen[1:], finished) == ([("attempted", Outcome.DONE)], [Outcome.DONE])


def test_a_task_that_was_cancelled_while_it_ran_and_returned_is_done(copies: Copies) -> None:
    message = Message(function="itself", args=["return"])
    assert run(message, copies).outcome is Outcome.DONE
    assert calls == [("cancelled", True), ("on_success",), ("on_completion",)]


def test_a_task_that_stops_when_it_is_cancelled_is_no_failure(
    copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(function="itself", args=["stop"])
    caplog.set_level("INFO")
    result = run(message, copies)
    assert (result.outcome, result.status, result.is_acknowledged) == (Outcome.CANCELLED, 200, True)
    assert calls == [("cancelled", True), ("on_completion",)]
    assert copies.sent == []
    assert [each.levelname for each in caplog.records] == ["INFO"]
    assert "reason='the task has ended itself'" in caplog.text
    assert run(message, copies).outcome is Outcome.DUPLICATE


@pytest.mark.parametrize("then", ["fail", "retry"])
def test_a_retry_that_waits_is_cancelled(copies: Copies, then: str) -> None:
    message = Message(function="itself", args=[then])
    assert run(message, copies).outcome is Outcome.RETRY
    assert (("on_error",) in calls) == (then == "fail")
    ((copy, _),) = copies.sent
    calls.clear()
    assert run(copy, copies).outcome is Outcome.CANCELLED
    assert calls == []


def test_a_failure_that_is_delivered_again_is_cancelled(copies: Copies) -> None:
    copies.can_hide = True
    message = Message(function="retry", kwargs={"delay": 5})
    assert run(message, copies, queue="q.fifo").retry_after == 5
    cancel(message.id)
    assert run(message, copies, queue="q.fifo").outcome is Outcome.CANCELLED


def test_a_hop_is_cancelled_when_it_arrives(copies: Copies) -> None:
    message = Message(function="record", not_before=time.time() + 86400)
    assert run(message, copies).outcome is Outcome.DEFERRED
    cancel(message.id)
    assert run(copies.sent[0][0], copies).outcome is Outcome.CANCELLED
    assert len(copies.sent) == 1


def test_a_task_in_the_calling_process_is_cancelled(copies: Copies, env: Environment) -> None:
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_QUEUES="q=q")
    body = Message(function="itself", args=["fail"]).encode(queue="q")
    assert execute(resolve("q", get_config()), body)[1].outcome is Outcome.CANCELLED
    assert calls[0] == ("cancelled", True)
    assert calls.count(("cancelled", True)) == 1


def test_in_the_calling_process_a_cache_that_is_away_cancels_nothing(
    copies: Copies, env: Environment, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def away(*args: Any) -> None:
        raise ConnectionError

    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    monkeypatch.setattr(caches["default"], "get", away)
    assert run(Message(function="record", id="one"), copies).outcome is Outcome.DONE
    assert "not known whether cancelled id=one" in caplog.text


# --- pause ---


def test_a_message_of_a_paused_queue_waits_as_a_copy(
    copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(function="record", attempt=3)
    pause("q")
    caplog.set_level("INFO")
    result = run(message, copies)
    assert (result.outcome, result.status, result.is_acknowledged) == (Outcome.DEFERRED, 200, True)
    ((copy, delay),) = copies.sent
    assert (copy.id, copy.attempt, delay) == (message.id, 3, 10)
    assert "outcome=deferred" in caplog.text
    assert "reason='the queue is paused; the message waits for 10 s'" in caplog.text
    assert calls == []
    resume("q")
    assert run(copy, copies).outcome is Outcome.DONE


@pytest.mark.parametrize(("age", "delay"), [(0, 10), (60, 30), (1000, 500), (86400, 900)])
def test_a_copy_waits_for_half_as_long_as_the_pause_has_lasted(
    copies: Copies, age: float, delay: float
) -> None:
    caches["default"].set(paused_key("q"), time.time() - age)
    run(Message(function="record"), copies)
    assert copies.sent[0][1] == pytest.approx(delay, abs=1)


def test_a_cancelled_task_of_a_paused_queue_is_deleted(copies: Copies) -> None:
    pause("q")
    cancel("one")
    assert run(Message(function="record", id="one"), copies).outcome is Outcome.CANCELLED


def test_only_that_queue_is_paused(copies: Copies) -> None:
    pause("another")
    assert run(Message(function="record"), copies).outcome is Outcome.DONE


def test_a_poller_runs_what_it_has_received_before_the_pause(copies: Copies) -> None:
    pause("q")
    copies.can_hide = True
    assert run(Message(function="record"), copies).outcome is Outcome.DONE


def test_a_fifo_queue_is_not_paused_at_the_endpoint(
    copies: Copies, caplog: pytest.LogCaptureFixture
) -> None:
    pause("q.fifo")
    for _ in range(3):
        assert run(Message(function="record"), copies, queue="q.fifo").outcome is Outcome.DONE
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 1, "one a minute"
    assert warnings[0].startswith("queue is paused, but its tasks run queue=q.fifo: ")


def test_a_copy_that_cannot_be_sent_leaves_the_message(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise SendError("AccessDenied")

    pause("q")
    monkeypatch.setattr(copies, "resend", refuse)
    result = run(Message(function="record"), copies)
    assert (result.outcome, result.is_acknowledged) == (Outcome.FAILED, False)
    assert result.reason == "could not be sent again"
