from __future__ import annotations

import threading
import time

from beanstalk_dispatch.consumers.poller.threads import alive, join_within


def test_threads_are_waited_for_together() -> None:
    gate = threading.Event()
    threads = [threading.Thread(target=gate.wait, args=(20,), daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    join_within(0.05, threads)
    assert 0.05 <= time.monotonic() - began < 0.2
    assert alive(threads) == threads
    gate.set()
    join_within(10, threads)
    assert alive(threads) == []
