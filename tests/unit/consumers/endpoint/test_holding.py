from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from beanstalk_dispatch.consumers.endpoint import holding

ONE, ALL = holding.FOR_ONE_MESSAGE, holding.FOR_ALL_MESSAGES


@pytest.mark.parametrize(
    ("patience", "threads", "held"),
    [(ONE, None, 5), (ONE, 15, 5), (ONE, 9, 3), (ONE, 2, 1), (ALL, 15, 13), (ALL, 2, 1)],
)
def test_a_share_of_the_threads_may_hold_answers(
    patience: holding.Patience, threads: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Semaphore(0)
    end = threading.Event()

    def sleep(seconds: float) -> None:
        if seconds > patience.first_seconds:
            arrived.release()
            assert end.wait(30)

    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", sleep)
    with ThreadPoolExecutor(held) as pool:
        holders = [pool.submit(holding.hold, 2, patience, threads=threads) for _ in range(held)]
        for _ in range(held):
            assert arrived.acquire(timeout=30)
        assert not holding.hold(2, patience, threads=threads)
        end.set()
        assert all(each.result(30) for each in holders)
    assert holding.hold(2, patience, threads=threads)


@pytest.mark.parametrize(
    ("patience", "held"), [(ONE, [3, 6, 9, 27, 29]), (ALL, [5, 8, 11, 14, 29, 29])]
)
def test_each_receive_is_held_longer_than_the_one_before(
    patience: holding.Patience, held: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", pauses.append)
    for receive_count in (1, 2, 3, 4, 10, 100):
        is_held = holding.hold(receive_count, patience, threads=15)
        assert is_held is (receive_count > 1 or patience is ALL)
    assert pauses == held


def test_while_nothing_may_run_the_other_threads_do_not_answer_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", pauses.append)
    monkeypatch.setattr(holding._holders, "_count", 13)
    assert not holding.hold(10, ALL, threads=15)
    assert not holding.hold(10, ONE, threads=15)
    assert pauses == [5, 0]
