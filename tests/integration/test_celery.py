"""A project of ten tasks with Celery and with this package, and the messages that Celery leaves."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.cache import caches
from django.test import Client

from beanstalk_dispatch.conf import import_rooms
from beanstalk_dispatch.messages.outcomes import Outcome
from tests.celery_project import after
from tests.conftest import Environment
from tests.consumers import run_all
from tests.workers import until

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

BEFORE, AFTER = "tests.celery_project.before", "tests.celery_project.after"
PLAIN = ("remind", "reindex", "clean_up", "thumbnail", "flash_sale", "receipt")
EFFECTS = {
    *(f"rates EUR {number}" for number in range(6)),
    "reminded 7", "reindexed 3", "cleaned up", "thumbnail 0", "thumbnail 1", "thumbnail 2",
    "stopped example.com", "charged 9", "audited 9", "receipt 9",
}  # fmt: skip


@pytest.fixture
def effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    caches["default"].clear()
    path = tmp_path / "effects"
    path.touch()
    monkeypatch.setenv("EFFECTS", str(path))
    return path


@pytest.fixture
def before(
    worker_env: Environment, moto: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The module of the project with Celery, on a queue of this test."""
    pytest.importorskip("celery")
    monkeypatch.setenv("CELERY_SQS", urlsplit(moto).netloc)
    monkeypatch.setenv("CELERY_QUEUE", queue_name)
    module = importlib.reload(importlib.import_module(BEFORE))
    yield module
    module.app.close()


def written(path: Path) -> Counter[str]:
    """The lines of the tasks. The periodic one may have run several times."""
    lines = Counter(path.read_text().splitlines())
    lines["cleaned up"] = min(lines["cleaned up"], 1)
    return +lines


def run_celery(directory: Path) -> subprocess.Popen[bytes]:
    command = (
        "-m",
        "celery",
        "-A",
        BEFORE,
        "worker",
        "-B",
        "-c",
        "2",
        "-s",
        str(directory / "beat"),
    )
    with (directory / "celery.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *command], stdout=log, stderr=log, start_new_session=True
        )


def test_celery_runs_the_ten_tasks(
    before: Any, effects: Path, tmp_path: Path, unmeasured: None
) -> None:
    expected = EFFECTS | {f"exported 2026-12-01 {before.send()}"}
    worker = run_celery(tmp_path)
    try:
        until(lambda: set(written(effects)) >= expected)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    assert written(effects) == Counter(expected)


def test_this_package_runs_the_ten_tasks(
    worker_env: Environment, effects: Path, client: Client
) -> None:
    worker_env(
        DISPATCH_TASKS=" ".join([AFTER, *(f"{AFTER}.{each}" for each in PLAIN)]),
        DISPATCH_PERIODIC_TASKS=f"{AFTER}.clean_up",
        DISPATCH_LEASE_CACHE="default",
        DISPATCH_ON_FAILURE="acknowledge",  # as Celery does
    )
    expected = EFFECTS | {f"exported 2026-12-01 {after.send()}"}
    posted = client.post(
        "/beanstalk_dispatch/dispatcher", data=b"", content_type="application/json",
        headers={"x-aws-sqsd-taskname": f"{AFTER}.clean_up"}, REMOTE_ADDR="127.0.0.1",
    )  # fmt: skip
    assert posted.status_code == 200
    until(lambda: run_all() == [] and set(written(effects)) >= expected)
    assert written(effects) == Counter(expected)


def test_what_celery_has_left_runs_here(
    before: Any, worker_env: Environment, effects: Path, queue_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The tasks are listed as they are: Celery's, called as functions."""
    tasks = (*PLAIN, "import_rates", "crawl", "charge", "export")
    worker_env(
        DISPATCH_TASKS=" ".join(f"{BEFORE}.{each}" for each in tasks),
        DISPATCH_POLICIES=f"{BEFORE}.import_rates.max_attempts=2 {BEFORE}.import_rates.backoff=1 "
        f"{BEFORE}.crawl.timeout=1s",
        DISPATCH_CELERY_QUEUES="jobs",
        DISPATCH_SIGNING_KEYS="a-key-of-the-tests",
        DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead-letter",
        DISPATCH_DEAD_LETTER_QUEUE="dead",
        DISPATCH_ON_FAILURE="acknowledge",
    )
    assert import_rooms() == []
    before.send()
    (before.remind.si(1) | before.remind.si(2)).delay()
    outcomes = Counter[Outcome]()

    def is_drained() -> bool:
        outcomes.update(run_all())
        return bool(outcomes[Outcome.DONE] == 8 and outcomes[Outcome.FAILED])

    until(is_drained)
    outcomes.pop(Outcome.DEFERRED, None)  # of the second that this machine may have spent
    assert outcomes == {
        Outcome.DONE: 8, Outcome.RETRY: 1, Outcome.FAILED: 1,
        Outcome.TIMED_OUT: 1, Outcome.EXPIRED: 1, Outcome.MALFORMED: 1,
    }  # fmt: skip
    ran = EFFECTS - {"cleaned up", "stopped example.com", "audited 9"}
    ran -= {f"rates EUR {number}" for number in range(6)}
    retried = Counter({"rates EUR 0": 2, "exported 2026-12-01 None": 1})
    assert written(effects) == Counter(ran) + retried
    assert f"'{BEFORE}.remind': its chain would be lost; have Celery run it" in caplog.text
