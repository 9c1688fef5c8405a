"""Sentry in this process: an SDK whose transport is a list, and whose calls may fail."""

from __future__ import annotations

import json
import os
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from contextvars import Context
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import sentry_sdk
from django.core.signals import request_started
from django.db import transaction
from django.dispatch import Signal
from django.test import override_settings
from sentry_sdk.consts import DEFAULT_OPTIONS
from sentry_sdk.envelope import Envelope, Item
from sentry_sdk.integrations import logging as logging_integration
from sentry_sdk.transport import HttpTransport, Transport

from beanstalk_dispatch import signals
from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.contrib.sentry import client, crons, errors, privacy, setup, spans
from beanstalk_dispatch.contrib.sentry import task as task_module
from beanstalk_dispatch.contrib.sentry.transport import ErrorsFirstTransport
from beanstalk_dispatch.contrib.sentry.variables import cast_receives, get_values
from beanstalk_dispatch.exceptions import AlreadyDone, LeaseUnavailable, TaskCut
from beanstalk_dispatch.logging import throttle
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running import attempt, dead_letters
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.limits import time_limit
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.scheduling.destination import Destination
from beanstalk_dispatch.scheduling.prepare import Prepared
from beanstalk_dispatch.scheduling.send import SendResult
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from tests import jobs
from tests.conftest import Environment
from tests.integration.test_sentry import SAFE_TASK, environment_of
from tests.prepared import run_prepared
from tests.runs import deliver, run_of
from tests.sentry_rules import Ingestion
from tests.sentry_sdk_support import skip_unless_supported
from tests.sentry_site import SECRET, TABLE, boom
from tests.services import ROOT, until

skip_unless_supported()

PUBLISH = "queue.publish"


