"""No more of a task run at a time than its policy allows."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint import dispatcher, holding
from beanstalk_dispatch.exceptions import ConfigurationError, LeaseUnavailable
from beanstalk_dispatch.messages import shared_cache
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.messages.shared_cache import cache_key
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.leases.held_leases import HELD
from beanstalk_dispatch.running.leases.process_identity import process_name
from beanstalk_dispatch.running.leases.slots import Slot
from tests.conftest import Environment
from tests.prepared import run_prepared
from tests.runs import deliver

started, release = threading.Semaphore(0), threading.Event()
operations: list[str] = []


def noting(name: str) -> Any:
    def method(self: Any, *args: Any, **options: Any) -> Any:
        operations.append(name)
        return getattr(LocMemCache, name)(self, *args, **options)

    return method


class Counting(LocMemCache):
    """Notes the requests that a cache on a server would get."""

    add, set, touch, delete = map(noting, ("add", "set", "touch", "delete"))
    get_many = noting("get_many")


class Away(LocMemCache):
    """Answers a lease, and nothing else."""

    def get_many(self, keys: Any, version: Any = None) -> dict[Any, Any]:
        if any(".mean." in each for each in keys):
            raise OSError("no cache")
        return super().get_many(keys, version)

    def set(self, key: Any, *args: Any) -> None:
        if ".mean." in key:
            raise OSError("no cache")
        super().set(key, *args)


class Copies(DelayedCopies):
    def __init__(self) -> None:
        self.sent: list[tuple[Message, float]] = []

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        self.sent.append((message, delay))


class Hides(Copies):
    can_hide = True


def charge(account_id: int, *, kind: str = "full") -> None:
    started.release()
    assert release.wait(20)


@pytest.fixture(autouse=True)
def limited(env: Environment) -> Iterator[Environment]:
    env(
        DISPATCH_TABLE=f"charge={__name__}.charge record=tests.jobs.record",
        DISPATCH_LEASE_CACHE="default",
        DISPATCH_POLICIES="charge.limit=2",
    )
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Counting"}}):
        caches["default"].clear()
        operations.clear()
        release.clear()
        while started.acquire(blocking=False):
            """Forget the runs of the test before."""
        yield env
        release.set()


def run(
    message: Message, consumer: Copies | None = None, *, queue: str = "q", **facts: Any
) -> Result:
    body = message.encode(queue=queue)
    return deliver(body, Delivery(queue=queue, **facts), consumer or Copies())


def running(*account_ids: int) -> list[threading.Thread]:
    """Start a run for each account, and wait until all of them have begun."""
    threads = [
        threading.Thread(target=run, args=(Message(function="charge", args=[each]),))
        for each in account_ids
    ]
    for each in threads:
        each.start()
        assert started.acquire(timeout=20)
    return threads


def end(threads: list[threading.Thread]) -> None:
    release.set()
    for each in threads:
        each.join(20)


def new(limit: int = 2) -> Slot:
    return Slot("default", "charge", limit=limit, time_limit=60)


def test_the_third_waits_as_a_copy_and_spends_no_receive() -> None:
    threads = running(1, 2)
    copies, message = Copies(), Message(function="charge", args=[3])
    result = run(message, copies)
    assert (result.outcome, result.successor) == (Outcome.DEFERRED, Successor.COPY)
    assert result.reason == "2 of it run; the message waits for 1 s"
    assert [(each.id, each.attempt) for each, _ in copies.sent] == [(message.id, 1)]
    end(threads)
    assert run(copies.sent[0][0]).outcome is Outcome.DONE


def test_on_a_fifo_queue_it_is_hidden_and_that_is_no_attempt() -> None:
    threads = running(1, 2)
    consumer, message = Hides(), Message(function="charge", args=[3])
    facts = {"queue": "q.fifo", "message_id": "m"}
    result = run(message, consumer, receive_count=1, **facts)
    assert (result.outcome, result.successor, result.retry_after) == (Outcome.DEFERRED, None, 1)
    assert consumer.sent == []
    end(threads)
    assert run(message, consumer, receive_count=2, **facts).outcome is Outcome.DONE


def test_on_a_fifo_queue_the_endpoint_holds_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon would use up ten receives in twenty seconds."""
    held: list[int] = []

    def hold(receive_count: int, *_: Any, **__: Any) -> bool:
        held.append(receive_count)
        return False

    monkeypatch.setattr(holding, "hold", hold)
    threads = running(1, 2)
    body = Message(function="charge", args=[3]).encode(queue="q.fifo")
    delivery = Delivery(queue="q.fifo", message_id="m", receive_count=2, body=body)
    assert dispatcher._run_or_hold(delivery, get_config()).outcome is Outcome.DEFERRED
    assert held == [2]
    end(threads)


def test_each_value_of_the_argument_has_its_own_slots(limited: Environment) -> None:
    limited(DISPATCH_POLICIES="charge.limit=1 charge.limit_by=account_id+kind")
    threads = running(1, 2)
    assert run(Message(function="charge", kwargs={"account_id": 1})).outcome is Outcome.DEFERRED
    other = Message(function="charge", kwargs={"account_id": 1, "kind": "quick"})
    release.set()
    assert run(other).outcome is Outcome.DONE
    end(threads)


