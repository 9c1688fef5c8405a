from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.running.leases import held_leases
from beanstalk_dispatch.running.leases.held_leases import HeldLeases
from tests.workers import until


class Renewed:
    """A lease that notes its renewals."""

    def __init__(self, token: str, *, is_answered: bool = True) -> None:
        self.token = token
        self.is_answered = is_answered
        self.renewals = 0

    def renew(self) -> bool:
        self.renewals += 1
        return self.is_answered


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldLeases]:
    monkeypatch.setattr(held_leases, "CHECK_SECONDS", 0.01)
    made = HeldLeases()
    yield made
    until(lambda: not threads(made))


def threads(held: HeldLeases) -> list[threading.Thread]:
    return [
        each
        for each in threading.enumerate()
        if isinstance(each, ServiceThread) and each._loop == held._renew_while_held
    ]


def test_one_thread_renews_what_is_held_and_ends_with_it(held: HeldLeases) -> None:
    leases = [Renewed("one"), Renewed("two")]
    for each in leases:
        held.add(each)
    assert len(threads(held)) == 1
    until(lambda: all(each.renewals > 1 for each in leases))
    held.discard(leases[0])
    assert "one" not in held
    assert "two" in held
    held.discard(leases[1])
    until(lambda: not threads(held))
    held.add(leases[0])
    assert len(threads(held)) == 1
    held.discard(leases[0])


def test_after_a_cache_that_does_not_answer_the_others_wait_for_the_next_look() -> None:
    held = HeldLeases()
    held._is_watched = True
    leases = [Renewed("one"), Renewed("two", is_answered=False), Renewed("three")]
    for each in leases:
        held.add(each)
    held.renew()
    assert [each.renewals for each in leases] == [1, 1, 0]


def test_a_process_without_a_thread_left_holds_its_leases(
    held: HeldLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    lease = Renewed("one")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        held.add(lease)
    assert lease.token in held
    held.add(lease)
    assert len(threads(held)) == 1
    held.discard(lease)
