"""One message and one id, however many schedulers race for it, on Valkey and in a database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from beanstalk_dispatch.sqs.opening import open_queue
from tests import services
from tests.conftest import Environment

PROCESSES, CALLS = 3, 24
TABLE = (
    "CREATE TABLE leases (cache_key varchar(255) PRIMARY KEY, value text NOT NULL, "
    "expires timestamptz NOT NULL)"
)
"""What ``createcachetable`` makes, without a process of Django."""
SCHEDULE = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from beanstalk_dispatch.client import Call, schedule, warm
from django.db import connection
def call(n):
    try:
        return schedule("jobs", Call("record", [n], unique="sync:7"))
    finally:
        connection.close()
warm()
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(8) as pool:
    print(*set(pool.map(call, range({CALLS}))), flush=True)
"""


@pytest.fixture(params=["valkey", "database"])
def shared(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of processes that share a cache."""
    with ExitStack() as stack:
        if request.param == "valkey":
            url = f"redis://127.0.0.1:{stack.enter_context(services.valkey())}"
        else:
            url = stack.enter_context(services.postgres())
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(TABLE)
        yield {
            **os.environ, "CACHE_KIND": request.param, "CACHE_URL": url,
            "DJANGO_SETTINGS_MODULE": "tests.shared_cache_settings",
        }  # fmt: skip


@pytest.mark.usefixtures("unmeasured")
def test_racing_schedulers_send_one_message_and_return_one_id(
    worker_env: Environment, shared: dict[str, str]
) -> None:
    worker_env(DISPATCH_LEASE_CACHE="leases")
    ours = {name: value for name, value in os.environ.items() if name.startswith("BEANSTALK")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCHEDULE], env=shared | ours, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    printed = [each.communicate("go\n", timeout=120)[0].split() for each in processes]
    assert len({task_id for ids in printed for task_id in ids}) == 1
    assert [len(ids) for ids in printed] == [1] * PROCESSES
    assert len(open_queue("jobs").receive(count=10, wait=0, visibility=0)) == 1
