from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.embedded_metrics import write_backlog
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.proxy import Proxy, error
from tests.workers import Recording, make_worker, send

NAMES = ["Visible", "InFlight", "Delayed", "WantedProcesses"]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_queue_has_a_line_of_its_own(sqs_env: Environment, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other")
    send(*"1234")
    assert open_queue("other").name
    stream = io.StringIO()
    write_backlog(make_worker(Recording(), "jobs", "other", threads=2), stream)()
    jobs, other = lines(stream)
    metadata = jobs.pop("_aws")
    assert 0 <= time.time() * 1000 - metadata["Timestamp"] < 60_000
    assert metadata["CloudWatchMetrics"] == [{
        "Namespace": "BeanstalkDispatch",
        "Dimensions": [["Queue"]],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in NAMES],
    }]  # fmt: skip
    assert jobs == {
        "Queue": queue_name, "Visible": 4, "InFlight": 0, "Delayed": 0, "WantedProcesses": 2,
        "Threads": 2,
    }  # fmt: skip
    assert other["Queue"] == f"{queue_name}-other"


def test_what_is_named_is_a_member_with_a_number(sqs_env: Environment) -> None:
    """CloudWatch drops a line that names a dimension or a metric which it does not have."""
    assert open_queue("jobs").name
    stream = io.StringIO()
    write_backlog(make_worker(Recording()), stream)()
    (line,) = lines(stream)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert all(isinstance(line[each["Name"]], int) for each in directive["Metrics"])
    assert all(isinstance(line[key], str) for keys in directive["Dimensions"] for key in keys)


def test_it_is_written_once_a_minute(sqs_env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_queue("jobs").name
    stream = io.StringIO()
    tick = write_backlog(make_worker(Recording()), stream)
    for seconds, count in ((100.0, 1), (159.0, 1), (160.0, 2), (161.0, 2)):
        monkeypatch.setattr(clock, "monotonic", lambda seconds=seconds: seconds)
        tick()
        assert len(lines(stream)) == count


def test_a_queue_without_an_alias_is_shown_without_its_account(
    sqs_env: Environment, queue_name: str
) -> None:
    url = open_queue("jobs").url
    sqs_env(DISPATCH_QUEUES=None)
    stream = io.StringIO()
    write_backlog(make_worker(Recording(), url), stream)()
    assert [line["Queue"] for line in lines(stream)] == [queue_name]


def test_a_queue_that_cannot_be_read_has_no_line(
    sqs_env: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_queue("jobs").name
    proxy.spoil = lambda operation, request: (
        error(403, "AccessDenied") if operation == "GetQueueAttributes" else None
    )
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    caplog.clear()
    stream = io.StringIO()
    write_backlog(make_worker(Recording()), stream)()
    assert stream.getvalue() == ""
    (record,) = caplog.records
    assert record.getMessage().startswith("backlog unknown queues=jobs error=GetQueueAttributes on")
