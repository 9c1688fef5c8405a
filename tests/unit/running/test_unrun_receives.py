"""Which receives of a FIFO message are no attempts."""

from __future__ import annotations

import pytest
from django.core.cache import caches

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.running import unrun_receives
from beanstalk_dispatch.running.unrun_receives import UnrunReceives
from tests.conftest import Environment


def fifo(receive_count: int, message_id: str | None = "1", queue: str = "q.fifo") -> Delivery:
    return Delivery(queue=queue, message_id=message_id, receive_count=receive_count)


def test_each_receive_counts_once_and_one_that_starts_after_all_does_not() -> None:
    unrun = UnrunReceives()
    for _ in range(2):
        unrun.note(fifo(1))
    unrun.note(fifo(2))
    assert unrun.start(fifo(2)) == 1
    assert unrun.start(fifo(3)) == 1


@pytest.mark.parametrize(("alias", "known"), [("default", 1), (None, 0), ("nowhere", 0)])
def test_other_processes_know_them_by_the_cache_of_the_lease(
    env: Environment, caplog: pytest.LogCaptureFixture, alias: str | None, known: int
) -> None:
    env(DISPATCH_LEASE_CACHE=alias)
    caches["default"].clear()
    unrun = UnrunReceives()
    unrun.note(fifo(1))
    unrun.note(fifo(2), is_shared=False)
    assert UnrunReceives().start(fifo(3)) == known
    assert ("receive not noted cache=nowhere" in caplog.text) is (alias == "nowhere")


@pytest.mark.parametrize("delivery", [fifo(1, None), fifo(1, queue="q")])
def test_without_an_id_and_on_a_standard_queue_nothing_is_remembered(delivery: Delivery) -> None:
    unrun = UnrunReceives()
    unrun.note(delivery)
    assert unrun.start(delivery) == unrun.start(fifo(9)) == 0


def test_only_the_last_messages_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrun_receives, "_MAX_REMEMBERED", 2)
    unrun = UnrunReceives()
    for message_id in "123":
        unrun.note(fifo(1, message_id))
    assert [unrun.start(fifo(2, message_id)) for message_id in "123"] == [0, 1, 1]
