"""What a process was running when it was killed, under the real gunicorn."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.test import override_settings

from beanstalk_dispatch.queues.running import what_runs
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import TABLE, Environment
from tests.integration.test_draining import gunicorn, quietly, workers
from tests.integration.test_gunicorn import body
from tests.services import Gunicorn, until, valkey

pytestmark = pytest.mark.usefixtures("unmeasured")


def cut(server: Gunicorn) -> list[tuple[str, str]]:
    """The task and the count of each line about a task that was cut off."""
    return re.findall(r"^cut id=(\S+) function=\w+ .* times_cut=(\d+) ", server.log(), re.MULTILINE)


def test_after_kill_9_exactly_what_was_running_is_logged(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as server, ThreadPoolExecutor(4) as pool:
        assert server.post(body("record", id="finished"))[0] == 200
        for number in range(3):
            pool.submit(quietly, server, body("nap", 60, id=f"nap-{number}"))
        time.sleep(1)
        os.kill(int(workers(server)[0]), signal.SIGKILL)
        until(lambda: len(cut(server)) == 3)
        assert sorted(cut(server)) == [(f"nap-{number}", "1") for number in range(3)]
        assert server.post(body("record"))[0] == 200
        assert len(cut(server)) == 3


def test_after_kill_9_what_was_running_is_seen_and_need_not_wait_for_its_lease(
    tmp_path: Path, env: Environment
) -> None:
    env(DISPATCH_LEASE_CACHE="leases")
    with (
        valkey() as port,
        gunicorn(
            tmp_path,
            DJANGO_SETTINGS_MODULE="tests.lease_settings",
            LEASES_PORT=str(port),
            BEANSTALK_DISPATCH_LEASE_CACHE="leases",
            BEANSTALK_DISPATCH_CRASH_LEDGER="off",
        ) as server,
        ThreadPoolExecutor(5) as pool,
    ):
        names = [f"nap-{number}" for number in range(5)]
        for name in names:
            pool.submit(quietly, server, body("nap", 60, id=name))
        location = f"redis://127.0.0.1:{port}"
        cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location}
        with override_settings(CACHES={"leases": cache}):
            until(lambda: sorted(each.id for each in what_runs().tasks) == names)
            (worker,) = what_runs().workers
        assert (worker.consumer, worker.threads) == ("endpoint", 15)
        assert worker.process_id == int(workers(server)[0])
        assert server.post(body("nap", 0, id=names[-1]))[0] == 409
        os.kill(worker.process_id, signal.SIGKILL)
        until(lambda: server.log().count("start worker=True") == 2)
        again = [pool.submit(server.post, body("nap", 0, id=name)) for name in names]
        assert [each.result()[0] for each in again] == [200] * 5


def test_what_ends_its_process_is_alone_the_next_time_and_then_a_dead_letter(
    sqs_env: Environment, queue_name: str, tmp_path: Path
) -> None:
    """The neighbour is cut off once with it, and then each has a process of its own."""
    dead = f"{queue_name}-dead"
    sqs_env(DISPATCH_QUEUES=f"q={queue_name} dead={dead}")
    culprit = body("hold", id="culprit")
    with (
        gunicorn(
            tmp_path,
            BEANSTALK_DISPATCH_TABLE=(
                f"{TABLE} hold=tests.isolated_jobs.hold_lock work=tests.limited_jobs.work"
            ),
            BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE="dead",
            BEANSTALK_DISPATCH_TASK_TIMEOUT="4s",
            GUNICORN_CMD_ARGS="--threads=15 --timeout=2",
        ) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(quietly, server, body("work", str(tmp_path / "began"), 1, 60, id="neighbour"))
        until((tmp_path / "began").exists)
        assert quietly(server, culprit) == "lost"
        until(lambda: server.log().count("start worker=True") == 2)
        until(lambda: len(cut(server)) == 2)
        assert sorted(cut(server)) == [("culprit", "1"), ("neighbour", "1")]
        neighbour = pool.submit(quietly, server, body("nap", 1, id="neighbour"))
        assert [server.post(culprit)[0] for _ in range(2)] == [500, 200]
        assert neighbour.result(20) == "200"
        assert server.log().count("WORKER TIMEOUT") == 1
    (dead_letter,) = open_queue("dead").receive(count=10, wait=1, visibility=30)
    reason = json.loads(dead_letter.body)["dead_letter"]
    assert (reason["outcome"], reason["id"]) == ("cut", "culprit")
    assert reason["exception"].startswith("TaskCut: it ran on after its time limit")
    assert reason["exception"].endswith("; it was cut off 3 times")
