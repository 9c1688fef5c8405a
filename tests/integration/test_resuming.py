"""A long task whose worker is stopped, and killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.test import override_settings

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.results import get_result, wait
from tests.conftest import Environment
from tests.prepared import PreparedPopen
from tests.services import valkey
from tests.workers import until

ITEMS = 1200


def cache_on(port: int) -> dict[str, dict[str, str]]:
    redis = "django.core.cache.backends.redis.RedisCache"
    return {"leases": {"BACKEND": redis, "LOCATION": f"redis://127.0.0.1:{port}"}}


def written(path: Path) -> int:
    return len(path.read_text().splitlines())


@contextmanager
def process(port: str) -> Iterator[PreparedPopen]:
    child = PreparedPopen(
        ["-m", "django", "beanstalk_worker", "jobs", "--wait=1", "--visibility-timeout=2"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.lease_settings", "LEASES_PORT": port},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


EVERY = 50


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_task_goes_on_after_each_end_of_its_worker(
    sqs_env: Environment, queue_name: str, tmp_path: Path, isolation: str
) -> None:
    sqs_env(
        WORKER=True, DISPATCH_QUEUES=f"jobs={queue_name}", DISPATCH_LEASE_CACHE="leases",
        DISPATCH_TABLE="append_all=tests.long_jobs.append_all", DISPATCH_ISOLATION=isolation,
        DISPATCH_CRASH_LEDGER=tmp_path / "ledger", DISPATCH_TASK_TIMEOUT="60s",
        DISPATCH_RESULTS="leases",
    )  # fmt: skip
    path = tmp_path / "items"
    path.touch()
    with valkey() as port, override_settings(CACHES=cache_on(port)):
        task_id = schedule_function("jobs", "append_all", str(path), ITEMS, EVERY, 0.002)

        def run_until_sent(number: signal.Signals) -> None:
            before = written(path)
            with process(str(port)) as worker:
                until(lambda: written(path) > before + 300, 40)
                os.kill(worker.pid, number)
                worker.wait(20)

        run_until_sent(signal.SIGTERM)
        # Within a second of a kill nothing may be kept.
        stopped_at = written(path)
        assert get_result(task_id).progress == (stopped_at, ITEMS)
        run_until_sent(signal.SIGKILL)
        with process(str(port)):
            until(lambda: f"{ITEMS - 1}\n" in path.read_text(), 40)
        assert wait(task_id, 20).progress == (ITEMS, ITEMS)
        items = list(map(int, path.read_text().split()))
        assert items[: stopped_at + 300] == list(range(stopped_at + 300))  # a stop repeats nothing
        assert set(items) == set(range(ITEMS))
        assert len(items) - ITEMS <= EVERY  # the kill repeats what was not kept
