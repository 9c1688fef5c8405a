"""What the lease asks of its cache, and in which order. tests/integration has it in real caches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.exceptions import AlreadyDone, AlreadyRunning, LeaseUnavailable
from beanstalk_dispatch.execution import lease as lease_module
from beanstalk_dispatch.execution.crash_ledger import CutTask
from beanstalk_dispatch.execution.lease import Lease, give_up_turns
from beanstalk_dispatch.message import Message

FOUR_DAYS = 4 * 86400


class Cache:
    """Django's own cache in memory, which notes the requests."""

    def __init__(self) -> None:
        self._cache = caches["default"]
        self.requests: list[tuple[Any, ...]] = []
        self.fails: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def request(*args: Any) -> Any:
            kind = args[0].split(".")[1] if isinstance(args[0], str) else ""
            self.requests.append((name, kind, *args[2:]) if kind else (name,))
            if name in self.fails:
                raise ConnectionError
            return getattr(self._cache, name)(*args)

        return request


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    caches["default"].clear()
    found = Cache()
    monkeypatch.setattr(lease_module, "cache_of", lambda alias: found)
    monkeypatch.setattr(lease_module, "_PAUSE", 0)
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


@pytest.mark.parametrize(
    ("time_limit", "seconds"), [(60, 95), (0.2, 36), (43_200, 43_235), (86_400, 43_235)]
)
def test_the_turn_outlasts_the_task(cache: Cache, time_limit: float, seconds: int) -> None:
    taken(time_limit=time_limit)
    assert cache.requests[0] == ("add", "turn", seconds)
    with pytest.raises(AlreadyRunning) as caught:
        taken()
    assert caught.value.retry_after == pytest.approx(seconds, abs=2)


def test_a_turn_that_is_almost_over_is_left_alone(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    held = taken()
    for later, is_left in ((93.9, False), (94.1, True)):
        cache.requests.clear()
        monkeypatch.setattr(
            "beanstalk_dispatch.clock.monotonic", lambda later=later: started + later
        )
        held.give_up()
        assert (cache.requests == []) is is_left


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
    assert line.startswith("lease not updated id=the-id cache=default expires_in=9")
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


def cut_task(seconds: float) -> CutTask:
    """The task of ``new``, which began that many seconds ago in a process that has ended."""
    return CutTask(
        id="the-id", function="f", message_id="", queue="q", receive_count=1,
        started=time.time() - seconds, seconds=seconds, process_id=1, times_cut=1,
    )  # fmt: skip


def test_the_turn_of_a_process_that_has_ended_is_given_up(cache: Cache) -> None:
    taken()
    give_up_turns("default", [cut_task(seconds=0)])
    taken()


def test_the_turn_of_another_process_is_left_alone(cache: Cache) -> None:
    """Its process took it when that of the process that has ended had expired."""
    taken()
    give_up_turns("default", [cut_task(seconds=60)])
    with pytest.raises(AlreadyRunning):
        new().take()


def test_turns_that_cannot_be_given_up_expire(cache: Cache) -> None:
    made = taken()
    cache.fails.add("get_many")
    give_up_turns("default", [cut_task(seconds=0)])
    cache.fails.clear()
    cache.set(made._turn, ("of an older release", time.time() + 95), 95)
    give_up_turns("default", [cut_task(seconds=0)])
    with pytest.raises(AlreadyRunning):
        new().take()