class Memory(Transport):
    """Keeps what it is given, or fails."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.ingestion = Ingestion()
        self.fails = False
        self.ignored: set[str] = set()

    def capture_envelope(self, envelope: Any) -> None:
        if self.fails:
            raise OSError("no transport")
        self.ingestion.refuse(envelope.serialize())
        for item in envelope.items:
            self.sent.append((item.type, json.loads(item.get_bytes())))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for each, body in self.sent if each == kind]


@pytest.fixture
def sentry(env: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """An SDK without integrations, which would stay in this process; set up by the project."""
    env(DISPATCH_TABLE=TABLE, DISPATCH_SAFE_TASK=SAFE_TASK, DISPATCH_EXECUTE_SYNCHRONOUSLY=True,
        DISPATCH_PERIODIC_TASKS="quiet boom again patient")  # fmt: skip
    yield from installed(monkeypatch)


def installed(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Memory]:
    ignored: set[str] = set()
    monkeypatch.setattr(logging_integration, "ignore_logger", ignored.add)  # they would stay so
    setup.init_on_first_use.cache_clear()
    crons._read_schedules.cache_clear()
    transport = Memory()
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            "http://public@127.0.0.1:9/1", transport=transport, default_integrations=False,
            auto_enabling_integrations=False, **({"traces_sample_rate": 1.0} | options),
        )  # fmt: skip
        setup.init()
        transport.ignored = ignored
        yield transport
        assert transport.ingestion.problems == []
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    signals.worker_stopped.disconnect(setup._send_what_waits)
    signals.invocation_finished.disconnect(setup._send_what_waits)
    signals.task_stuck.disconnect(setup._on_task_stuck)
    request_started.disconnect(setup._on_request_started)


def run(function: str, *args: Any, receive_count: int = 1, **members: Any) -> Result:
    body = Message(function=function, args=args, **members).encode(queue="q").encode()
    return deliver(body, Delivery(queue="q", message_id="1", receive_count=receive_count))


# --- init() ----------------------------------------------------------------------------------


def in_a_process(code: str, **variables: str) -> dict[str, Any]:
    """Run ``code`` after Django's start; what it leaves in ``result``, and the log."""
    script = "import json, django, sentry_sdk\n" + textwrap.dedent(code)
    settings = {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = run_prepared(
        script + "\nprint(json.dumps(result))",
        os.environ | environment_of("") | settings | variables,
    )
    assert run.returncode == 0, run.stderr
    return {"result": json.loads(run.stdout), "log": run.stderr}


DSN = "http://public@127.0.0.1:9/1"
OPTIONS = """
    django.setup()
    client = sentry_sdk.get_client()
    result = {"active": client.is_active(), **{name: client.options.get(name) for name in
              ("dsn", "environment", "release", "profiles_sample_rate", "send_default_pii")}}
"""


@pytest.mark.slow
def test_the_environment_alone_sets_it_up() -> None:
    found = in_a_process(
        OPTIONS, SENTRY_DSN=DSN, SENTRY_RELEASE="1.2", SENTRY_PROFILES_SAMPLE_RATE="0.5",
        SENTRY_SEND_DEFAULT_PII="True",
    )  # fmt: skip
    assert found["result"] == {
        "active": True, "dsn": DSN, "environment": "tests", "release": "1.2",
        "profiles_sample_rate": 0.5, "send_default_pii": True,
    }  # fmt: skip


@pytest.mark.slow
def test_without_a_dsn_it_does_nothing() -> None:
    assert not in_a_process(OPTIONS)["result"]["active"]


@pytest.mark.slow
def test_without_the_property_it_does_nothing() -> None:
    found = in_a_process(OPTIONS, SENTRY_DSN=DSN, BEANSTALK_DISPATCH_SAFE_TASK="")
    assert not found["result"]["active"]


@pytest.mark.slow
def test_an_sdk_of_the_projects_own_is_left_alone() -> None:
    own = "sentry_sdk.init('http://own@127.0.0.1:9/2', environment='own')"
    found = in_a_process(own + textwrap.dedent(OPTIONS), SENTRY_DSN=DSN)
    assert found["result"]["dsn"] == "http://own@127.0.0.1:9/2"
    assert found["result"]["environment"] == "own"


@pytest.mark.slow
def test_wrong_values_are_told_together_and_the_rest_works() -> None:
    found = in_a_process(
        OPTIONS, SENTRY_DSN=DSN, SENTRY_TRACES_SAMPLE_RATE="half", SENTRY_SEND_DEFAULT_PII="Ture"
    )
    assert found["result"]["active"]
    assert not found["result"]["send_default_pii"]
    line = next(line for line in found["log"].splitlines() if "SAFE_TASK could not start" in line)
    assert "SENTRY_TRACES_SAMPLE_RATE: 'half' is not a rate; write a number from 0 to 1" in line
    assert "SENTRY_SEND_DEFAULT_PII: 'Ture' is not a boolean" in line


@pytest.mark.slow
def test_a_wrong_variable_of_the_package_is_an_event() -> None:
    code = """
        from sentry_sdk.transport import HttpTransport
        events = []
        HttpTransport.capture_envelope = lambda self, envelope: events.append(envelope.get_event())
        django.setup()
        result = [event["logentry"] for event in events]
    """
    (found,) = in_a_process(code, SENTRY_DSN=DSN, BEANSTALK_DISPATCH_ON_FAILURE="x")["result"]
    assert found["message"] == "start worker=unknown reason=configuration error=%s"
    assert "BEANSTALK_DISPATCH_ON_FAILURE: 'x'" in found["params"][0]


@pytest.mark.slow
def test_without_a_dsn_the_sdk_is_not_imported() -> None:
    code = """
        import sys
        for name in [name for name in sys.modules if name.split(".")[0] == "sentry_sdk"]:
            del sys.modules[name]
        del sentry_sdk
        django.setup()
        import logging
        logging.getLogger("beanstalk_dispatch").setLevel("INFO")
        from beanstalk_dispatch.messages.delivery import Delivery
        from beanstalk_dispatch.running import pipeline
        from tests.runs import deliver
        body = '{"function": "fail", "args": [], "kwargs": {}}'
        outcome = deliver(body, Delivery()).outcome
        result = [outcome, "sentry_sdk" in sys.modules]
    """
    found = in_a_process(
        code, BEANSTALK_DISPATCH_SIGNING_KEYS="", BEANSTALK_DISPATCH_TABLE="fail=tests.jobs.fail"
    )
    assert found["result"] == ["failed", False]


@pytest.mark.slow
def test_a_wrong_dsn_is_told() -> None:
    found = in_a_process(OPTIONS, SENTRY_DSN="sentry.io/1")
    assert not found["result"]["active"]
    assert "BEANSTALK_DISPATCH_SAFE_TASK could not start error=SENTRY_DSN: " in found["log"]


@pytest.mark.slow
def test_misspelt_variables_are_one_line_at_the_start() -> None:
    found = in_a_process(OPTIONS, SENTRY_DNS=DSN, BEANSTALK_WORKR="True")
    assert [line for line in found["log"].splitlines() if "unknown" in line] == [
        (
            "unknown variables names='BEANSTALK_WORKR, SENTRY_DNS' "
            "did_you_mean='BEANSTALK_WORKER, SENTRY_DSN'"
        )
    ]


@pytest.mark.slow
def test_a_missing_sdk_gives_the_pip_line() -> None:
    code = """
        import sys
        sys.modules["sentry_sdk"] = None
        django.setup()
        from beanstalk_dispatch.running import attempt, dead_letters, pipeline
        from beanstalk_dispatch.messages.delivery import Delivery
        from beanstalk_dispatch.exceptions import ConfigurationError
        from tests.runs import deliver
        try:
            deliver('{"function": "quiet", "args": [], "kwargs": {}}', Delivery())
        except ConfigurationError as exc:
            result = str(exc)
    """
    table = "quiet=tests.jobs.record"  # a module without the SDK
    found = in_a_process(code, BEANSTALK_DISPATCH_SIGNING_KEYS="", BEANSTALK_DISPATCH_TABLE=table)
    expected = (
        f"BEANSTALK_DISPATCH_SAFE_TASK: cannot import {SAFE_TASK}: it needs sentry-sdk: "
        "pip install 'django-beanstalk-dispatch[sentry]'"
    )
    assert found["result"] == expected
    assert expected in found["log"]


def test_a_failing_set_up_on_first_use_is_logged(
    sentry: Memory, env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(SENTRY_MAX_RUNTIME="long")
    assert run("quiet").outcome is Outcome.DONE
    assert "Sentry is only partly configured error=SENTRY_MAX_RUNTIME: 'long'" in caplog.text


# --- a failing SDK ---------------------------------------------------------------------------

CALLS = [
    (sentry_sdk, "isolation_scope"),
    (sentry_sdk, "continue_trace"),
    (sentry_sdk, "start_transaction"),
    (sentry_sdk, "start_span"),
    (sentry_sdk, "capture_event"),
    (sentry_sdk, "get_current_span"),
    (sentry_sdk.Scope, "iter_trace_propagation_headers"),
    (sentry_sdk.Scope, "set_tags"),
    (sentry_sdk.Scope, "set_transaction_name"),
    (sentry_sdk.tracing.Span, "set_data"),
    (sentry_sdk.tracing.Span, "set_status"),
    (sentry_sdk.tracing.Span, "finish"),
    (sentry_sdk.tracing.Span, "__enter__"),
    (sentry_sdk.tracing.Span, "__exit__"),
    (sentry_sdk.crons, "capture_checkin"),
    (sentry_sdk.utils, "event_from_exception"),
    (spans, "facts_of"),
    (privacy, "may_send_arguments"),
    (setup, "init"),
    (task_module, "is_sending"),
]


@pytest.mark.parametrize(("owner", "name"), CALLS, ids=[name for _, name in CALLS])
def test_an_sdk_that_fails_changes_no_outcome(
    owner: Any, name: str, sentry: Memory, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("from the SDK")

    with sentry_sdk.start_transaction(op="http.server", name="a request") as request:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            assert schedule_function("q", "quiet", SECRET)
            assert len(schedule_many("q", [Call("quiet", [SECRET])] * 2)) == 2
            env(DISPATCH_EXECUTE_SYNCHRONOUSLY=None)
            jobs.calls.clear()
            assert run("quiet").outcome is Outcome.DONE
            assert run("boom", SECRET).outcome is Outcome.FAILED
            periodic = Delivery(queue="q", message_id="p", task_name="quiet")
            assert deliver(b"", periodic).outcome is Outcome.DONE
        assert sentry_sdk.get_current_span() is request  # nothing is left open
    jobs.calls.clear()


def test_a_transport_that_fails_changes_no_outcome(sentry: Memory) -> None:
    sentry.fails = True
    assert run("quiet").outcome is Outcome.DONE
    assert run("boom", SECRET).outcome is Outcome.FAILED


def test_the_rest_of_on_error_runs_when_reporting_fails(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reached = []

    class Own(task_module.SentrySafeTask):
        def run(self) -> None:
            raise ValueError

        def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
            super().on_error(exception, *args, **kwargs)
            reached.append(exception)

    monkeypatch.setattr(task_module, "is_sending", lambda: 1 / 0)
    task = Own()
    task.delivery = run_of(queue="q")
    task.process()
    assert len(reached) == 1
    assert "could not report the failure to Sentry error=division by zero" in caplog.text


# --- what is an event ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "exception", "count"),
    [
        (Outcome.DUPLICATE, AlreadyDone("before"), 0),
        (Outcome.UNAVAILABLE, LeaseUnavailable("the cache is away"), 1),
        (Outcome.FAILED, ValueError("not sent again"), 1),
        (Outcome.DONE, None, 0),
    ],
)
def test_what_ends_without_a_task(
    outcome: Outcome, exception: Exception | None, count: int, sentry: Memory
) -> None:
    delivery = run_of(Message(function="quiet"), queue="q", message_id="1")
    delivery.outcome, delivery.exception = outcome, exception
    with errors.delivering(delivery):
        pass
    assert len(sentry.of("event")) == count


def test_refusals_of_a_kind_are_one_event_a_minute(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        run("unknown")
        deliver(b"{", Delivery(queue="q"))
    assert sorted(event["tags"]["outcome"] for event in sentry.of("event")) == [
        "malformed",
        "unknown-function",
    ]
    monkeypatch.setattr(throttle, "INTERVAL_SECONDS", 0)
    run("unknown")
    assert sentry.of("event")[-1]["tags"]["repeated"] == "2"


def test_a_retry_is_a_message_that_is_published(sentry: Memory) -> None:
    task_id = schedule_function("q", "patient", SECRET)
    published = [
        [span["data"]["messaging.message.id"] for span in trace["spans"] if span["op"] == PUBLISH]
        for trace in sentry.of("transaction")
    ]
    assert published == [[task_id], [task_id], []]


def test_a_retry_that_is_the_same_message_is_not_published(sentry: Memory) -> None:
    class Poller(DelayedCopies):
        can_hide = True

    body = Message(function="patient", args=[SECRET]).encode(queue="q.fifo")
    result = deliver(body, Delivery(queue="q.fifo", receive_count=1), Poller())
    assert result.outcome is Outcome.RETRY
    (trace,) = sentry.of("transaction")
    assert PUBLISH not in [span["op"] for span in trace["spans"]]


@pytest.mark.slow
@pytest.mark.skipif("enable_logs" not in DEFAULT_OPTIONS, reason="this SDK has no logs")
def test_the_line_about_the_outcome_is_in_the_trace_of_its_task() -> None:
    code = """
        from sentry_sdk.transport import HttpTransport
        sent = []
        HttpTransport.capture_envelope = lambda self, envelope: sent.extend(
            (item.type, json.loads(item.get_bytes())) for item in envelope.items
        )
        django.setup()
        import logging
        logging.getLogger("beanstalk_dispatch").setLevel("INFO")
        from beanstalk_dispatch.messages.delivery import Delivery
        from beanstalk_dispatch.running import pipeline
        from beanstalk_dispatch.messages.message import Message
        from tests.runs import deliver
        body = Message(function="quiet").encode(queue="q", keys=["a-key-of-the-tests"])
        deliver(body, Delivery(queue="q"))
        sentry_sdk.flush()
        traces = [body["contexts"]["trace"]["trace_id"]
                  for kind, body in sent if kind == "transaction"]
        lines = [line for kind, body in sent if kind == "log" for line in body["items"]]
        result = [traces, [line["trace_id"] for line in lines if "outcome=" in line["body"]]]
    """
    traces, lines = in_a_process(
        code, SENTRY_DSN=DSN, SENTRY_ENABLE_LOGS="True", SENTRY_TRACES_SAMPLE_RATE="1"
    )["result"]
    assert traces == lines
    assert len(lines) == 1


def test_a_variable_that_an_old_sdk_does_not_know_changes_nothing_else(
    env: Environment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sentry_sdk.consts.DEFAULT_OPTIONS", {"dsn": None})
    env(SENTRY_DSN=DSN, SENTRY_ENABLE_LOGS="True")
    given = setup._options_of(get_values())
    assert given["dsn"] == DSN
    assert "enable_logs" not in given
    assert "variable has no effect variable=SENTRY_ENABLE_LOGS" in caplog.text


def test_retries_are_reported_if_asked_for(sentry: Memory, env: Environment) -> None:
    schedule_function("q", "patient", SECRET)
    assert [event["tags"]["attempt"] for event in sentry.of("event")] == ["3"]
    env(SENTRY_REPORT_RETRIES="True")
    schedule_function("q", "patient", SECRET)
    events = sentry.of("event")[1:]
    assert [event["tags"]["attempt"] for event in events] == ["1", "2", "3"]
    assert [event["tags"]["outcome"] for event in events] == ["retry", "retry", "failed"]


def test_a_class_says_for_itself_whether_retries_are_reported(
    sentry: Memory, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_module.SentrySafeTask, "sentry_report_retries", False)
    env(SENTRY_REPORT_RETRIES="True")
    schedule_function("q", "patient", SECRET)
    assert len(sentry.of("event")) == 1


def test_without_a_client_nothing_is_observed(env: Environment) -> None:
    env(DISPATCH_TABLE=TABLE, DISPATCH_SAFE_TASK=SAFE_TASK, DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    setup.init_on_first_use.cache_clear()
    assert not client.is_sending()
    schedule_function("q", "boom", SECRET)
    assert not client.is_sending()


OBSERVER = "beanstalk_dispatch.contrib.sentry.SentryObserver"
BOTH = {"DISPATCH_OBSERVERS": OBSERVER, "DISPATCH_SAFE_TASK": SAFE_TASK}


@pytest.mark.parametrize("ways", [BOTH, BOTH | {"DISPATCH_SAFE_TASK": None}])
@pytest.mark.parametrize("function", ["boom", "mine", "block"])
def test_a_task_is_watched_once_by_the_observer_and_the_class(
    sentry: Memory, env: Environment, ways: dict[str, Any], function: str
) -> None:
    """Whatever the class of the task: a plain function, one of the project, or one of Sentry."""
    table = f"boom=tests.sentry_site.boom mine=tests.sentry_site.Mine block={__name__}.Failing"
    env(**ways, DISPATCH_TABLE=table, DISPATCH_PERIODIC_TASKS="boom mine block",
        DISPATCH_TASK_TIMEOUT="1s")  # fmt: skip
    delivery = Delivery(queue="q", message_id="1", task_name=function, max_receives=1)
    deliver(b"", delivery)
    deliver(Message(function="missing").encode(queue="q"), Delivery(queue="q"))
    of_task, refused = sentry.of("event")
    assert of_task["tags"]["function"] == function
    assert of_task["tags"]["final"] == "yes"
    assert refused["tags"]["outcome"] == "unknown-function"
    (found,) = sentry.of("transaction")
    assert [span["op"] for span in found["spans"]] == ["queue.process"]
    assert found["contexts"]["trace"]["trace_id"] == of_task["contexts"]["trace"]["trace_id"]
    assert [each["status"] for each in sentry.of("check_in")] == ["in_progress", "error"]


def test_the_observer_sets_the_sdk_up(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    monkeypatch.setattr(setup, "init_on_first_use", lambda: begun.append("init"))
    assert len({task_module.SentryObserver(), task_module.SentryObserver()}) == 1
    assert begun == ["init", "init"]


class Failing(task_module.SentrySafeTask):
    def run(self) -> None:
        raise ValueError("no good")


def test_receives_of_a_posted_message_count_as_retries(sentry: Memory) -> None:
    run("quiet", attempt=2, receive_count=3)
    (found,) = sentry.of("transaction")
    (process,) = found["spans"]
    assert process["data"]["messaging.message.retry.count"] == 3
    assert "messaging.message.receive.latency" not in process["data"]


# --- traces ----------------------------------------------------------------------------------


def test_a_failed_send_is_a_failed_span(sentry: Memory, env: Environment) -> None:
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=None, DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:9",
        DISPATCH_SQS_KEY="k", DISPATCH_SQS_SECRET="s", DISPATCH_SQS_REGION="eu-west-1",
        DISPATCH_QUEUES="q=arn:aws:sqs:eu-west-1:123456789012:q")  # fmt: skip
    with sentry_sdk.start_transaction(op="http.server", name="a request"):
        try:
            schedule_function("q", "quiet", SECRET)
        except Exception as exc:
            sentry_sdk.capture_exception(exc)
    (publish,) = sentry.of("transaction")[0]["spans"]
    assert "internal_error" in {publish.get("status"), publish.get("tags", {}).get("status")}
    (event,) = sentry.of("event")
    assert len(event["exception"]["values"]) > 1  # with what urllib3 held
    assert SECRET not in json.dumps(event)


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_a_commit_is_in_the_trace(sentry: Memory) -> None:
    request = sentry_sdk.start_transaction(op="http.server", name="a request")
    with request, transaction.atomic():
        schedule("q", Call("quiet"), on_commit=True)
        assert sentry.sent == []
    assert {each["contexts"]["trace"]["trace_id"] for each in sentry.of("transaction")} == {
        request.trace_id
    }


def test_outside_of_a_transaction_there_is_no_span(sentry: Memory) -> None:
    schedule_function("q", "quiet")
    (task,) = sentry.of("transaction")
    assert [span["op"] for span in task["spans"]] == ["queue.process"]


def test_a_body_that_trace_headers_make_too_large_is_sent_without(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[str] = []

    def capture(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
        bodies.extend(each.body for each in prepared)
        return [each.message.id for each in prepared]

    monkeypatch.setattr("beanstalk_dispatch.client.capture", capture)
    for size in (1, MAX_MESSAGE_BYTES - 200):
        schedule_function("q", "quiet", "x" * size)
    assert ["headers" in json.loads(body) for body in bodies] == [True, False]


@pytest.mark.parametrize(
    ("context", "rate"),
    [
        ({"wsgi_environ": {"HTTP_X_AWS_SQSD_MSGID": "1"}}, 0.0),
        ({"asgi_scope": {"headers": [(b"x-aws-sqsd-msgid", b"1")]}}, 0.0),
        ({"asgi_scope": {"headers": [(b"host", b"localhost")]}}, 0.25),
        ({"parent_sampled": True}, 1.0),
        ({"parent_sampled": False}, 0.0),
        ({"parent_sampled": None}, 0.25),
    ],
)
def test_the_sampler(context: dict[str, Any], rate: float) -> None:
    assert client.traces_sampler(0.25)(context) == rate


def test_a_message_opens_no_trace_where_the_rate_is_zero() -> None:
    """Anyone who can send one can write a header that says so."""
    assert client.traces_sampler(0)({"parent_sampled": True}) == 0.0


def test_the_sampler_asks_another() -> None:
    sampler = client.traces_sampler(lambda context: 0.75)
    assert sampler({"parent_sampled": True}) == 0.75
    assert sampler({"wsgi_environ": {"HTTP_X_AWS_SQSD_MSGID": "1"}}) == 0.0


# --- check-ins -------------------------------------------------------------------------------


def periodic(name: str, receive_count: int = 1) -> None:
    delivery = Delivery(queue="q", message_id="p", task_name=name, receive_count=receive_count)
    deliver(b"", delivery, KEEPER)


class Keeper(DelayedCopies):
    """A consumer that keeps what it should send again."""

    def __init__(self) -> None:
        self.kept: list[Message] = []

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        self.kept.append(message)


KEEPER = Keeper()


def test_a_run_that_is_repeated_is_no_error_and_the_repetition_checks_in(sentry: Memory) -> None:
    KEEPER.kept.clear()
    periodic("patient")
    for _ in range(2):
        deliver(KEEPER.kept.pop().encode(queue="q"), Delivery(queue="q"), KEEPER)
    statuses = [(each["monitor_slug"], each["status"]) for each in sentry.of("check_in")]
    progress = ("patient", "in_progress")
    assert statuses == [progress, ("patient", "ok"), progress, ("patient", "ok"),
                        progress, ("patient", "error")]  # fmt: skip


def test_failed_receives_and_deletes_are_an_issue_each(sentry: Memory) -> None:
    """Sentry groups by the format of a line, which they have in common."""
    for operation in ("receive", "delete"):
        event = {
            "logger": "beanstalk_dispatch.worker", "event_id": "e" * 32,
            "logentry": {"message": "%s failed queue=%s", "params": [operation, "mail"]},
        }  # fmt: skip
        sentry_sdk.capture_event(cast("Any", event))
    assert [each["fingerprint"] for each in sentry.of("event")] == [
        ["{{ default }}", "receive"], ["{{ default }}", "delete"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("max_receives", "expected"),
    [
        (3, ["in_progress", "ok", "in_progress", "ok", "in_progress", "error"]),
        (None, ["in_progress", "error"]),
    ],
)
def test_redeliveries_of_a_run_are_not_a_failed_check_in_each(
    sentry: Memory, env: Environment, max_receives: int | None, expected: list[str]
) -> None:
    env(DISPATCH_MAX_RECEIVES=max_receives, DISPATCH_EXECUTE_SYNCHRONOUSLY=None)
    for receive_count in (1, 2, 3):
        periodic("boom", receive_count)
    assert [each["status"] for each in sentry.of("check_in")] == expected


def test_a_redelivery_that_succeeds_says_so_where_the_last_one_is_not_known(
    sentry: Memory, env: Environment
) -> None:
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=None)
    periodic("quiet", receive_count=2)
    assert [each["status"] for each in sentry.of("check_in")] == ["ok"]


@pytest.mark.parametrize(
    ("content", "logged"),
    [
        (None, "check-ins are sent without a schedule error=no cron.yaml in"),
        (b"cron: 5", "check-ins are sent without a schedule error="),
        (b"\xff\xfe\xfa", "check-ins are sent without a schedule error="),
        (b"version: 1\ncron: []", ""),
    ],
)
def test_without_a_schedule_there_are_still_check_ins(
    content: bytes | None, logged: str, sentry: Memory, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "beanstalk_dispatch")
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "cron.yaml").write_bytes(content)
    periodic("quiet")
    assert [each["status"] for each in sentry.of("check_in")] == ["in_progress", "ok"]
    assert "monitor_config" not in sentry.of("check_in")[0]
    assert logged in caplog.text


def test_a_wrong_line_of_cron_yaml_costs_one_schedule(
    sentry: Memory, env: Environment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cron.yaml"
    path.write_text(
        "version: 1\ncron:\n"
        "  - {name: boom, url: /x, schedule: 'every day'}\n"
        "  - {name: quiet, url: /x, schedule: '0 4 * * *'}\n"
    )
    env(SENTRY_CRON_YAML=path)
    for name in ("boom", "quiet"):
        periodic(name)
    schedules = {
        each["monitor_slug"]: each.get("monitor_config", {}).get("schedule", {}).get("value")
        for each in sentry.of("check_in")
    }
    assert schedules == {"boom": None, "quiet": "0 4 * * *"}
    assert f"error={path}: boom: schedule 'every day' does not have the five fields" in caplog.text


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"timeout_timedelta": timedelta(minutes=3, seconds=1)}, {"max_runtime": 4}),
        ({"timeout_timedelta": 60}, {"max_runtime": 1}),
        ({"sentry_max_runtime": 7, "sentry_checkin_margin": 2},
         {"max_runtime": 7, "checkin_margin": 2}),
    ],
)  # fmt: skip
def test_margin_and_runtime(
    attributes: dict[str, Any], expected: dict[str, int], sentry: Memory, env: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    env(SENTRY_CRON_YAML=ROOT / "tests" / "sentry_cron.yaml")
    for name, value in attributes.items():
        monkeypatch.setattr(task_module.SentrySafeTask, name, value)
    periodic("quiet")
    first, _ = sentry.of("check_in")
    schedule = {"type": "crontab", "value": "*/5 * * * *"}
    assert first["monitor_config"] == {"schedule": schedule, "timezone": "UTC"} | expected


# --- privacy ---------------------------------------------------------------------------------

ARGUMENTS: list[Any] = [
    SECRET,
    [SECRET],
    {"deep": [{"er": SECRET}]},
    {SECRET: 1},
    SECRET + "x" * 5000,
    f'it\'s \n "{SECRET}" é',
    [[[[[[[[SECRET]]]]]]]],
    [f"{SECRET}{number}" for number in range(1000)],
]


@pytest.mark.parametrize("argument", ARGUMENTS, ids=range(len(ARGUMENTS)))
@pytest.mark.parametrize("function", ["boom", "mine", "patient", "broken"])
def test_an_argument_stays_whatever_it_is(function: str, argument: Any, sentry: Memory) -> None:
    assert run(function, argument, attempt=9).outcome is Outcome.FAILED
    assert len(sentry.of("event")) == 1
    assert SECRET not in json.dumps(sentry.sent)


def test_an_argument_stays_in_a_log_record_with_a_stack(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK adds the frames of ``attach_stacktrace`` after all event processors."""
    env(
        DISPATCH_TABLE="note=tests.unit.contrib.sentry.test_sentry.note",
        DISPATCH_SAFE_TASK=SAFE_TASK,
    )
    generator = installed(monkeypatch, attach_stacktrace=True)
    sentry = next(generator)
    run("note", SECRET)
    (event,) = sentry.of("event")
    shown = {frame["function"]: frame.get("vars", {}) for frame in privacy._iterate_frames(event)}
    assert shown["note"]["given"] == privacy.FILTERED
    assert SECRET not in json.dumps(event)
    assert list(generator) == []


def note(given: str) -> None:
    sentry_sdk.capture_message("from the task")


@pytest.mark.parametrize("function", ["boom", "note"])
def test_an_argument_stays_if_the_task_sets_up_the_sdk(
    function: str, sentry: Memory, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Memory()

    def set_up(given: str) -> None:
        sentry_sdk.init(
            DSN, transport=late, default_integrations=False, auto_enabling_integrations=False,
            attach_stacktrace=True, traces_sample_rate=1.0,
        )  # fmt: skip
        globals()[function](given)

    monkeypatch.setattr(jobs, "set_up", set_up, raising=False)
    env(DISPATCH_TABLE="set_up=tests.jobs.set_up")
    run("set_up", SECRET)
    (event,) = late.of("event")
    assert event["transaction"] == "set_up"
    assert SECRET not in json.dumps(late.sent)


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("it has no repr")


def test_an_argument_stays_without_a_scope(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spans, "facts_of", lambda delivery: 1 / 0)
    run("boom", SECRET)
    (event,) = sentry.of("event")
    assert "observer failed observer=ScopeObserver stage=attempting" in caplog.text
    assert event["transaction"] == "boom"
    assert SECRET not in json.dumps(event)


def test_the_arguments_of_both_stay_if_a_task_runs_inside_of_another(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = " ".join(f"{name}={__name__}.{name}" for name in ("note", "outer"))
    env(DISPATCH_TABLE=names, DISPATCH_SAFE_TASK=SAFE_TASK, DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    generator = installed(monkeypatch, attach_stacktrace=True)
    sentry = next(generator)
    run("outer", SECRET)
    (event,) = sentry.of("event")
    functions = {frame["function"] for frame in privacy._iterate_frames(event)}
    assert {"outer", "note"} <= functions
    assert event["transaction"] == "note"
    assert SECRET not in json.dumps(event)
    assert list(generator) == []


def outer(given: str) -> None:
    schedule_function("q", "note", "something else")


def test_other_locals_are_shown(sentry: Memory) -> None:
    run("boom", SECRET, "a", 7, None, True)
    frames = sentry.of("event")[0]["exception"]["values"][-1]["stacktrace"]["frames"]
    shown = next(frame["vars"] for frame in frames if frame["function"] == "boom")
    assert shown["harmless"] == "'a local worth seeing'"
    assert shown["given"] == privacy.FILTERED


def test_frames_without_locals_are_left_alone(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_TABLE=TABLE, DISPATCH_SAFE_TASK=SAFE_TASK)
    generator = installed(monkeypatch, include_local_variables=False)
    sentry = next(generator)
    run("boom", SECRET)
    (event,) = sentry.of("event")
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert frames != []
    assert not any("vars" in frame for frame in frames)
    assert list(generator) == []


def test_a_call_and_a_delivery_do_not_show_arguments() -> None:
    shown = repr((Call("quiet", [SECRET], {"a": SECRET}), Delivery(body=SECRET)))
    assert SECRET not in shown


def knows_data_collection() -> bool:
    return "data_collection" in sentry_sdk.consts.DEFAULT_OPTIONS


def test_what_the_options_allow_is_sent(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    env(DISPATCH_TABLE=TABLE, DISPATCH_SAFE_TASK=SAFE_TASK)
    options: tuple[dict[str, Any], ...] = (
        {"send_default_pii": True},
        {"data_collection": {"queues": True}},
    )
    generator = installed(monkeypatch, **options[knows_data_collection()])
    sentry = next(generator)
    run("boom", SECRET)
    (event,) = sentry.of("event")
    assert event["contexts"]["beanstalk_dispatch"]["args"] == [SECRET]
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert any(SECRET in json.dumps(frame.get("vars", {})) for frame in frames)
    assert list(generator) == []


@pytest.mark.parametrize("may_send", [True, False])
def test_locals_of_the_aws_client_are_dropped_also_where_arguments_are_sent(
    may_send: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privacy, "may_send_arguments", lambda: may_send)
    modules = ["shop.views", "beanstalk_dispatch.client", "botocore.endpoint", "urllib3.connection"]
    frames: list[dict[str, Any]] = [{"module": each, "vars": {"a": "1"}} for each in modules]
    event = {"exception": {"values": [{"stacktrace": {"frames": frames}}]}}
    privacy.clean(event, {})
    assert ["vars" in frame for frame in frames] == [True, may_send, False, False]


@pytest.mark.parametrize(
    ("request_", "is_kept"),
    [
        ({"headers": {"X-Aws-Sqsd-Msgid": "1"}, "url": "http://localhost/x"}, False),
        (
            {"headers": {"Host": "www"}, "url": "http://localhost/beanstalk_dispatch/"},
            False,
        ),
        ({"headers": {"Host": "www"}, "url": "http://localhost/orders/"}, True),
        ({}, True),
    ],
)
def test_only_a_body_that_is_a_message_is_dropped(
    request_: dict[str, Any], is_kept: bool, sentry: Memory
) -> None:
    event = {"request": request_ | {"data": SECRET}}
    assert ("data" in privacy.drop_message(event, {})["request"]) is is_kept
    assert privacy.drop_message({}, {}) == {}


def test_a_body_is_dropped_if_nobody_can_say_where_it_was_sent(sentry: Memory) -> None:
    event = {"request": {"url": "http://localhost/orders/", "data": "x"}}
    with override_settings(ROOT_URLCONF="tests.no_such_urls"):
        assert privacy.drop_message(event, {}) == {"request": {"url": "http://localhost/orders/"}}


# --- an SDK of the project's own -------------------------------------------------------------


def test_a_before_send_of_the_projects_own_gets_every_event_without_the_body(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_TABLE=TABLE, DISPATCH_SAFE_TASK=SAFE_TASK)
    seen: list[Any] = []

    def before_send(event: Any, hint: Any) -> Any:
        seen.append(privacy.drop_message(event, hint))
        return event if len(seen) == 1 else None

    generator = installed(monkeypatch, before_send=before_send)
    sentry = next(generator)
    for _ in range(2):
        sentry_sdk.capture_event({"message": "x", "request": dict(POSTED)})
    assert [each["request"] for each in seen] == [{"headers": POSTED["headers"]}] * 2
    assert len(sentry.of("event")) == 1
    assert list(generator) == []


def test_requests_are_watched_until_there_is_a_client(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "is_sending", lambda: False)
    request_started.connect(setup._on_request_started)
    setup._on_request_started()
    assert request_started.disconnect(setup._on_request_started)


POSTED = {"headers": {"X-Aws-Sqsd-Msgid": "1"}, "data": SECRET}


def test_a_client_that_is_set_up_late_is_adopted_with_the_next_request(sentry: Memory) -> None:
    late = Memory()
    sentry_sdk.init(
        "http://public@127.0.0.1:9/2", transport=late, default_integrations=False,
        auto_enabling_integrations=False, traces_sample_rate=1.0,
    )  # fmt: skip
    with sentry_sdk.start_transaction(op="http.server", name="the daemon's") as request:
        setup._on_request_started()
        sentry_sdk.get_current_scope().add_event_processor(add_request)
        sentry_sdk.capture_message("during the request")
        with sentry_sdk.start_transaction(op=privacy.TASK_OP, name="the task's"):
            pass
    assert request.sampled
    assert SECRET not in json.dumps(late.sent)
    assert [each["transaction"] for each in late.of("transaction")] == ["the task's"]
    context = {"wsgi_environ": {"HTTP_X_AWS_SQSD_MSGID": "1"}}
    assert sentry_sdk.get_client().options["traces_sampler"](context) == 0.0


def add_request(event: Any, hint: Any) -> Any:
    event["request"] = dict(POSTED)
    return event


@pytest.mark.parametrize("is_worker", [True, False])
def test_a_worker_has_no_sessions(
    is_worker: bool, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(WORKER=is_worker)
    generator = installed(monkeypatch)
    next(generator)
    assert sentry_sdk.get_client().options["auto_session_tracking"] is not is_worker
    assert list(generator) == []


def test_a_client_that_does_not_trace_still_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = installed(monkeypatch, traces_sample_rate=None)
    next(generator)
    assert sentry_sdk.get_client().options["traces_sampler"] is None
    assert list(generator) == []


def test_an_event_of_a_task_has_the_tasks_name(sentry: Memory) -> None:
    """Under ASGI, the SDK's own processor names an event by its URL."""

    def name_by_url(event: Any, hint: Any) -> Any:
        return event | {"transaction": "/beanstalk_dispatch/", "transaction_info": {}}

    with sentry_sdk.isolation_scope() as scope:
        scope.add_event_processor(name_by_url)
        run("nested")
    names = [each["transaction"] for each in (*sentry.of("event"), *sentry.of("transaction"))]
    assert names == ["nested", "/beanstalk_dispatch/", "nested"]


# --- a stuck task ----------------------------------------------------------------------------


def block(gate: threading.Event, seen: list[int]) -> None:
    seen.append(threading.get_ident())
    given = SECRET
    harmless = "a local worth seeing"
    assert gate.wait(20), (given, harmless)


@pytest.fixture
def blocked() -> Iterator[int]:
    """A thread that waits."""
    gate, seen = threading.Event(), list[int]()
    thread = threading.Thread(target=block, args=(gate, seen))
    thread.start()
    until(lambda: seen)
    yield seen[0]
    gate.set()
    thread.join(20)


def delivered() -> Run:
    return run_of(Message(function="block", args=[SECRET]), queue="q", message_id="1")


def in_another_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=lambda: Context().run(function))
    thread.start()
    thread.join(20)


def test_a_stuck_task_is_an_event_of_its_own_with_the_stack_of_its_thread(
    sentry: Memory, blocked: int
) -> None:
    delivery = delivered()
    task = task_module.SentrySafeTask()
    watched = [each.attempting(task, delivery) for each in task.observers]
    with ExitStack() as stack:
        for each in watched:
            stack.enter_context(each)
        sentry_sdk.set_tag("customer", "acme")
        trace_id = sentry_sdk.get_current_span().trace_id  # type: ignore[union-attr]
        in_another_thread(
            lambda: signals.task_stuck.send(sender=None, delivery=delivery, thread_id=blocked)
        )
    (event,) = sentry.of("event")
    assert event["level"] == "fatal"
    assert event["fingerprint"] == ["beanstalk_dispatch", "stuck", "block"]
    assert event["transaction"] == "block"
    assert event["contexts"]["trace"]["trace_id"] == trace_id
    assert event["tags"].items() >= {"function": "block", "queue": "q", "customer": "acme"}.items()
    assert "outcome" not in event["tags"]
    (exception,) = event["exception"]["values"]
    assert (exception["type"], exception["value"]) == ("TaskStuck", "block cannot be interrupted")
    frames = {frame["function"]: frame for frame in exception["stacktrace"]["frames"]}
    assert frames["block"]["vars"]["harmless"] == "'a local worth seeing'"
    assert SECRET not in json.dumps(event)


def test_a_stuck_task_that_sentry_does_not_watch_is_reported_too(
    sentry: Memory, blocked: int
) -> None:
    for delivery, thread_id in ((delivered(), blocked), (None, -1)):
        signals.task_stuck.send(sender=None, delivery=delivery, thread_id=thread_id)
    first, second = sentry.of("event")
    assert first["tags"]["function"] == "block"
    assert SECRET not in json.dumps(first)
    assert "stacktrace" not in second["exception"]["values"][0]


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("beanstalk_dispatch.task.time_limit", "stuck task label=%s"),
        ("beanstalk_dispatch.isolation", "child ended id=%s function=%s"),
    ],
)
def test_the_log_line_of_a_failure_is_not_a_second_event(
    sentry: Memory, log: str, line: str
) -> None:
    for message in (line, "another line"):
        sentry_sdk.capture_event({"logger": log, "logentry": {"message": message}})
    (event,) = sentry.of("event")
    assert event["logentry"]["message"] == "another line"


def test_the_event_of_a_child_that_was_killed_has_its_stacks(sentry: Memory) -> None:
    cut = TaskCut("its process was ended by SIGSEGV")
    for cut.stacks in ("", "Current thread"):
        errors.report_failure(task_module.SentrySafeTask(), cut, run_of(queue="q"))
        errors._handled.set(None)
    first, second = sentry.of("event")
    assert "stacks" not in first.get("extra", {})
    assert second["extra"]["stacks"] == "Current thread"


def test_without_a_client_nobody_is_told_of_a_stuck_task(blocked: int) -> None:
    setup._on_task_stuck(delivery=None, thread_id=blocked)
    setup._send_what_waits()


@pytest.mark.parametrize(
    ("signal", "left", "expected"),
    [
        (signals.invocation_finished, {"seconds": 60.0}, 2),
        (signals.invocation_finished, {"seconds": 0.5}, 0.5),
        (signals.worker_stopped, {}, 2),
    ],
)
def test_the_end_of_a_process_waits_for_its_events_for_as_long_as_it_may(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch, signal: Signal, left: dict[str, float],
    expected: float,
) -> None:  # fmt: skip
    timeouts: list[float] = []
    monkeypatch.setattr(sentry, "flush", lambda timeout, callback=None: timeouts.append(timeout))
    signal.send(sender=None, **left)
    assert timeouts == [expected]


# --- nothing twice ---------------------------------------------------------------------------


def test_a_failure_is_one_event_if_on_error_is_interrupted(
    sentry: Memory, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event is captured outside of a task's time limit, so it is neither lost nor sent twice."""
    limits: list[bool] = []
    capture = errors._capture

    def capture_and_note(*args: Any, **kwargs: Any) -> None:
        limits.append(any(each.on_stuck for each in time_limit._watchdog._limits))
        capture(*args, **kwargs)

    monkeypatch.setattr(errors, "_capture", capture_and_note)
    assert run("boom", SECRET).outcome is Outcome.FAILED
    assert run("mine", SECRET).outcome is Outcome.FAILED
    assert limits == [False, False]
    assert len(sentry.of("event")) == 2


def test_on_error_reports_at_once_what_no_consumer_runs(sentry: Memory) -> None:
    task = task_module.SentrySafeTask()
    task.delivery = delivered()
    for _ in range(2):
        task.on_error(FAILURE)
    assert len(sentry.of("event")) == 1


FAILURE = ValueError("no good")


@pytest.mark.parametrize(
    ("function", "attempt", "variables", "expected"),
    [
        ("boom", 1, {}, ("no", "no")),
        ("boom", 1, {"DISPATCH_ON_FAILURE": "acknowledge"}, ("yes", "no")),
        ("patient", 3, {}, ("yes", "no")),
        ("patient", 3, {"DISPATCH_DEAD_LETTER_QUEUE": "dead"}, ("yes", "yes")),
        ("unlisted", 1, {"DISPATCH_DEAD_LETTER_QUEUE": "dead"}, ("yes", "yes")),
        ("boom", 1, {"DISPATCH_MAX_RECEIVES": 4}, ("no", "no")),
        ("boom", 1, {"DISPATCH_MAX_RECEIVES": 3}, ("yes", "no")),
    ],
)
def test_tags_say_whether_a_failure_is_final_and_where_the_message_is(
    function: str, attempt: int, variables: dict[str, str], expected: tuple[str, str],
    sentry: Memory, env: Environment, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=None, **variables)
    monkeypatch.setattr(dead_letters, "send", lambda *args, **kwargs: True)
    run(function, SECRET, attempt=attempt, receive_count=3)
    (event,) = sentry.of("event")
    assert (event["tags"]["final"], event["tags"]["dead_lettered"]) == expected


@pytest.mark.parametrize("receivers", [0, 1])
def test_a_run_says_that_it_is_stuck_to_those_who_listen(receivers: int) -> None:
    heard: list[tuple[Any, int]] = []

    def hear(*, delivery: Any, thread_id: int, **_: Any) -> None:
        heard.append((delivery, thread_id))

    if receivers:
        signals.task_stuck.connect(hear)
    run = run_of()
    run.task = task_module.SentrySafeTask()
    attempt._send_task_stuck(run, 7)
    signals.task_stuck.disconnect(hear)
    assert heard == [(None, 7)] * receivers


# --- by choice -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("receive_count", "on_failure", "count"),
    [(1, "redeliver", 1), (2, "redeliver", 0), (10, "redeliver", 1), (2, "acknowledge", 1)],
)
def test_only_the_receives_that_are_asked_for_are_events(
    receive_count: int, on_failure: str, count: int, sentry: Memory, env: Environment
) -> None:
    env(SENTRY_REPORT_RECEIVES="1 10", DISPATCH_ON_FAILURE=on_failure,
        DISPATCH_EXECUTE_SYNCHRONOUSLY=None)  # fmt: skip
    run("boom", SECRET, receive_count=receive_count)
    assert len(sentry.of("event")) == count


def test_a_class_says_what_is_not_reported_monitored_or_traced(
    sentry: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_id = "0123456789abcdef" * 2
    headers = {"sentry-trace": f"{trace_id}-{trace_id[:16]}-1"}
    run("boom", headers=headers)
    for name, value in (("ignore", (ValueError,)), ("monitor", False), ("propagate_traces", False)):
        monkeypatch.setattr(task_module.SentrySafeTask, f"sentry_{name}", value)
    run("boom", headers=headers)
    periodic("quiet")
    traces = [each["contexts"]["trace"]["trace_id"] for each in sentry.of("transaction")]
    assert [trace == trace_id for trace in traces] == [True, False, False]
    assert len(sentry.of("event")) == 1
    assert sentry.of("check_in") == []


@pytest.mark.parametrize("ignored", [ValueError, [ValueError], (KeyError, ValueError)])
def test_what_is_not_reported_may_be_one_class_or_several(
    ignored: Any, sentry: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(task_module.SentrySafeTask, "sentry_ignore", ignored)
    run("boom")
    assert sentry.of("event") == []
    assert "observer failed" not in caplog.text


def test_a_task_leaves_its_trace_to_nothing_that_comes_after_it(
    sentry: Memory, env: Environment
) -> None:
    """Also if only its own class watches it, so that its delivery has no scope."""
    env(DISPATCH_SAFE_TASK=None, DISPATCH_TABLE=f"watched={__name__}.Watched",
        DISPATCH_EXECUTE_SYNCHRONOUSLY=None)  # fmt: skip
    run("watched")
    sentry_sdk.capture_message("after the task")
    (transaction,) = sentry.of("transaction")
    (event,) = sentry.of("event")
    traces = [each["contexts"]["trace"]["trace_id"] for each in (transaction, event)]
    assert traces[0] != traces[1]


class Watched(task_module.SentrySafeTask):
    def run(self) -> None:
        """Nothing goes wrong."""


def test_a_sampler_of_the_projects_own_sees_the_task(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_TABLE=TABLE, DISPATCH_SAFE_TASK=SAFE_TASK)
    seen: list[Any] = []

    def sample(context: Any) -> float:
        seen.append(context["beanstalk_dispatch"])
        return 0.0

    generator = installed(monkeypatch, traces_sampler=sample)
    next(generator)
    run("quiet", id="the-id")
    assert seen == [
        {"function": "quiet", "queue": "q", "task_id": "the-id", "attempt": 1, "receive_count": 1}
    ]
    assert list(generator) == []


def test_slugs_are_never_empty_and_never_equal() -> None:
    names = ["clean_up", "a.b", "ab", "任务", "工作", "x" * 60, "x" * 61]
    slugs = [crons.slug_of(name, names) for name in names]
    assert slugs[0] == "clean_up"
    assert len(set(slugs)) == len(names)
    assert all(0 < len(slug) <= 50 for slug in slugs)


def test_errors_neither_wait_for_traces_nor_are_dropped_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []
    may_send_traces = threading.Event()

    def send(self: HttpTransport, envelope: Envelope) -> None:
        kind = str(envelope.items[0].type)
        if kind == "transaction":
            assert may_send_traces.wait(30)
        sent.append(kind)

    monkeypatch.setattr(HttpTransport, "_send_envelope", send)
    own = sentry_sdk.Client(
        DSN, transport=ErrorsFirstTransport, transport_queue_size=8, default_integrations=False,
        auto_enabling_integrations=False,
    )  # fmt: skip
    transport = own.transport
    assert isinstance(transport, ErrorsFirstTransport)
    for kind in ["transaction"] * 9 + ["event"] * 5:
        transport.capture_envelope(Envelope(items=[Item(payload=b"{}", type=kind)]))
    until(lambda: len(sent) == 5)
    assert set(sent) == {"event"}
    may_send_traces.set()
    transport.flush(30)
    assert 4 <= sent.count("transaction") <= 5  # one of them has left the queue at once
    transport.kill()


@pytest.mark.parametrize("value", ["1 10", " 1,10 ", [1, 10], ("1", "10")])
def test_receives_are_numbers(value: object) -> None:
    assert cast_receives(value) == (1, 10)
    assert cast_receives(3) == (3,)


@pytest.mark.parametrize(("value", "shown"), [("first", "first"), (2.5, "2.5"), (True, "True")])
def test_what_is_not_a_number_of_receives_is_refused(value: object, shown: str) -> None:
    with pytest.raises(ValueError, match=f"'{shown}' is not an integer from 1 to 99999"):
        cast_receives(value)


@pytest.mark.parametrize(
    ("queue", "body", "retries"),
    [("q", "text", 3), ("q", b"bytes", 3), ("q.fifo", "text", 1), ("q.fifo", b"bytes", 3)],
)
def test_receives_that_are_attempts_already_are_not_counted_twice(
    queue: str, body: bytes | str, retries: int
) -> None:
    """In a poller of a FIFO queue each receive is an attempt."""
    delivery = run_of(queue=queue, body=body, receive_count=3)
    assert spans._count_retries(delivery, Message(function="f", attempt=2)) == retries


def test_outside_of_a_delivery_on_error_reports_too(sentry: Memory) -> None:
    """Such as a SafeTask that the project runs by itself, in a command."""
    sentry_sdk.set_tag("customer", "acme")
    sentry_sdk.add_breadcrumb(message="of something else")
    task_module.SentrySafeTask(boom, verbose=False).process((SECRET,), Unprintable())
    (event,) = sentry.of("event")
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["transaction"] == event["tags"]["function"] == "SentrySafeTask"
    assert event["tags"]["customer"] == "acme"
    assert "breadcrumbs" not in event or event["breadcrumbs"]["values"] == []
    assert SECRET not in json.dumps(event)
