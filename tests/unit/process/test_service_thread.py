from __future__ import annotations

import threading
import time

import pytest

from beanstalk_dispatch.process.service_thread import ServiceThread, alive, join_within


def test_a_loop_that_raises_is_logged_and_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = iter([MemoryError(), KeyboardInterrupt()])

    def loop() -> None:
        for error in errors:
            raise error

    thread = ServiceThread(loop, name="receive-mail", restart_delay=0)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert next(errors, None) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"unexpected error in thread; restarting it thread=beanstalk_dispatch-receive-mail "
        f"error={error}"
        for error in ("MemoryError", "KeyboardInterrupt")
    ]
    assert all(record.exc_info for record in caplog.records)


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
