"""The entry of this process in the lease's cache: which worker it is, and the tasks it runs now.

A cache cannot list its keys, so there is a fixed number of them. Each process takes one with the
cache's atomic ``add``, and a reader asks for all of them at once. The entry is written every few
seconds and lasts for some minutes, so that a process that hangs is still seen, and one that was
killed is seen no longer. It contains no argument of a task.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from django.db import connections

from beanstalk_dispatch import __version__
from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.messages.shared_cache import cache_key, cache_of, errors_logged
from beanstalk_dispatch.process import state
from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.running.running_tasks import RUNNING, RunningTask

logger = logging.getLogger("beanstalk_dispatch.task")

MAX_WORKERS: Final = 512
"""The number of processes that are seen at most. One request reads the entries of all."""
MAX_TASKS: Final = 100
"""The number of tasks in an entry, the oldest first: Memcached takes a megabyte."""
WRITE_SECONDS: Final = 5.0
"""The seconds between two writes of an entry."""
KEPT_SECONDS: Final = 300
"""The seconds that an entry lasts if nobody writes it again."""
END_SECONDS: Final = 1.0
"""The seconds for which the end of the process waits until its entry is deleted."""
_TRIES: Final = 5

NextRuns: TypeAlias = Callable[[], Sequence[tuple[str, float]]]
"""A function that returns the periodic tasks, each with the Unix seconds of its next run."""


def entry_keys() -> list[str]:
    """Return the keys of the entries of all processes."""
    return [cache_key("worker", str(number)) for number in range(MAX_WORKERS)]


class _Entry:
    """An entry in a cache, which only the process that has added it writes again or deletes."""

    def __init__(self, alias: str, facts: dict[str, Any]) -> None:
        self._alias, self._facts = alias, facts
        self._key = ""

    def write(self, next_runs: NextRuns) -> None:
        """Write the entry, with the tasks that run now. Log an error of the cache."""
        running = sorted(RUNNING.now(), key=lambda each: each.started)
        value = self._facts | {
            "written_at": time.time(),
            "count": len(running),
            "running": [_as_dict(each) for each in running[:MAX_TASKS]],
            "next_runs": [list(each) for each in next_runs()],
        }
        self._use_cache(lambda cache: self._write(cache, value))

    def delete(self) -> None:
        """Delete the entry. Log an error of the cache."""
        self._use_cache(lambda cache: self._is_mine(cache) and cache.delete(self._key))

    def _write(self, cache: Any, value: dict[str, Any]) -> None:
        if self._is_mine(cache):
            cache.set(self._key, value, KEPT_SECONDS)
            return
        keys = random.sample(entry_keys(), _TRIES)
        self._key = next((each for each in keys if cache.add(each, value, KEPT_SECONDS)), "")

    def _is_mine(self, cache: Any) -> bool:
        """Return False also if the cache has lost the entry: another process may have the key."""
        found = cache.get(self._key, {}) if self._key else {}
        return bool(found.get("token") == self._facts["token"])

    def _use_cache(self, action: Callable[[Any], object]) -> None:
        try:
            with errors_logged(logger, "worker entry not written cache=%s", self._alias):
                action(cache_of(self._alias))
        finally:
            connections.close_all()  # this thread's, if the cache is in a database


class WorkerEntry:
    """The entry of this process, and the thread that writes it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Have no entry: a forked child has no thread, and its parent's entry is not its own."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self.is_started = False
        self.next_runs: NextRuns = tuple
        """The function that returns the periodic tasks that this process sends."""

    def start(
        self, consumer: str, config: Config, *, threads: int | None, queues: Sequence[str] = ()
    ) -> None:
        """Have a thread write the entry of a worker, if there is a lease cache.

        Only the first call counts.
        """
        with self._lock:
            if self.is_started:
                return
            self.is_started = True
        if config.lease_cache is None or not config.worker:
            return
        facts = {
            "token": uuid.uuid4().hex,
            "machine": socket.gethostname(),
            "process_id": os.getpid(),
            "version": __version__,
            "consumer": consumer,
            "threads": threads,
            "queues": list(queues),
            "started_at": time.time(),
        }
        loop = functools.partial(self._write, _Entry(config.lease_cache, facts), self._ended)
        thread = ServiceThread(loop, name="worker-entry")
        with suppress(RuntimeError):  # the process has no thread left, and is not seen
            thread.start()
            self._thread = thread  # only now can its end be waited for
            atexit.register(self.end)

    def _write(self, entry: _Entry, ended: threading.Event) -> None:
        while self._ended is ended:
            entry.write(self.next_runs)
            if ended.wait(WRITE_SECONDS):
                entry.delete()
                return

    def end(self) -> None:
        """Have the entry deleted, because the process ends. A cache that hangs costs a second."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)


def _as_dict(task: RunningTask) -> dict[str, Any]:
    return {
        "id": task.message.id,
        "function": task.message.function,
        "queue": task.delivery.queue,
        "attempt": task.message.attempt,
        "receive_count": task.delivery.receive_count,
        "seconds": round(task.seconds, 3),
    }


WORKER_ENTRY: Final = WorkerEntry()
state.declare(WORKER_ENTRY.forget)
