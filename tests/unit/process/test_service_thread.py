from __future__ import annotations

import pytest

from beanstalk_dispatch.process.service_thread import ServiceThread


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
