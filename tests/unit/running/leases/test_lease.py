"""What the lease asks of its cache, and in which order. tests/integration has it in real caches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.exceptions import AlreadyDone, AlreadyRunning, LeaseUnavailable
from beanstalk_dispatch.messages import shared_cache
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.leases import held_leases
from beanstalk_dispatch.running.leases.held_leases import HeldLeases
from beanstalk_dispatch.running.leases.lease import Lease, free_lease_of_ended
from tests.unit.running.leases.test_process_identity import ended_process, living_process

FOUR_DAYS = 4 * 86400


class Cache:
    """Django's own cache in memory, which notes the requests."""

    def __init__(self) -> None:
        self._cache = caches["default"]
        self.held = HeldLeases()
        self.held._is_watched = True  # no thread renews what these tests renew
        self.requests: list[tuple[Any, ...]] = []
        self.fails: set[str] = set()
        self.loses: set[str] = set()
        """Requests that are done, and whose answers are lost."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*args: Any) -> Any:
            kind = args[0].split(".")[1] if isinstance(args[0], str) else ""
            self.requests.append((name, kind, *args[2:]) if kind else (name,))
            if name in self.fails:
                raise ConnectionError
            answer = getattr(self._cache, name)(*args)
            if name in self.loses:
                raise ConnectionError
            return answer

        return request


class Clock:
    """The monotonic clock, which a test moves."""

    def __init__(self) -> None:
        self.now = time.monotonic()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: made.now)
    return made


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    caches["default"].clear()
    found = Cache()
    monkeypatch.setattr(shared_cache, "cache_of", lambda alias: found)
    monkeypatch.setattr(held_leases, "HELD", found.held)
    monkeypatch.setattr(held_leases, "_PAUSE", 0)
    yield found
    caches["default"].clear()


def new(attempt: int = 1, time_limit: float = 60) -> Lease:
    message = Message(function="f", id="the-id", attempt=attempt)
    return Lease("default", message, queue="q", time_limit=time_limit)


def taken(**options: Any) -> Lease:
    made = new(**options)
    made.take()
    return made


def test_the_mark_is_set_before_the_turn_is_free(cache: Cache) -> None:
    """In the other order, a second delivery could take the turn and see no mark."""
    held = taken()
    cache.requests.clear()
    held.handed_on()
    assert cache.requests == [("set", "mark", FOUR_DAYS), ("get", "turn"), ("delete", "turn")]


def test_the_turn_of_a_finished_task_is_left_to_expire(cache: Cache) -> None:
    held = taken()
    cache.requests.clear()
    held.done()
    held.done()
    held.give_up()
    assert cache.requests == [("set", "mark", FOUR_DAYS)]


@pytest.mark.parametrize("time_limit", [0.2, 60, 86_400])
def test_a_turn_lasts_for_a_minute_whatever_the_time_limit(cache: Cache, time_limit: float) -> None:
    taken(time_limit=time_limit)
    assert cache.requests[0] == ("add", "turn", 60)
    with pytest.raises(AlreadyRunning) as caught:
        taken()
    assert caught.value.retry_after == pytest.approx(60, abs=2)


def test_a_turn_that_is_almost_over_is_left_alone(cache: Cache, clock: Clock) -> None:
    held = taken()
    for later, is_left in ((58.9, False), (0.2, True)):
        cache.requests.clear()
        clock.now += later
        held.give_up()
        assert (cache.requests == []) is is_left


# --- renewing --------------------------------------------------------------------------------


def test_the_turn_of_a_long_task_is_renewed_and_that_of_a_short_one_is_not(
    cache: Cache, clock: Clock
) -> None:
    held = taken(time_limit=300)
    cache.requests.clear()
    for later, requests in (
        (19, []),
        (2, [("get", "turn"), ("touch", "turn")]),
        (19, []),
        (2, [("get", "turn"), ("touch", "turn")]),
    ):
        clock.now += later
        cache.requests.clear()
        assert held.renew()
        assert cache.requests == requests


def test_the_turn_of_a_stuck_task_is_not_renewed_for_ever(cache: Cache, clock: Clock) -> None:
    held = taken(time_limit=100)
    clock.now += 100 + 5 + 60 + 1
    cache.requests.clear()
    assert held.renew()
    assert cache.requests == []


def test_a_turn_that_nobody_has_yet_may_be_renewed(
    cache: Cache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that renews may look at it before the cache has answered, which may take long."""
    renewed: list[bool] = []

    def look(lease: Lease) -> None:
        for _ in range(2):
            renewed.append(lease.renew())
            clock.now += 25

    monkeypatch.setattr(cache.held, "add", look)
    held = taken()
    assert renewed == [True] * 2
    assert cache.requests[0] == ("add", "turn", 60)
    cache.requests.clear()
    assert held.renew()
    assert cache.requests == [("get", "turn"), ("touch", "turn")]


