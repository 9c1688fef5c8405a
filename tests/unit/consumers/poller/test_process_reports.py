from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.health import touch_while_healthy
from beanstalk_dispatch.consumers.poller.metrics import Metric
from beanstalk_dispatch.consumers.poller.options import WorkerTimes
from beanstalk_dispatch.consumers.poller.process_reports import (
    ProcessReports,
    Report,
    read,
    report_once_a_second,
)
from tests.workers import Recording, make_worker


@pytest.fixture
def reports(tmp_path: Path) -> ProcessReports:
    return ProcessReports(tmp_path, processes=2)


def figures(**values: float) -> list[Metric]:
    kinds: dict[str, Any] = {"tasks_done": "counter"}
    return [Metric(name, kinds.get(name, "gauge"), "", value) for name, value in values.items()]


def write(file: Path, *, age: float = 0, unhealthy: str | None = None, **values: float) -> None:
    report = Report(
        written_at=time.monotonic() - age, unhealthy=unhealthy, figures=figures(**values)
    )
    file.write_text(json.dumps(asdict(report)))


# --- health ---


def test_all_are_healthy_if_each_is(reports: ProcessReports) -> None:
    write(reports.file(0))
    write(reports.file(1), age=9)
    assert reports.why_unhealthy() is None


def test_one_that_is_unhealthy_is_named(reports: ProcessReports) -> None:
    write(reports.file(0))
    write(reports.file(1), unhealthy="1 stuck")
    assert reports.why_unhealthy() == "process 2: 1 stuck"


def test_one_that_has_not_reported_is_unhealthy(reports: ProcessReports) -> None:
    write(reports.file(1))
    assert reports.why_unhealthy() == "no report from process 1"


def test_one_whose_report_is_old_is_unhealthy(reports: ProcessReports) -> None:
    write(reports.file(0), age=12)
    assert reports.why_unhealthy() == "no report from process 1 for 12 s"


def test_one_that_has_ended_need_not_report(reports: ProcessReports) -> None:
    write(reports.file(0), age=12)
    reports.set_ended(0)
    write(reports.file(1))
    assert reports.why_unhealthy() is None


def test_a_file_is_touched_while_all_are_healthy(reports: ProcessReports, tmp_path: Path) -> None:
    file = tmp_path / "health"
    touch_while_healthy(reports.why_unhealthy, file)()
    assert not file.exists()
    write(reports.file(0))
    write(reports.file(1))
    touch_while_healthy(reports.why_unhealthy, file)()
    assert file.exists()


# --- figures ---


def test_figures_are_summed_and_the_age_is_that_of_the_worst(reports: ProcessReports) -> None:
    write(reports.file(0), tasks_done=7, tasks_running=2, last_poll_age_seconds=3)
    write(reports.file(1), tasks_done=1, tasks_running=3, last_poll_age_seconds=1)
    assert reports.metrics() == figures(tasks_done=8, tasks_running=5, last_poll_age_seconds=3)


@pytest.mark.parametrize("has_ended", [True, False])
def test_of_a_process_that_does_not_run_only_the_counters_count(
    reports: ProcessReports, has_ended: bool
) -> None:
    write(reports.file(0), age=0 if has_ended else 12, tasks_done=7, tasks_running=2)
    if has_ended:
        reports.set_ended(0)
    write(reports.file(1), tasks_done=1, tasks_running=3)
    assert reports.metrics() == figures(tasks_done=8, tasks_running=3)


def test_without_a_report_there_are_no_figures(reports: ProcessReports) -> None:
    assert reports.metrics() == []


# --- what a process writes ---


def test_a_process_reports_once_a_second(tmp_path: Path) -> None:
    file, worker = tmp_path / "1.json", make_worker(Recording(), wait=20)
    worker.counters.done = 7
    worker.queues[0].unanswered_since = time.monotonic() - 90
    tick = report_once_a_second(worker, file)
    tick()
    report = read(file)
    assert report
    assert report.unhealthy == "no answer from jobs for 90 s"
    assert report.age < 10
    assert [each.value for each in report.figures if each.name == "tasks_done"] == [7]
    worker.counters.done = 8
    tick()  # within the same second
    assert read(file) == report


def test_a_process_continues_the_counters_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    file = tmp_path / "1.json"
    write(file, tasks_done=7, tasks_running=2)
    worker = make_worker(Recording(), times=WorkerTimes(display_interval=0))
    worker.counters.done = 3
    tick = report_once_a_second(worker, file)
    tick()
    tick()
    report = read(file)
    assert report
    values = {each.name: each.value for each in report.figures}
    assert (values["tasks_done"], values["tasks_running"]) == (10, 0)
