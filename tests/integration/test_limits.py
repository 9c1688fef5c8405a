"""Never more than the limit on three workers of which one is killed, on two kinds of cache."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from moto.sqs.models import sqs_backends

from beanstalk_dispatch.client import Call, schedule_many
from tests.conftest import Environment
from tests.integration.test_unique import shared
from tests.prepared import PreparedPopen
from tests.services import until

__all__ = ["shared"]

LIMIT, WORKERS, TASKS = 5, 3, 30
COMMAND = [
    "-m", "django", "beanstalk_worker", "jobs", "--threads=8", "--wait=1",
    "--visibility-timeout=10",
]  # fmt: skip


class Workers:
    """Workers of which one may be killed, and is started again."""

    def __init__(self, environment: dict[str, str], shown: Path) -> None:
        self._environment, self._shown = environment, shown
        self._processes = [self._start() for _ in range(WORKERS)]

    def _start(self) -> PreparedPopen:
        return PreparedPopen(COMMAND, env=self._environment)

    def kill_one(self) -> None:
        victim = random.choice(self._processes)
        moment = time.time()  # as soon as it has ended, another takes its slots
        victim.kill()
        victim.wait()
        with self._shown.open("a") as file:
            file.write(f"{moment} {victim.pid} killed -\n")
        self._processes[self._processes.index(victim)] = self._start()

    def stop(self) -> None:
        for each in self._processes:
            os.kill(each.pid, signal.SIGTERM)
        for each in self._processes:
            each.wait(30)


def most_at_a_time(lines: Sequence[str]) -> int:
    """Return the highest number of runs between their start and their end, or their kill."""
    events = sorted(each.split() for each in lines)
    killed_at = {process: moment for moment, process, event, _ in events if event == "killed"}
    running: set[tuple[str, str]] = set()
    most = 0
    for _, process, event, number in (
        each for each in events if each[0] <= killed_at.get(each[1], each[0])
    ):
        if event == "start":
            running.add((process, number))
        elif event == "end":
            running.discard((process, number))
        else:
            running = {each for each in running if each[0] != process}
        most = max(most, len(running))
    return most


def held_by_the_queue(name: str) -> int:
    """Return the number of messages that wait, run, or come later."""
    queue = sqs_backends["123456789012"]["eu-west-1"].get_queue(name)
    return int(
        queue.approximate_number_of_messages
        + queue.approximate_number_of_messages_delayed
        + queue.approximate_number_of_messages_not_visible
    )


def ended(shown: Path) -> set[str]:
    return {line.split()[3] for line in shown.read_text().splitlines() if " end " in line}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.slow
def test_five_at_a_time_on_workers_of_which_one_is_killed(
    worker_env: Environment, queue_name: str, shared: dict[str, str], tmp_path: Path
) -> None:
    worker_env(
        DISPATCH_LEASE_CACHE="leases",
        DISPATCH_TABLE="work=tests.limited_jobs.work",
        DISPATCH_POLICIES=f"work.limit={LIMIT}",
    )
    shown = tmp_path / "runs"
    shown.touch()
    schedule_many("jobs", [Call("work", [str(shown), n, 0.3]) for n in range(TASKS)])
    ours = {name: value for name, value in os.environ.items() if name.startswith("BEANSTALK")}
    workers = Workers(shared | ours, shown)
    try:
        until(lambda: ended(shown), seconds=90)
        workers.kill_one()
        until(lambda: len(ended(shown)) == TASKS, seconds=150)
        # One whose worker was killed before it deleted the message comes once more.
        until(lambda: held_by_the_queue(queue_name) == 0, seconds=30)
    finally:
        workers.stop()
    lines = shown.read_text().splitlines()
    assert most_at_a_time(lines) == LIMIT
