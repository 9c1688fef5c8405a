from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results.record import Progress, TaskRecord
from beanstalk_dispatch.contrib.results.stores import store_of
from beanstalk_dispatch.exceptions import ConfigurationError, LeaseUnavailable
from beanstalk_dispatch.queues import running
from beanstalk_dispatch.queues.running import what_runs
from beanstalk_dispatch.running.leases.worker_entry import KEPT_SECONDS
from tests.conftest import Environment
from tests.entries import add_entry


@pytest.fixture(autouse=True)
def lease_cache(env: Environment) -> Iterator[None]:
    env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    yield
    caches["default"].clear()


def test_the_workers_and_their_tasks_are_found() -> None:
    add_entry("b", tasks={"young": 1.0})
    add_entry(
        "a", tasks={"old": 4000.0, "middle": 61.0}, consumer="endpoint", threads=None, queues=[]
    )
    found = what_runs()
    assert [each.machine for each in found.workers] == ["a", "b"]
    assert [each.cells() for each in found.tasks] == [
        ["1h 6m", "record", "1", "-", "jobs", "a", "7", "old"],
        ["1m 1s", "record", "1", "-", "jobs", "a", "7", "middle"],
        ["1s", "record", "1", "-", "jobs", "b", "7", "young"],
    ]
    assert [each.cells()[:-1] for each in found.workers] == [
        ["a", "7", "endpoint", "any", "2", "1.1.0", "1h"],
        ["b", "7", "poller", "jobs", "1 of 4", "1.1.0", "1h"],
    ]
    assert what_runs(["other"]).tasks == []
    as_json = found.as_json()
    assert as_json["running"][0]["id"] == "old"
    assert "running" not in as_json["workers"][0]


@pytest.mark.parametrize(
    ("ago", "seen", "is_late"),
    [
        (3, "3s ago", False),
        (-1, "0s ago", False),
        (90, "1m 30s ago: killed, or it hangs", True),
        (-7300, "its clock is 2h 1m ahead", False),
        (7300, "its clock is 2h 1m behind", True),
    ],
)
def test_a_worker_that_is_silent_or_whose_clock_differs_is_told(
    ago: float, seen: str, is_late: bool
) -> None:
    add_entry("a", ago=ago + 0.5, tasks={"one": 5.0})
    (worker,), (task,) = what_runs().workers, what_runs().tasks
    assert (worker.seen, worker.is_late, task.is_late) == (seen, is_late, is_late)
    # Nobody says that the task has ended. A clock that differs adds little to its age.
    assert 5 <= task.seconds <= 5 + KEPT_SECONDS
    assert task.cells()[0].endswith("?") == is_late
    if is_late:
        assert task.seconds > 90


def test_a_receive_that_is_not_the_first_and_what_is_left_out_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "MAX_TASKS", 1)
    task = {"id": "again", "function": "f", "queue": "jobs", "attempt": 2, "receive_count": 3}
    add_entry("a", running=[task | {"seconds": 9.0}, task | {"seconds": 1.0}])
    found = what_runs()
    assert [each.cells()[2] for each in found.tasks] == ["2, receive 3"]
    assert (found.left_out, found.as_json()["left_out"]) == (1, 1)


def test_how_far_tasks_are_is_asked_of_their_results(env: Environment) -> None:
    env(DISPATCH_RESULTS="default")
    add_entry("a", tasks={"half": 9.0, "silent": 5.0, "no-record": 3.0})
    store = store_of(get_config())
    assert store
    for name, progress in (("half", Progress(5, 10)), ("silent", None)):
        store.save(TaskRecord(id=name, function="record", progress=progress))
    found = what_runs()
    assert [each.progress for each in found.tasks] == ["5 of 10 (50 %)", "", ""]
    assert found.tasks[0].cells()[3] == "5 of 10 (50 %)"
    env(DISPATCH_RESULTS="nowhere")
    found = what_runs()
    assert [each.progress for each in found.tasks] == ["", "", ""]
    assert "not known how far tasks are: ConfigurationError" in found.problem


def test_an_entry_of_another_version_and_a_hostile_name_are_read() -> None:
    add_entry("\x1b[31m<b>", tasks={"one": 1.0}, new_field=1)
    (worker,) = what_runs().workers
    assert worker.machine == "\\x1b[31m<b>"


def test_the_next_runs_are_those_of_workers_and_of_the_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(running, "CRON_FILE", tmp_path / "cron.yaml")
    due_at = (datetime.now(UTC) + timedelta(days=400)).replace(microsecond=0)
    for machine in "ab":
        add_entry(machine, next_runs=[["clean_up", due_at.timestamp()]])
    running.CRON_FILE.write_text(
        'version: 1\ncron: [{name: report, url: /x, schedule: "0 2 * * *"}]'
    )
    found = what_runs()
    assert [each.name for each in found.next_runs] == ["report", "clean_up"]
    name, wait, at = found.next_runs[1].cells()
    assert (name, wait, at) == ("clean_up", "in 399d 23h", f"{due_at:%Y-%m-%d %H:%M} UTC")
    assert found.as_json()["next_runs"][1] == {"name": "clean_up", "due_at": due_at.isoformat()}
    running.CRON_FILE.write_text("x")
    found = what_runs()
    assert [each.name for each in found.next_runs] == ["clean_up"]
    assert "expected 'version: 1'" in found.problem


def test_without_a_cache_it_is_not_known(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(keys: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(caches["default"], "get_many", fail)
    with pytest.raises(LeaseUnavailable, match="ConnectionError of cache 'default'"):
        what_runs()
    env(DISPATCH_LEASE_CACHE=None)
    with pytest.raises(ConfigurationError, match="BEANSTALK_DISPATCH_LEASE_CACHE is not set"):
        what_runs()


def test_a_hundred_workers_with_a_thousand_tasks_are_one_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(100):
        add_entry(f"machine-{number:02}", tasks={f"{number}-{task}": task for task in range(10)})
    read, requests = caches["default"].get_many, []

    def get_many(keys: list[str]) -> Any:
        requests.append(len(keys))
        return read(keys)

    monkeypatch.setattr(caches["default"], "get_many", get_many)
    began = time.monotonic()
    found = what_runs()
    assert (len(found.workers), len(found.tasks), requests) == (100, 1000, [512])
    assert time.monotonic() - began < 5
