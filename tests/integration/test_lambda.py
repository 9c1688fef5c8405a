"""The handler under AWS's own runtime client, awslambdaric."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.kent import Kent
from tests.lambda_events import event, record, task
from tests.runtime_api import Function
from tests.services import until, valkey

pytest.importorskip("awslambdaric")  # its wheels are for Linux

TABLE = (
    "append=tests.jobs.append fail=tests.jobs.fail loop=tests.jobs.loop nap=tests.jobs.nap "
    "hang_once=tests.jobs.hang_once exits=tests.jobs.exits flaky=tests.jobs.Flaky"
)


def function(tmp_path: Path, **variables: str) -> Function:
    return Function(
        tmp_path / "function.log",
        **{
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "BEANSTALK_DISPATCH_TABLE": TABLE,
            "BEANSTALK_DISPATCH_CRASH_LEDGER": str(tmp_path / "ledger"),
            **variables,
        },
    )


def reported(answer: tuple[str, Any], records: list[dict[str, Any]]) -> list[int]:
    """The positions of the records that are to be delivered again."""
    kind, response = answer
    assert kind == "response", response
    ids = [each["messageId"] for each in records]
    return [ids.index(each["itemIdentifier"]) for each in response["batchItemFailures"]]


def numbers(path: Path) -> Counter[str]:
    return Counter(path.read_text().split())


def test_batches_run_and_a_timeout_and_an_exit_cost_one_record_each(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    variables = {
        "DJANGO_SETTINGS_MODULE": "tests.lambda_settings",
        "BEANSTALK_DISPATCH_EMBEDDED_METRICS": "stdout",
        # As the template has it.
        "AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO",
    }  # fmt: skip
    with function(tmp_path, **variables) as started:
        records = [
            task("append", str(path), 1), task("fail"), record("not a message"), task("exits"),
            task("append", str(path), 2), task("loop", 60),
        ]  # fmt: skip
        assert reported(started.invoke(event(*records), seconds=4), records) == [1, 2, 3, 5]
        again = [task("append", str(path), 3)]
        assert reported(started.invoke(event(*again)), again) == []
        kind, error = started.invoke({"detail": "of another service"})
        assert (kind, error["errorType"]) == ("error", "ValueError")
        log = started.log()
    assert numbers(path) == {"1": 1, "2": 1, "3": 1}
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    ours = [line for line in lines if line.get("logger", "").startswith("beanstalk_dispatch")]
    assert [line["message"].startswith("start worker=True") for line in ours].count(True) == 1
    tasks = [line for line in ours if line["message"].startswith("task ")]
    assert Counter(line["outcome"] for line in tasks) == {
        "done": 3, "failed": 2, "malformed": 1, "timed-out": 1,
    }  # fmt: skip
    first, second = (line for line in ours if line["message"].startswith("batch "))
    assert (first["records"], first["reported"], first["unstarted"]) == (6, 4, 0)
    assert (second["records"], second["reported"]) == (1, 0)
    metrics = [line for line in lines if "_aws" in line]
    assert [line["Failures"] for line in metrics] == [0, 1, 1, 1, 0, 1, 0]


def test_errors_reach_sentry_before_the_process_is_suspended(tmp_path: Path) -> None:
    """Each takes a fifth of a second. The process does not go on after its answer."""
    kent = Kent(delay=0.2)
    try:
        variables = {
            "SENTRY_DSN": kent.dsn,
            "BEANSTALK_DISPATCH_SAFE_TASK": "beanstalk_dispatch.contrib.sentry.SentrySafeTask",
        }
        with function(tmp_path, **variables) as started:
            started.is_suspended = True
            records = [task("fail") for _ in range(3)]
            assert reported(started.invoke(event(*records)), records) == [0, 1, 2]
            assert len(kent.of("event")) == 3
    finally:
        kent.stop()


def test_a_function_that_is_not_a_worker_does_not_start(tmp_path: Path) -> None:
    with function(tmp_path, BEANSTALK_WORKER="False") as started:
        kind, error = started.answer()
    assert (kind, error["errorType"]) == ("error", "ConfigurationError")
    assert "set BEANSTALK_WORKER=True in its environment" in error["errorMessage"]


def test_a_retry_is_a_delayed_copy(sqs_env: Environment, queue_name: str, tmp_path: Path) -> None:
    first = task("flaky", queue=queue_name)
    open_queue("jobs")
    with function(tmp_path) as started:
        assert reported(started.invoke(event(first)), [first]) == []
        assert "outcome=retry" in started.log()
    queue = open_queue("jobs")
    answer = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
    names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")
    found: dict[Any, str] = dict(answer["Attributes"])
    assert sum(int(found[name]) for name in names) == 1


def test_a_killed_function_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    """With a lease: what was done before the kill stays done; what ran waits for its end."""
    path, gate = tmp_path / "numbers", tmp_path / "gate"
    records = [
        *(task("append", str(path), number) for number in range(5)),
        task("hang_once", str(gate)),
        *(task("append", str(path), number) for number in range(5, 10)),
    ]  # fmt: skip
    with valkey() as port:
        variables = {
            "DJANGO_SETTINGS_MODULE": "benchmarks.storm_settings", "LEASES_PORT": str(port),
            "SECRET_KEY": "a-secret-for-tests-only", "DATABASE_URL": "sqlite://:memory:",
            "BEANSTALK_DISPATCH_LEASE_CACHE": "leases",
        }  # fmt: skip
        with function(tmp_path, **variables) as started:
            started.begin(event(*records))
            until(gate.exists)
            started.kill()
            started.start()
            assert reported(started.invoke(event(*records)), records) == [5]
            with redis.Redis(port=port) as client:
                # As after a minute: leases end, and the marks of what is done stay for days.
                client.delete(*client.scan_iter("*.turn.*"))
            assert reported(started.invoke(event(*records)), records) == []
            log = started.log()
    assert numbers(path) == {str(number): 1 for number in range(10)}
    assert numbers(gate) == {"0": 2}
    assert log.count("outcome=duplicate") == 5 + 10
    assert f"cut id={json.loads(records[5]['body'])['id']} function=hang_once" in log
