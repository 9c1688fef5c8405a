"""Apps of other authors run unmodified, behind the poller and behind the endpoint.

They need Django 6. Their tables agree with ours after failures, retries and a kill.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import django
import psutil
import pytest
from django.urls import reverse

from tests.conftest import Environment
from tests.services import Gunicorn
from tests.workers import until

pytestmark = [
    pytest.mark.skipif(django.VERSION < (6, 0), reason="the apps need Django 6"),
    pytest.mark.usefixtures("unmeasured"),
]

PROJECT: Final = "tests.apps_project"
ROOT: Final = Path(__file__).resolve().parents[2]


@pytest.fixture
def variables(worker_env: Environment, queue_name: str, tmp_path: Path) -> dict[str, str]:
    worker_env(
        DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead",
        DISPATCH_DEAD_LETTER_QUEUE="dead",
        DISPATCH_TABLE=None,
        DISPATCH_TASKS=f"{PROJECT}.tasks maintenance_tasks.runner",
        DISPATCH_RESULTS="db",
        DISPATCH_SIGNING_KEYS="a-signing-key-of-the-tests",
    )
    return {
        "DJANGO_SETTINGS_MODULE": f"{PROJECT}.settings",
        "DATABASE_FILE": str(tmp_path / "database"),
    }


@contextmanager
def process(variables: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments], env=os.environ | variables, cwd=ROOT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def receiving(
    variables: dict[str, str], *options: str, command: str = "beanstalk_worker"
) -> Iterator[subprocess.Popen[str]]:
    with process(variables, "django", command, "jobs", *options, "--wait=1") as child:
        yield child
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)


Results = Callable[[], list[str]]


@pytest.fixture
def results(variables: dict[str, str], tmp_path: Path) -> Iterator[Results]:
    """The tasks are enqueued; the function waits for their end."""
    with process(variables, f"{PROJECT}.enqueue", str(tmp_path / "marker")) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"

        def wait() -> list[str]:
            return child.communicate(timeout=90)[0].splitlines()

        yield wait


def check(results: list[str]) -> None:
    counts, attempts = map(json.loads, results)
    assert counts == {
        f"{PROJECT}.tasks.add SUCCESSFUL": 3,
        f"{PROJECT}.tasks.flaky SUCCESSFUL": 3,
        f"{PROJECT}.tasks.flaky FAILED": 1,
        f"{PROJECT}.tasks.linger SUCCESSFUL": 1,
        f"{PROJECT}.tasks.reciprocal SUCCESSFUL": 1,
        f"{PROJECT}.tasks.reciprocal FAILED": 2,  # overseer's retry is a task of its own
        f"{PROJECT}.tasks.tick SUCCESSFUL": 1,
        "maintenance_tasks.runner.run_batch SUCCESSFUL": 1,
    }
    assert attempts == 2  # of the task that was killed


def test_apps_behind_the_poller(
    variables: dict[str, str], results: Results, tmp_path: Path
) -> None:
    with receiving(variables, "--visibility-timeout=5") as child:
        until((tmp_path / "marker").exists, 60)
        child.kill()
    with receiving(variables, "--visibility-timeout=30"):
        check(results())


def test_apps_behind_the_endpoint(
    variables: dict[str, str], results: Results, tmp_path: Path
) -> None:
    server = Gunicorn(tmp_path, **variables)
    try:
        until(server.is_up, 60)
        url = f"http://localhost:{server.port}{reverse('beanstalk_dispatcher')}"
        with receiving(variables, url, "--error-visibility-timeout=1", command="beanstalk_daemon"):
            until((tmp_path / "marker").exists, 60)
            (worker,) = psutil.Process(server.pid).children()
            worker.kill()
            check(results())
    finally:
        server.stop()
