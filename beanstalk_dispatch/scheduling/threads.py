"""The threads that send the calls of coroutines, several at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from beanstalk_dispatch.process import state

MAX_THREADS: Final = 16
"""The number of messages of coroutines that are sent at a time."""


class _SendingThreads:
    """The executor of this process. A forked child starts without one, as it has no threads."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(MAX_THREADS, "beanstalk-dispatch-send")
            return self._executor


_threads: Final = _SendingThreads()
state.declare(_threads.forget, in_tests=False)


def sending_executor() -> ThreadPoolExecutor:
    """Return the executor of this process, made on first use."""
    return _threads.executor()