def test_a_turn_that_was_renewed_is_looked_at_every_half_minute(cache: Cache) -> None:
    held = taken()
    cache.set(held.key, (held.token, time.time() - 1))
    with pytest.raises(AlreadyRunning) as caught:
        new().take()
    assert caught.value.retry_after == 30


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_process_that_was_suspended_takes_nobodys_turn(
    cache: Cache, clock: Clock, caplog: pytest.LogCaptureFixture, is_taken: bool
) -> None:
    held = taken(time_limit=300)
    cache.delete(held.key)  # it has expired
    if is_taken:
        cache.set(held.key, ("of another process", time.time() + 60))
    clock.now += 70
    assert held.renew()
    assert held.renew()
    assert caplog.messages == ["lease lost id=the-id cache=default: the task may run twice"]
    expected = "of another process" if is_taken else None
    assert (cache.get(held.key) or (None,))[0] == expected


def test_a_task_that_has_just_ended_has_not_lost_its_turn(
    cache: Cache, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = taken(time_limit=300)
    clock.now += 30
    monkeypatch.setattr(cache, "get", lambda key: held.done(), raising=False)
    assert held.renew()
    assert caplog.messages == []


def test_a_renewal_without_an_answer_is_logged_and_tried_again(
    cache: Cache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    held = taken(time_limit=300)
    clock.now += 30
    cache.fails = {"touch"}
    assert not held.renew()
    assert caplog.messages == [
        "lease not updated id=the-id cache=default expires_in=30 error=ConnectionError: "
    ]
    cache.fails = set()
    cache.requests.clear()
    assert held.renew()
    assert cache.requests == [("get", "turn"), ("touch", "turn")]


# --- turns that nobody has -------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["add", "get_many", "delete"])
def test_a_turn_whose_answer_was_lost_is_replaced_at_once(cache: Cache, lost: str) -> None:
    cache.loses = {lost}
    if lost == "delete":
        taken().give_up()
    else:
        with pytest.raises(LeaseUnavailable):
            taken()
    cache.loses = set()
    assert cache.held.was_unanswered is (lost != "delete")  # whose second try was answered
    taken()


def taken_by(cache: Cache, process: str) -> tuple[str, str]:
    """The key of a turn, and the owner of this process that has it."""
    turn, owner = new()._keys[0], f"1700000000.0 0123456789abcdef {process}"
    cache.set(turn, (owner, time.time() + 60))
    return turn, owner


def test_a_turn_of_a_process_that_has_ended_is_replaced_at_once(cache: Cache) -> None:
    taken_by(cache, ended_process())
    assert taken().token in cache.held
    with pytest.raises(AlreadyRunning):
        new().take()


@pytest.mark.parametrize("lost", ["set", "get"])
def test_a_turn_is_free_again_if_the_cache_does_not_answer_whoever_replaces_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """``set`` is the replacement itself, ``get`` the look that follows it."""
    taken_by(cache, ended_process())
    replace = shared_cache.SharedCache.replace

    def replace_and_lose(self: shared_cache.SharedCache, *args: Any) -> bool:
        cache.loses = {lost} - {"get"}
        is_replaced = replace(self, *args)
        cache.loses = {lost}
        return is_replaced

    with monkeypatch.context() as patch:
        patch.setattr(shared_cache.SharedCache, "replace", replace_and_lose)
        with pytest.raises(LeaseUnavailable):
            taken()
    cache.loses = set()
    assert cache.held.was_unanswered
    taken()


def test_a_turn_of_a_process_that_lives_is_left_to_it(cache: Cache) -> None:
    with living_process() as name:
        taken_by(cache, name)
        with pytest.raises(AlreadyRunning):
            new().take()


def test_the_turn_of_a_process_that_lives_is_not_freed(cache: Cache) -> None:
    free = partial(free_lease_of_ended, "default", new()._message, queue="q")
    with living_process() as name:
        turn, _ = taken_by(cache, name)
        free()
        assert cache.get(turn) is not None
    free()
    assert cache.get(turn) is None


def test_a_turn_that_could_not_be_freed_is_logged(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.fails = {"get"}
    free_lease_of_ended("default", new()._message, queue="q")
    assert caplog.messages == ["lease not freed id=the-id cache=default error=ConnectionError: "]


@pytest.mark.parametrize("owner", ["1700000000.0 0123456789abcdef", "1700000000.0 01234567 ", ""])
def test_a_turn_without_a_known_owner_is_left_to_expire(cache: Cache, owner: str) -> None:
    cache.set(new()._keys[0], (owner, time.time() + 60))
    with pytest.raises(AlreadyRunning):
        new().take()


def test_what_is_over_is_over_whoever_has_its_turn(cache: Cache) -> None:
    taken().done()
    with pytest.raises(AlreadyDone):
        taken()


def test_of_two_that_replace_a_turn_only_one_succeeds(cache: Cache) -> None:
    turn, _ = taken_by(cache, ended_process())
    first, second, found = new(), new(), {turn: cache.get(turn)}
    assert first._replace(found)
    assert not second._replace(found)
    assert cache.get(turn)[0] == first.token
    assert second.token not in cache.held


@pytest.mark.parametrize("now", ["of another process", None])
def test_a_turn_that_has_changed_is_not_replaced(cache: Cache, now: str | None) -> None:
    made = new()
    if now:
        cache.set(made._keys[0], (now, 0.0))
    assert not made._replace({made._keys[0]: (f"token {ended_process()}", 0.0)})
    assert (cache.get(made._keys[0]) or (None,))[0] == now


def test_an_owner_that_ends_its_task_during_the_look_is_not_replaced(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = taken()

    def look(owner: str) -> bool:
        held.done()
        return True

    monkeypatch.setattr(held_leases, "does_not_run", look)
    with pytest.raises(AlreadyDone):
        taken()


def test_only_the_owner_frees_the_turn(cache: Cache) -> None:
    held = taken()
    other = new()
    with pytest.raises(AlreadyRunning):
        other.take()
    other.give_up()
    assert ("delete", "turn") not in cache.requests
    held.give_up()
    assert ("delete", "turn") in cache.requests


@pytest.mark.parametrize(("handed_on", "again", "is_over"), [(2, 1, True), (2, 2, True),
                                                            (2, 3, False)])  # fmt: skip
def test_an_attempt_that_was_handed_on_is_over_and_the_next_is_not(
    cache: Cache, handed_on: int, again: int, is_over: bool
) -> None:
    taken(attempt=handed_on).handed_on()
    if not is_over:
        taken(attempt=again)
        return
    with pytest.raises(AlreadyDone):
        taken(attempt=again)
    assert cache.requests[-1] == ("delete", "turn")  # so that a later attempt can run
    taken(attempt=3)


def test_a_task_that_is_done_and_then_handed_on_is_not_done(cache: Cache) -> None:
    held = taken()
    held.done()
    held.handed_on()
    taken(attempt=2)


@pytest.mark.parametrize("fails", ["add", "get_many"])
def test_a_cache_without_an_answer_leaves_no_turn_behind(cache: Cache, fails: str) -> None:
    cache.fails = {fails}
    with pytest.raises(LeaseUnavailable, match="ConnectionError of cache 'default'"):
        taken()
    cache.fails = set()
    taken()


def test_what_fails_is_tried_three_times_and_logged(
    cache: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    held = taken()
    cache.requests.clear()
    cache.fails = {"set"}
    held.handed_on()
    assert len(pauses) == 2  # between the tries, and not before the first
    assert cache.requests[:3] == [("set", "mark", FOUR_DAYS)] * 3
    (line,) = caplog.messages
    assert line.startswith("lease not updated id=the-id cache=default expires_in=60")
    assert line.endswith("error=ConnectionError: ")


def test_what_succeeds_at_the_second_try_is_not_logged(
    cache: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = taken()
    monkeypatch.setattr(time, "sleep", lambda seconds: cache.fails.clear())
    cache.fails = {"set"}
    held.handed_on()
    assert caplog.messages == []
    taken(attempt=2)
