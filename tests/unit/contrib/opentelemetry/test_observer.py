"""TracingObserver, with the SDK in this process."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import beanstalk_dispatch.contrib.cloudwatch  # noqa: F401 - a worker imports it at its start
from beanstalk_dispatch import signals
from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.consumers.lambda_.batch import Batch
from beanstalk_dispatch.contrib.opentelemetry import TracingObserver, attributes, observer
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.observers import Observer
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.safe_task import Retry
from beanstalk_dispatch.sqs.opening import open_queue
from tests import jobs, tracing
from tests.conftest import Environment
from tests.consumers import run_all
from tests.lambda_events import record_of
from tests.prepared import run_prepared
from tests.runs import deliver, deliver_and_keep, run_of
from tests.services import until

OBSERVER = "beanstalk_dispatch.contrib.opentelemetry.TracingObserver"
HERE = "tests.unit.contrib.opentelemetry.test_observer"
TABLE = (
    "record=tests.jobs.record fail=tests.jobs.fail stop=tests.jobs.stop "
    f"again={HERE}.again see={HERE}.see"
)
seen: list[Any] = []


def again(times: int) -> None:
    """Ask for so many retries."""
    seen.append(times)
    if len(seen) <= times:
        raise Retry(delay=0)


def see() -> None:
    """Keep the current span and the baggage."""
    seen.append((trace.get_current_span().get_span_context(), baggage.get_baggage("tenant")))


class Telemetry:
    """What the SDK has exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()

    def spans(self, operation: str) -> list[ReadableSpan]:
        return [
            span
            for span in self.exporter.get_finished_spans()
            if span.attributes and span.attributes["messaging.operation.type"] == operation
        ]

    def values(self, name: str) -> Counter[tuple[Any, Any, Any]]:
        """The counts of a metric by function, outcome and error."""
        counts: Counter[tuple[Any, Any, Any]] = Counter()
        data = self.reader.get_metrics_data()
        assert data is not None
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points if metric.name == name else ():
                labels = dict(point.attributes or {})
                key = tuple(
                    labels.get(each)
                    for each in ("beanstalk_dispatch.function", "beanstalk_dispatch.outcome",
                                 "error.type")
                )  # fmt: skip
                counts[key] += getattr(point, "value", None) or point.count  # type: ignore[union-attr, index]
        return counts


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telemetry]:
    made = Telemetry()
    tracers, meters = TracerProvider(), MeterProvider([made.reader])
    tracers.add_span_processor(SimpleSpanProcessor(made.exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracers)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", meters)
    seen.clear()
    yield made
    signals.worker_stopped.disconnect(observer.flush)
    signals.invocation_finished.disconnect(observer.flush)
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture
def traced(telemetry: Telemetry, worker_env: Environment) -> Telemetry:
    """A worker on a real queue, whose tasks are traced."""
    worker_env(DISPATCH_TABLE=TABLE, DISPATCH_OBSERVERS=OBSERVER)
    return telemetry


def run(function: str, *args: Any, receive_count: int = 1, **members: Any) -> Result:
    body = Message(function=function, args=args, **members).encode(queue="q")
    return deliver(body, Delivery(queue="q", message_id="sqs-1", receive_count=receive_count))


Ids = tuple[int, int]


def ids_of(span: ReadableSpan) -> Ids:
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> Ids:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id


def creation_of(span: ReadableSpan) -> Ids:
    (link,) = span.links
    return link.context.trace_id, link.context.span_id


def names_of(spans: list[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


# --- spans -----------------------------------------------------------------------------------


def test_a_delivery_is_linked_to_its_creation(traced: Telemetry, queue_name: str) -> None:
    task_id = schedule_function("jobs", "see")
    assert run_all() == [Outcome.DONE]
    (sent,), (processed,) = traced.spans("send"), traced.spans("process")
    assert (sent.name, sent.kind) == (f"send {queue_name}", SpanKind.PRODUCER)
    assert (processed.name, processed.kind) == (f"process {queue_name}", SpanKind.CONSUMER)
    assert creation_of(processed) == ids_of(sent)
    assert processed.parent is None
    assert seen[0][0] == processed.context
    assert sent.attributes == {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": queue_name,
        "messaging.message.id": task_id,
        "beanstalk_dispatch.function": "see",
        "beanstalk_dispatch.attempt": 1,
    }
    values = dict(processed.attributes or {})
    assert values.pop("messaging.message.body.size", 0)
    assert values.pop("beanstalk_dispatch.message_id", "")
    assert values == {
        **sent.attributes,
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "beanstalk_dispatch.receive_count": 1,
        "beanstalk_dispatch.outcome": "done",
    }


def test_100_of_100_tasks_are_linked(traced: Telemetry, worker_env: Environment) -> None:
    """Through batches, retries, delays beyond SQS's, and Lambda."""
    sent = schedule_many("jobs", [Call("record", [number]) for number in range(60)])
    sent += [schedule_function("jobs", "record") for _ in range(20)]
    assert run_all(deliveries=200) == [Outcome.DONE] * 80
    sent += schedule_many("jobs", [Call("record", [number]) for number in range(10)])
    received = open_queue("jobs").receive(count=10, wait=0, visibility=60)
    assert Batch(list(map(record_of, received)), seconds=60).run() == []
    sent.append(schedule_function("jobs", "again", 9))
    assert run_all(deliveries=10) == [Outcome.RETRY] * 9 + [Outcome.DONE]
    sent.append(schedule("jobs", Call("record", delay=2000)))
    creations = {
        str((span.attributes or {})["messaging.message.id"]): ids_of(span)
        for span in traced.spans("create") + traced.spans("send")
        if "messaging.message.id" in (span.attributes or {}) and span.parent is None
    }
    processed = traced.spans("process")
    assert len(processed) == 80 + 10 + 10
    for span in processed:
        task_id = str((span.attributes or {})["messaging.message.id"])
        assert creation_of(span) == creations[task_id]
    assert len({*sent}) == len(sent)


def test_a_hop_is_linked_and_no_error(traced: Telemetry) -> None:
    body = Message(function="record", not_before=9_999_999_999).encode(queue="q")
    assert deliver(body, Delivery(queue="q")).outcome is Outcome.MALFORMED
    assert traced.spans("process")[0].status.status_code is StatusCode.ERROR
    traced.exporter.clear()
    parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    result = run("record", not_before=time.time() + 5000, headers=parent)
    assert result.outcome is not Outcome.DONE
    (span,) = traced.spans("process")
    assert trace.format_trace_id(creation_of(span)[0]) in parent["traceparent"]


def test_a_batch_has_a_span_for_each_message(traced: Telemetry, queue_name: str) -> None:
    ids = schedule_many("jobs", [Call("record"), Call("fail")])
    created, (sent,) = traced.spans("create"), traced.spans("send")
    assert [(span.attributes or {})["messaging.message.id"] for span in created] == ids
    assert [link.context for link in sent.links] == [span.context for span in created]
    assert (sent.attributes or {})["messaging.batch.message_count"] == 2
    assert sent.kind is SpanKind.CLIENT
    assert names_of(created) == [f"create {queue_name}"] * 2


def test_baggage_travels_beside_that_of_another_observer(
    traced: Telemetry, worker_env: Environment
) -> None:
    worker_env(DISPATCH_OBSERVERS=f"{HERE}.Other {OBSERVER}")
    token = context.attach(baggage.set_baggage("tenant", "customer-12"))
    schedule_function("jobs", "see")
    context.detach(token)
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=0)
    headers = json.loads(received.body)["headers"]
    assert headers["baggage"] == "sentry-release=1,tenant=customer-12"
    run_all()
    assert seen[0][1] == "customer-12"


class Other(Observer):
    """An observer that sends baggage, as Sentry's does."""

    def publishing(self, publications: Any, queue: str) -> Any:
        for each in publications:
            each.headers["baggage"] = "sentry-release=1"
        return super().publishing(publications, queue)


def test_a_delivery_continues_the_trace_if_asked_to(
    traced: Telemetry, worker_env: Environment
) -> None:
    worker_env(DISPATCH_OBSERVERS=f"{observer.__package__}.ContinuingObserver")
    schedule_function("jobs", "again", 1)
    assert run_all() == [Outcome.RETRY, Outcome.DONE]
    sent, retry = sorted(traced.spans("send"), key=lambda span: span.start_time or 0)
    processed = traced.spans("process")
    assert [parent_of(span) for span in processed] == [ids_of(sent)] * 2
    assert [span.links for span in processed] == [(), ()]
    assert retry.parent == processed[0].context
    assert {span.context.trace_id for span in traced.exporter.get_finished_spans()} == {
        sent.context.trace_id
    }


def test_the_span_of_a_request_is_the_parent(traced: Telemetry) -> None:
    with trace.get_tracer("django").start_as_current_span("POST") as request:
        run("record")
    (span,) = traced.spans("process")
    assert span.parent == request.get_span_context()


@pytest.mark.parametrize(
    ("function", "outcome", "error"),
    [
        ("record", "done", None),
        ("stop", "cancelled", None),
        ("again", "retry", None),
        ("fail", "failed", "ValueError"),
        ("nothing", "unknown-function", "UnknownFunction"),
    ],
)
def test_only_a_failure_is_an_error(
    traced: Telemetry, function: str, outcome: str, error: str | None
) -> None:
    args = [3] if function == "again" else []
    run(function, *args)
    (span,) = traced.spans("process")
    attributes = dict(span.attributes or {})
    assert attributes["beanstalk_dispatch.outcome"] == outcome
    assert attributes.get("error.type") == error
    is_error = span.status.status_code is StatusCode.ERROR
    assert is_error is (error is not None)
    assert [each.name for each in span.events] == (["exception"] if error else [])


def test_what_ends_without_an_attempt_has_a_span(traced: Telemetry) -> None:
    assert deliver("{", Delivery(queue="q")).outcome is Outcome.MALFORMED
    for _ in range(2):
        run("record", id="once")
    outcomes = [(span.attributes or {})["beanstalk_dispatch.outcome"] for span in
                traced.spans("process")]  # fmt: skip
    assert outcomes == ["malformed", "done", "duplicate"]


def test_an_exception_for_the_process_ends_the_span(traced: Telemetry) -> None:
    watch = TracingObserver().delivering(run_of(queue="q"))
    with watch:
        pass
    (span,) = traced.spans("process")
    assert "beanstalk_dispatch.outcome" not in (span.attributes or {})


def test_a_failure_without_an_exception_has_its_outcome_as_type(traced: Telemetry) -> None:
    run_without = run_of(queue="q")
    with TracingObserver().delivering(run_without):
        run_without.outcome = Outcome.CUT
    (span,) = traced.spans("process")
    assert (span.attributes or {})["error.type"] == "cut"
    assert span.events == ()


def test_a_failed_send_is_an_error(traced: Telemetry, worker_env: Environment) -> None:
    worker_env(AWS_ENDPOINT_URL_SQS=None, DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:9",
               DISPATCH_QUEUES="jobs=https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
               DISPATCH_SEND_TIMEOUT="1s")  # fmt: skip
    with pytest.raises(SendError):
        schedule_function("jobs", "record")
    (span,) = traced.spans("send")
    assert span.status.status_code is StatusCode.ERROR
    error = str((span.attributes or {})["error.type"])
    assert traced.values("messaging.client.sent.messages") == {(None, None, error): 1}


# --- metrics ---------------------------------------------------------------------------------


def test_metrics_name_listed_functions_only(traced: Telemetry) -> None:
    schedule_many("jobs", [Call("record"), Call("fail")])
    schedule_function("jobs", "record")
    for function in ("record", "fail", "a-name-of-a-stranger"):
        run(function)
    assert traced.values("messaging.client.sent.messages") == {(None, None, None): 3}
    done, failed = ("record", "done", None), ("fail", "failed", "ValueError")
    unknown = (None, "unknown-function", "UnknownFunction")
    assert traced.values("messaging.client.consumed.messages") == {done: 1, failed: 1, unknown: 1}
    assert traced.values("messaging.process.duration") == {done: 1, failed: 1}


# --- the end of a process --------------------------------------------------------------------


def test_nothing_is_computed_for_a_span_that_is_not_sampled(
    traced: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(sampler=ALWAYS_OFF))
    monkeypatch.setattr(attributes, "of_delivery", pytest.fail)
    run("fail")
    consumed = traced.values("messaging.client.consumed.messages")
    assert consumed == {("fail", "failed", "ValueError"): 1}


def test_an_end_flushes_what_waits(traced: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    def force_flush(*, timeout_millis: int) -> None:
        waits.append(timeout_millis)

    monkeypatch.setattr(trace.get_tracer_provider(), "force_flush", force_flush)
    run("record")
    signals.invocation_finished.send(object, seconds=1.5)
    signals.worker_stopped.send(object, exit_code=0)
    assert waits == [1500, 5000]
    assert metrics.get_meter_provider() is metrics_internal._METER_PROVIDER


def test_without_an_sdk_nothing_is_flushed_or_sent(worker_env: Environment) -> None:
    worker_env(DISPATCH_TABLE=TABLE, DISPATCH_OBSERVERS=OBSERVER)
    schedule_function("jobs", "record")
    (received,) = open_queue("jobs").receive(count=1, wait=0, visibility=0)
    assert "headers" not in json.loads(received.body)
    assert run_all() == [Outcome.DONE]
    assert jobs.calls == [((), {})]
    observer.flush()


class Endpoint(DelayedCopies):
    """A consumer with children."""

    children = CHILDREN


def spans_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in file.read_text().replace("}{", "}\n{").splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_server")
@pytest.mark.parametrize("isolation", ["process", "fresh"])
def test_the_spans_of_a_child_are_flushed(
    telemetry: Telemetry, env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], isolation: str,
) -> None:  # fmt: skip
    """The parent counts its tasks, for CloudWatch too."""
    file = tmp_path / "spans"
    monkeypatch.setenv("TRACE_FILE", str(file))
    env(WORKER=True, DISPATCH_ISOLATION=isolation, DISPATCH_QUEUES="q=q",
        DISPATCH_TABLE=f"record={tracing.__name__}.record", DISPATCH_OBSERVERS=OBSERVER,
        DISPATCH_CRASH_LEDGER=tmp_path / "ledger", DISPATCH_EMBEDDED_METRICS="stdout")  # fmt: skip
    parent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    for number in range(3):
        body = Message(function="record", id=str(number), headers=parent).encode(queue="q")
        result = deliver_and_keep(body, Delivery(queue="q"), Endpoint())[1]
        assert result.outcome is Outcome.DONE
    CHILDREN.close()
    until(lambda: file.exists() and len(spans_in(file)) == 3)
    spans = spans_in(file)
    assert {span["links"][0]["context"]["span_id"] for span in spans} == {"0xb7ad6b7169203331"}
    assert telemetry.spans("process") == []
    consumed = telemetry.values("messaging.client.consumed.messages")
    assert consumed == {("record", "done", None): 3}
    assert capfd.readouterr().out.count('"Outcome": "done", "Deliveries": 1') == 3


# --- without the library ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_missing_library_gives_the_pip_line() -> None:
    code = """
        import sys
        sys.modules["opentelemetry"] = None
        try:
            import beanstalk_dispatch.contrib.opentelemetry
        except ImportError as exc:
            print(exc)
    """
    done = run_prepared(textwrap.dedent(code), os.environ)
    assert done.stdout == (
        "it needs opentelemetry-api: pip install 'django-beanstalk-dispatch[opentelemetry]'\n"
    )