def test_arguments_that_do_not_fit_share_their_slots(limited: Environment) -> None:
    limited(DISPATCH_POLICIES="charge.limit=1 charge.limit_by=account_id")
    assert run(Message(function="charge", args=[1, 2, 3])).outcome is Outcome.FAILED


def test_a_failure_frees_the_slot(limited: Environment) -> None:
    for _ in range(3):
        assert run(Message(function="charge")).outcome is Outcome.FAILED
    assert operations.count("delete") == 6  # of a lease and a slot each


def test_other_tasks_make_no_request_for_it(limited: Environment) -> None:
    run(Message(function="record"))
    with_policy = [*operations]
    operations.clear()
    limited(DISPATCH_POLICIES=None)
    run(Message(function="record"))
    assert operations == with_policy == ["add", "get_many", "set"]


def test_a_limited_task_makes_four_requests_more() -> None:
    release.set()
    run(Message(function="charge", args=[1]))
    assert operations == [
        "add", "get_many", "get_many", "add", "set", "set", "delete",
    ]  # fmt: skip


def test_many_that_wait_get_times_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    taken = [new(), new()]
    assert all(each.take() for each in taken)
    caches["default"].set(taken[0]._mean_key, 100.0)
    late = [new() for _ in range(8)]
    waits = [(each.take(), each.seconds_to_wait()) for each in late]
    seconds = [50, 100, 150, 200, 250, 300, 300, 300]
    assert waits == [(False, each) for each in seconds]
    for each in taken:
        each.give_up()
    assert new().take()


@pytest.mark.slow
def test_the_slot_of_a_process_that_has_ended_is_free_at_once() -> None:
    command = (
        "from beanstalk_dispatch.running.leases.process_identity import process_name;"
        "print(process_name())"
    )
    ended = run_prepared(command, os.environ).stdout.strip()
    assert ended != process_name()
    cache, slot = caches["default"], new(limit=1)
    cache.set(slot._keys[0], (f"token {ended}", 0.0), 60)
    assert slot.take()
    assert cache.get(slot._keys[0])[0] == slot.token
    slot.give_up()
    # Another process has been faster, in each of the ways that are possible.
    owned = (f"other {ended}", 0.0)
    cache.set(slot._keys[0], owned, 60)
    cache.add(cache_key("claim", f"{slot._keys[0]} {owned}"), 1)
    assert not new(limit=1).take()
    cache.set(slot._keys[0], (f"third {ended}", 0.0), 60)
    assert not new(limit=1)._replace({slot._keys[0]: (f"fourth {ended}", 0.0)})


def test_a_slot_that_this_process_has_given_up_unheard_is_free_at_once() -> None:
    slot = new(limit=1)
    caches["default"].set(slot._keys[0], (f"forgotten {process_name()}", 0.0), 60)
    assert slot.take()
    assert not new(limit=1).take()
    slot.give_up()


def test_two_that_see_the_same_free_slot_do_not_both_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Counting, "get_many", lambda self, keys: {})
    assert [new(limit=2).take() for _ in range(3)] == [True, True, False]


def test_a_slot_is_renewed_until_the_run_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.monotonic()
    slot = new()
    assert slot.take()
    operations.clear()
    monkeypatch.setattr(clock, "monotonic", lambda: now + 10)
    assert slot.renew()
    assert operations == []
    monkeypatch.setattr(clock, "monotonic", lambda: now + 30)
    HELD.renew()
    assert operations == ["touch"]
    assert slot.renew()
    assert operations == ["touch"]
    monkeypatch.setattr(clock, "monotonic", lambda: now + 60)
    caches["default"].delete(slot.key)
    operations.clear()
    assert slot.renew()
    assert operations == []
    monkeypatch.setattr(clock, "monotonic", lambda: now + 10_000)
    assert slot.renew()
    slot.give_up()
    assert slot.token not in HELD


def test_a_cache_that_is_away_has_limited_tasks_wait_and_no_others(
    limited: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    release.set()
    slot = new()
    assert slot.take()
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Away"}}):
        assert run(Message(function="charge", args=[1])).outcome is Outcome.UNAVAILABLE
        assert run(Message(function="record")).outcome is Outcome.DONE
        with pytest.raises(LeaseUnavailable):
            new().take()
        slot.give_up()
    assert "slot not updated name=charge cache=default expires_in=" in caplog.text
    assert slot.token not in HELD


def test_a_renewal_that_fails_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slot = new()
    assert slot.take()
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + 30)
    monkeypatch.setattr(shared_cache, "cache_of", lambda alias: None)
    assert not slot.renew()
    assert "slot not updated name=charge" in caplog.text
    HELD.discard(slot)


def test_a_limit_needs_a_cache(limited: Environment) -> None:
    limited(DISPATCH_LEASE_CACHE=None)
    with pytest.raises(ConfigurationError, match="has limit without BEANSTALK_DISPATCH_LEASE"):
        get_config()
