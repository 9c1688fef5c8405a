"""The lines of which CloudWatch makes metrics."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
import yaml

from beanstalk_dispatch.contrib.cloudwatch.metrics import MetricsObserver
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.signals import task_stuck
from tests.conftest import Environment
from tests.runs import deliver, run_of

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(worker_env: Environment, capsys: pytest.CaptureFixture[str]) -> Lines:
    """The lines that a worker with two tasks has written to stdout since the last call."""
    worker_env(
        DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail",
        DISPATCH_EMBEDDED_METRICS="stdout",
    )
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def run(function: str, **members: Any) -> None:
    deliver(Message(function=function, **members).encode(queue="q"), Delivery(queue="q"))


def metrics_of(line: dict[str, Any]) -> set[tuple[str, str, tuple[str, ...]]]:
    """The namespace, name and dimensions of each metric that CloudWatch makes of a line.

    It drops a line that names a metric or a dimension which the line does not have.
    """
    found = set()
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for metric in directive["Metrics"]:
            assert isinstance(line[metric["Name"]], int | float)
            for dimensions in directive["Dimensions"]:
                assert all(line[name] and isinstance(line[name], str) for name in dimensions)
                found.add((directive["Namespace"], metric["Name"], tuple(dimensions)))
    return found


def members_of(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in {"_aws", "Duration"}}


def test_each_delivery_is_a_line(lines: Lines) -> None:
    run("record", sent_at=time.time() - 20)
    run("fail", attempt=2)
    run("of a stranger")
    deliver("{", Delivery(queue="q"))
    done, failed, refused, malformed = lines()
    assert (malformed["Function"], malformed["Outcome"]) == ("unlisted", "malformed")
    assert time.time() * 1000 - done["_aws"]["Timestamp"] < 60_000
    assert 19_000 < done.pop("Delay") < 30_000
    assert 0 <= done["Duration"] < 20_000
    common = {"Queue": "q", "Deliveries": 1, "Running": 1}
    ran = {"Function": "record", "Outcome": "done", "Failures": 0, "Attempt": 1}
    assert members_of(done) == common | ran
    ran = {"Function": "fail", "Outcome": "failed", "Failures": 1, "Attempt": 2}
    assert members_of(failed) == common | ran
    label = {"Function": "unlisted", "Outcome": "unknown-function", "Failures": 1}
    assert members_of(refused) == common | label
    assert "Duration" not in refused
    for line in (failed, refused):
        metrics_of(line)


def test_a_delivery_that_ends_the_process_has_no_outcome_to_count() -> None:
    with MetricsObserver(pytest.fail).delivering(run_of(queue="q")):
        pass


def test_a_task_that_was_cut_off_is_counted_once_by_the_next_delivery(lines: Lines) -> None:
    run("record")
    RUNNING.cuts["other", "fail"] += 2
    run("record")
    run("record")
    _, _, cut, _ = lines()
    assert cut.pop("_aws")["CloudWatchMetrics"][0]["Dimensions"] == [["Queue"]]
    assert cut == {"Queue": "other", "Function": "fail", "Outcome": "none", "Cut": 2}


def test_a_stuck_task_is_counted_when_it_is_found(lines: Lines) -> None:
    run("record")
    lines()
    message = Message(function="record")
    for delivery in (run_of(message, queue="q"), None):
        task_stuck.send(sender=None, delivery=delivery, thread_id=1)
    stuck, unknown = map(members_of, lines())
    assert stuck == {"Queue": "q", "Function": "record", "Outcome": "none", "Stuck": 1}
    assert unknown == {"Queue": "none", "Function": "unlisted", "Outcome": "none", "Stuck": 1}


def test_each_alarm_has_a_metric_that_is_written(lines: Lines) -> None:
    RUNNING.cuts["q", "fail"] += 1
    run("record", sent_at=time.time())
    task_stuck.send(sender=None, delivery=run_of(queue="q"), thread_id=1)
    written = set().union(*map(metrics_of, lines()))
    package = resources.files("beanstalk_dispatch.deploying")
    alarms = yaml.safe_load(package.joinpath("templates", "cloudwatch-alarms.yaml").read_text())
    for each in alarms["Resources"].values():
        of = each["Properties"]
        dimensions = tuple(dimension["Name"] for dimension in of["Dimensions"])
        assert (of["Namespace"], of["MetricName"], dimensions) in written


@pytest.mark.parametrize(("family", "host"), [
    (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]"),
])  # fmt: skip
def test_an_agent_gets_the_lines_by_udp(worker_env: Environment, family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as agent:
        agent.settimeout(10)
        agent.bind((host.strip("[]"), 0))
        worker_env(DISPATCH_TABLE="record=tests.jobs.record",
                   DISPATCH_EMBEDDED_METRICS=f"udp://{host}:{agent.getsockname()[1]}")  # fmt: skip
        run("record")
        line = json.loads(agent.recv(65_536))
    assert line["_aws"]["LogGroupName"] == "/aws/elasticbeanstalk/beanstalk_dispatch"
    assert line["Outcome"] == "done"
    run("record")  # an agent that has gone costs no task
