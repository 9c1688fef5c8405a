"""Entries of workers in the lease's cache, as other processes write them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from django.core.cache import caches

from beanstalk_dispatch.running.leases.worker_entry import entry_keys

_numbers = itertools.count()


def add_entry(
    machine: str, *, tasks: Mapping[str, float] | None = None, ago: float = 0.0, **fields: Any
) -> None:
    """Write the entry of a worker that runs tasks with these ids and ages in seconds."""
    running = [
        {"id": name, "function": "record", "queue": "jobs", "attempt": 1, "receive_count": 1,
         "seconds": seconds}
        for name, seconds in (tasks or {}).items()
    ]  # fmt: skip
    now = time.time()
    entry = {
        "token": machine, "machine": machine, "process_id": 7, "version": "1.1.0",
        "consumer": "poller", "threads": 4, "queues": ["jobs"], "count": len(running),
        "written_at": now - ago, "started_at": now - ago - 3600.5,
        "running": running, "next_runs": [],
    }  # fmt: skip
    caches["default"].set(entry_keys()[next(_numbers) % 512], entry | fields)
