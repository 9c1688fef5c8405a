"""Which receives have started no task, and what is received because of it."""

from __future__ import annotations

import math

import pytest

from beanstalk_dispatch.consumers.poller import receive_budget
from beanstalk_dispatch.consumers.poller.receive_budget import ReceiveBudget
from beanstalk_dispatch.process import clock
from tests.workers import messages


@pytest.fixture
def budget() -> ReceiveBudget:
    return ReceiveBudget()


def pass_seconds(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = clock.monotonic() + seconds
    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: now)


def test_receives_that_start_no_task_are_counted_until_the_message_is_done(
    budget: ReceiveBudget,
) -> None:
    first, second = messages(2)
    budget.not_run([first, second])
    budget.not_run([first])
    counts = [budget.unrun_receives(each.message_id) for each in (first, second)]
    assert counts == [2, 1]
    budget.done(first)
    assert budget.unrun_receives(first.message_id) == 0


def test_a_done_message_that_was_never_received_in_vain_is_nothing_to_remember(
    budget: ReceiveBudget,
) -> None:
    budget.done(messages(1)[0])
    assert budget.max_messages() == 10


def test_only_the_last_messages_are_remembered(
    budget: ReceiveBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive_budget, "_MAX_REMEMBERED", 2)
    budget.not_run(messages(3))
    assert [budget.unrun_receives(f"None-{number}") for number in range(3)] == [0, 1, 1]


def test_a_failure_on_a_standard_queue_interrupts_nothing(budget: ReceiveBudget) -> None:
    budget.failed(messages(1)[0], 0)
    budget.not_run(messages(1))
    assert budget.max_messages() == 10


def test_an_interrupted_group_is_received_one_message_at_a_time_until_all_of_it_is_done(
    budget: ReceiveBudget,
) -> None:
    head, *rest = messages(3, group="a")
    budget.failed(head, 0)
    budget.not_run(rest)
    budget.done(messages(1, group="b")[0])
    assert budget.max_messages() == 1
    for message in (head, *rest):
        assert budget.max_messages() == 1
        budget.done(message)
    assert budget.max_messages() == 10


def test_while_the_failed_message_is_hidden_ten_are_received_in_a_poll_that_ends_before(
    budget: ReceiveBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS delivers nothing of its group."""
    assert budget.max_wait() == math.inf
    head, *rest = messages(3, group="a")
    budget.failed(head, 20)
    budget.not_run(rest, 3)
    assert budget.max_messages() == 10
    assert budget.max_wait() == pytest.approx(19, abs=0.5)
    pass_seconds(monkeypatch, 19)
    assert (budget.max_messages(), budget.max_wait()) == (1, math.inf)


def test_while_it_runs_here_ten_are_received(budget: ReceiveBudget) -> None:
    head, *rest = messages(3, group="a")
    budget.received([head])
    budget.failed(head, 0)
    budget.not_run(rest)
    assert budget.max_messages() == 1
    budget.received(messages(1, group="b"))
    assert budget.max_messages() == 1
    budget.received([head])
    assert (budget.max_messages(), budget.max_wait()) == (10, math.inf)
    budget.failed(head, 0)
    assert budget.max_messages() == 1


def test_an_interrupted_group_is_forgotten_a_minute_after_its_delay(
    budget: ReceiveBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when SQS has moved the failed message to the dead-letter queue."""
    budget.failed(messages(1, group="a")[0], 30)
    assert budget.max_messages() == 10
    pass_seconds(monkeypatch, 89)
    assert budget.max_messages() == 1
    pass_seconds(monkeypatch, 2)
    assert budget.max_messages() == 10


def test_two_interrupted_groups_are_both_remembered(
    budget: ReceiveBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    (late,), (soon,) = messages(1, group="a"), messages(1, group="b")
    budget.failed(late, 3600)
    budget.failed(soon, 0)
    budget.done(soon)
    pass_seconds(monkeypatch, 3600)
    assert budget.max_messages() == 1, "the failed message of the other group comes now"
    budget.done(late)
    assert budget.max_messages() == 10


def test_a_group_is_forgotten_although_another_one_fails_again_and_again(
    budget: ReceiveBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when SQS has moved the message of the first group away."""
    budget.failed(messages(1, group="a")[0], 0)
    (again,) = messages(1, group="b")
    for _ in range(3):
        pass_seconds(monkeypatch, 30)
        budget.failed(again, 0)
        budget.done(again)
    assert budget.max_messages() == 10


def test_a_group_is_remembered_while_its_messages_are_done_one_after_the_other(
    budget: ReceiveBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, *rest = messages(3, group="a")
    budget.failed(head, 0)
    budget.not_run(rest)
    pass_seconds(monkeypatch, 59)
    budget.done(head)
    pass_seconds(monkeypatch, 59)
    assert budget.max_messages() == 1, "118 seconds after the failure"
    pass_seconds(monkeypatch, 2)
    assert budget.max_messages() == 10
