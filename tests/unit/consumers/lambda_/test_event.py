from __future__ import annotations

import time
from typing import Any

import pytest

from beanstalk_dispatch.consumers.lambda_.event import delivery_of, records_of
from tests.lambda_events import event, record


@pytest.mark.parametrize(
    "wrong",
    [{}, {"Records": None}, [], None, "text", {"Records": [{"eventSource": "aws:s3"}]},
     {"Records": ["text"]}, {"Records": {}}],
)  # fmt: skip
def test_another_event_is_refused_with_what_is_expected(wrong: Any) -> None:
    with pytest.raises(ValueError, match="not an event of an SQS event source mapping"):
        records_of(wrong)


@pytest.mark.parametrize("source", ["aws:kafka", None])
def test_a_record_of_another_source_is_refused_whatever_else_it_has(source: str | None) -> None:
    with pytest.raises(ValueError, match="expected Records with the eventSource aws:sqs"):
        records_of(event(record("a"), record("b") | {"eventSource": source}))


@pytest.mark.parametrize("name", ["messageId", "body", "eventSourceARN"])
@pytest.mark.parametrize("value", [None, 5])
def test_a_record_without_what_is_needed_is_refused_before_a_task_runs(
    name: str, value: object
) -> None:
    with pytest.raises(ValueError, match="and with messageId, body, eventSourceARN"):
        records_of(event(record("a"), record("b") | {name: value}))


@pytest.mark.parametrize(
    "wrong",
    [{"attributes": None}, {"attributes": {"ApproximateReceiveCount": "many"}},
     {"attributes": {"SentTimestamp": ["now"]}}, {"messageAttributes": None},
     {"messageAttributes": {"name": "value"}}, {"eventSourceARN": "arn:aws:sqs:nowhere:1:q"}],
)  # fmt: skip
def test_wrong_attributes_are_refused_before_a_task_runs(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not an event of an SQS .* mapping: message 'b': "):
        records_of(event(record("a"), record("b", message_id="b") | wrong))


def test_the_records_are_those_of_the_event() -> None:
    records = [record("a"), record("b")]
    assert records_of(event(*records)) == records
    assert records_of(event()) == []


def test_a_delivery_says_what_its_record_says() -> None:
    delivery = delivery_of(
        record("a", queue="q.fifo", message_id="1", receive_count=3, group="g"), deadline=5.0
    )
    assert (delivery.queue, delivery.message_id, delivery.receive_count) == ("q.fifo", "1", 3)
    assert delivery.location == "eu-west-1/123456789012"
    assert (delivery.group_id, delivery.deadline, delivery.task_name) == ("g", 5.0, None)
    assert delivery.sent_at == pytest.approx(time.time(), abs=5)
    assert delivery.first_received_at == delivery.sent_at


def test_a_periodic_task_that_a_worker_has_sent_is_one_here_too() -> None:
    sent = record(
        "x", beanstalk_sqsd_task_name="clean-up",
        beanstalk_sqsd_scheduled_time="2026-01-02T03:04:05Z",
    )  # fmt: skip
    delivery = delivery_of(sent, deadline=0.0)
    assert (delivery.task_name, delivery.scheduled_at) == ("clean-up", 1767323045.0)


def test_times_that_are_missing_are_unknown() -> None:
    bare = record("a")
    bare["attributes"] = {}
    delivery = delivery_of(bare, deadline=0.0)
    assert (delivery.receive_count, delivery.sent_at, delivery.first_received_at) == (1, None, None)
