from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from beanstalk_dispatch.endpoint import holding


@pytest.mark.parametrize(("threads", "held"), [(None, 5), (15, 5), (9, 3), (2, 1)])
def test_a_third_of_the_threads_may_hold_answers(
    threads: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Semaphore(0)
    end = threading.Event()

    def sleep(seconds: float) -> None:
        arrived.release()
        assert end.wait(30)

    monkeypatch.setattr("beanstalk_dispatch.endpoint.holding.time.sleep", sleep)
    with ThreadPoolExecutor(held) as pool:
        holders = [pool.submit(holding.hold, 2, threads=threads) for _ in range(held)]
        for _ in range(held):
            assert arrived.acquire(timeout=30)
        assert not holding.hold(2, threads=threads)
        end.set()
        assert all(each.result(30) for each in holders)
    assert holding.hold(2, threads=threads)


def test_a_first_receive_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beanstalk_dispatch.endpoint.holding.time.sleep", pytest.fail)
    assert not holding.hold(1, threads=15)
