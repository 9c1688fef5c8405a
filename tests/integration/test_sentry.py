"""Sentry, against a real ingest server: kent, fed by real web and worker processes."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk

from beanstalk_dispatch.consumers.endpoint.sqsd import SqsdOptions as DaemonOptions
from beanstalk_dispatch.consumers.poller.in_flight import Ack
from beanstalk_dispatch.consumers.poller.post_runner import PostRunner
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.kent import Kent
from tests.sentry_sdk_support import skip_unless_supported
from tests.sentry_site import SECRET, TABLE
from tests.services import NO_COVERAGE, PATH, ROOT, Gunicorn, until

skip_unless_supported()

SAFE_TASK = "beanstalk_dispatch.contrib.sentry.SentrySafeTask"
LIFECYCLES = ["static", "stream"] if hasattr(sentry_sdk, "traces") else ["static"]


@pytest.fixture(scope="module")
def kent() -> Iterator[Kent]:
    server = Kent()
    yield server
    server.stop()


class Site:
    """A web process and a worker process, and a daemon between them."""

    def __init__(self, kent: Kent, moto: str, where: Path, lifecycle: str) -> None:
        variables = environment_of(kent.dsn, moto)
        self.is_streaming = lifecycle == "stream"
        if self.is_streaming:
            variables["SENTRY_LIFECYCLE"] = lifecycle
        else:
            variables |= NO_COVERAGE  # the same tests run the same lines while streaming
        self.kent = kent
        self.web, self.worker = gunicorn(where, "web", variables), worker_of(where, variables)

    def schedule(self, path: str) -> list[str]:
        url, host = f"http://127.0.0.1:{self.web.port}/{path}", {"Host": "localhost"}
        asked = urllib.request.Request(url, b"", host)
        with urllib.request.urlopen(asked, timeout=20) as answer:
            ids: list[str] = json.load(answer)
        return ids

    def post(self, body: str | bytes, **headers: str) -> int:
        """Deliver a body by hand."""
        return self.worker.post(body, **({"X-Aws-Sqsd-Msgid": "by-hand"} | headers))[0]

    def run(self, count: int = 1) -> list[str]:
        """Deliver so many messages of the queue ``jobs``; their bodies."""
        post = PostRunner(f"http://127.0.0.1:{self.worker.port}{PATH}", DaemonOptions())
        bodies: list[str] = []
        while len(bodies) < count:
            for received in open_queue("jobs").receive(count=1, wait=1, visibility=30):
                if post(received) == Ack():
                    assert open_queue("jobs").delete_batch([received]) == []
                bodies.append(received.body)
        return bodies


def environment_of(dsn: str, moto: str = "") -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.sentry_settings",
        "SENTRY_DSN": dsn,
        "SENTRY_ENVIRONMENT": "tests",
        "SENTRY_TRACES_SAMPLE_RATE": "1",
        "SENTRY_CRON_YAML": str(ROOT / "tests" / "sentry_cron.yaml"),
        "SENTRY_CHECKIN_MARGIN": "3",
        "BEANSTALK_DISPATCH_SAFE_TASK": SAFE_TASK,
        "BEANSTALK_DISPATCH_TABLE": TABLE,
        "BEANSTALK_DISPATCH_PERIODIC_TASKS": "quiet boom",
        "BEANSTALK_DISPATCH_TASK_TIMEOUT": "20s",  # also of hooks, when every core is busy
        "BEANSTALK_DISPATCH_SIGNING_KEYS": "a-key-of-the-tests",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": moto,
        "BEANSTALK_DISPATCH_SQS_KEY": "key",
        "BEANSTALK_DISPATCH_SQS_SECRET": "secret",
        "BEANSTALK_DISPATCH_SQS_REGION": "eu-west-1",
    }


def gunicorn(where: Path, name: str, variables: dict[str, str]) -> Gunicorn:
    directory = where / name
    directory.mkdir()
    return Gunicorn(directory, **variables)


def worker_of(where: Path, variables: dict[str, str]) -> Gunicorn:
    return gunicorn(where, "worker", variables | {"BEANSTALK_WORKER": "True"})


@pytest.fixture(scope="module", params=LIFECYCLES)
def processes(
    request: pytest.FixtureRequest, kent: Kent, moto: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    site = Site(kent, moto, tmp_path_factory.mktemp("site"), request.param)
    until(lambda: site.web.is_up() and site.worker.is_up())
    yield site
    site.web.stop()
    site.worker.stop()


@pytest.fixture
def site(processes: Site, sqs_env: Environment) -> Site:
    sqs_env(DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    assert open_queue("jobs")  # made, with its dead-letter queue
    return processes


def signed(function: str, *args: Any, **members: Any) -> str:
    message = Message(function=function, args=args, **members)
    return message.encode(queue="", keys=["a-key-of-the-tests"])


# --- errors ----------------------------------------------------------------------------------


def test_one_failure_is_one_rich_event(site: Site, queue_name: str) -> None:
    (task_id,) = site.schedule(f"one/{queue_name}/boom")
    site.run()
    event = site.kent.event(task_id)
    tags = {"function": "boom", "queue": queue_name, "task_id": task_id, "attempt": "1",
            "receive_count": "1", "outcome": "failed", "final": "no",
            "dead_lettered": "no"}  # fmt: skip
    assert event["tags"] == tags
    assert event["contexts"]["beanstalk_dispatch"].items() >= {
        "function": "boom", "attempt": 1, "queue": queue_name}.items()  # fmt: skip
    assert event["exception"]["values"][-1]["mechanism"]["handled"] is False
    assert event["exception"]["values"][-1]["mechanism"]["type"] == "beanstalk_dispatch"
    assert event["transaction"] == "boom"
    assert event["level"] == "error"
    assert "fingerprint" not in event
    time.sleep(0.3)
    assert len(site.kent.events(task_id)) == 1
    loggers = {each.get("logger") for each in site.kent.of("event")}
    assert "beanstalk_dispatch.task" not in loggers


def test_timeouts_are_grouped_by_function(site: Site) -> None:
    status = site.post(signed("slow", 20, id=f"slow-{site.is_streaming}"))
    assert status == 500
    event = site.kent.event(f"slow-{site.is_streaming}")
    assert event["fingerprint"] == ["beanstalk_dispatch", "timeout", "slow"]
    assert event["tags"]["outcome"] == "timed-out"


def test_a_safetask_of_ones_own_is_reported_too(site: Site) -> None:
    site.post(signed("mine", SECRET, id=f"mine-{site.is_streaming}"))
    assert site.kent.event(f"mine-{site.is_streaming}")["tags"]["set-in-on-error"] == "yes"


def test_what_cannot_start_is_reported(site: Site) -> None:
    sqs_id = f"broken-{time.time()}"
    site.post(signed("broken", SECRET), **{"X-Aws-Sqsd-Msgid": sqs_id})

    def found() -> list[dict[str, Any]]:
        contexts = [each["contexts"] for each in site.kent.of("event")]
        return [each for each in contexts if _sqs_id(each) == sqs_id]

    until(found)
    assert len(found()) == 1


def _sqs_id(contexts: dict[str, Any]) -> Any:
    return contexts.get("beanstalk_dispatch", {}).get("message_id")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [("not json", "bad-signature"), (signed("unlisted", SECRET), "unknown-function")],
)
def test_what_is_refused_is_reported(site: Site, body: str, outcome: str) -> None:
    # Throttle of a kind are one event a minute, so that of another test may be this one's.
    site.post(body, **{"X-Aws-Sqsd-Msgid": f"{outcome}-{time.time()}"})

    def found() -> list[dict[str, Any]]:
        events = site.kent.of("event")
        return [each for each in events if each.get("tags", {}).get("outcome") == outcome]

    until(found)
    assert all(_sqs_id(each["contexts"]) for each in found())


def test_a_hook_that_fails_is_an_event_too(site: Site) -> None:
    task_id = f"hooked-{site.is_streaming}"
    assert site.post(signed("hooked", SECRET, id=task_id)) == 200
    event = site.kent.event(task_id)
    assert event["logentry"]["message"] == "hook failed hook=%s id=%s function=%s"
    assert event["exception"]["values"][-1]["type"] == "ValueError"


def test_only_the_last_of_several_attempts_is_an_error(site: Site, queue_name: str) -> None:
    (task_id,) = site.schedule(f"one/{queue_name}/patient")
    first, *_ = site.run(3)
    event = site.kent.event(task_id)
    assert event["tags"]["attempt"] == "3"
    assert event["contexts"]["trace"]["trace_id"] in first


def test_a_hundred_tasks_on_fifteen_threads_share_nothing(site: Site) -> None:
    prefix = f"mixed-{site.is_streaming}"

    def one(number: int) -> int:
        return site.post(signed("mixed", number, id=f"{prefix}-{number}"))

    with ThreadPoolExecutor(15) as pool:
        for end in (50, 100):  # the SDK keeps a hundred envelopes, and drops what comes then
            assert set(pool.map(one, range(end - 50, end))) == {500}
            until(lambda: len(site.kent.tagged(prefix)) >= end)  # noqa: B023
    numbers = set()
    for event in site.kent.tagged(prefix):
        number = event["tags"]["task_id"].rpartition("-")[2]
        numbers.add(number)
        assert event["user"] == {"id": number}
        assert [name for name in event["tags"] if name.startswith("own")] == [f"own-{number}"]
        crumbs = [crumb["message"] for crumb in event["breadcrumbs"]["values"]]
        assert crumbs == [f"crumb {number}"] * 3
        assert event["exception"]["values"][-1]["value"] == f"number {number}"
    assert len(numbers) == 100


# --- traces ----------------------------------------------------------------------------------


def traced(site: Site, body: str, ops: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The spans of a message's trace by op, once those asked for have come."""
    trace_id = Message.decode(body, queue="", keys=()).headers["sentry-trace"][:32]

    def by_op() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for span in site.kent.spans(trace_id):
            found.setdefault(span["op"], []).append(span)
        return found

    until(lambda: by_op().keys() >= set(ops))
    return by_op()


def test_one_trace_from_request_to_task(site: Site, queue_name: str) -> None:
    (task_id,) = site.schedule(f"one/{queue_name}/boom")
    (body,) = site.run()
    ops = ["http.server", "queue.publish", "queue.task.beanstalk_dispatch", "queue.process"]
    spans = {op: found[0] for op, found in traced(site, body, ops).items()}
    request, publish, task, process = (spans[op] for op in ops)
    found = site.kent.spans(publish["trace"])
    # Django's integration makes a span of each receiver of a signal; ours are none of a request.
    assert not [each for each in found if str(each["name"]).startswith("beanstalk_dispatch.")]
    parents = {each["id"]: each["parent"] for each in found}
    up = lambda span_id, _: parents.get(span_id, span_id)  # noqa: E731
    assert request["id"] in accumulate(parents, up, initial=publish["parent"])  # in old SDKs far up
    assert publish["id"] == task["parent"]
    assert task["id"] == process["parent"]
    same = {
        "messaging.system": "aws_sqs",
        "messaging.destination.name": queue_name,
        "messaging.message.id": task_id,
        "messaging.message.body.size": len(body),
    }
    assert publish["data"].items() >= same.items()
    assert process["data"].items() >= (same | {"messaging.message.retry.count": 0}).items()
    assert 0 <= process["data"]["messaging.message.receive.latency"] < 60_000
    assert [each["failed"] for each in (request, publish, task, process)] == [
        False,
        False,
        True,
        True,
    ]
    event = site.kent.event(task_id)
    assert event["contexts"]["trace"]["trace_id"] == process["trace"]
    assert event["contexts"]["trace"]["span_id"] == process["id"]


def test_each_message_of_a_batch_has_its_span(site: Site, queue_name: str) -> None:
    ids = site.schedule(f"three/{queue_name}")
    bodies = site.run(3)
    ops = ["queue.publish", "queue.process", "queue.task.beanstalk_dispatch"]
    until(lambda: len(traced(site, bodies[0], ops)["queue.process"]) == 3)
    spans = traced(site, bodies[0], ops)
    assert {each["data"]["messaging.message.id"] for each in spans["queue.publish"]} == set(ids)
    assert {each["data"]["messaging.message.id"] for each in spans["queue.process"]} == set(ids)
    assert not any(each["failed"] for each in spans["queue.process"])
    published = {each["id"] for each in spans["queue.publish"]}
    assert {each["parent"] for each in spans["queue.task.beanstalk_dispatch"]} == published


def test_a_retry_asked_for_is_no_failure(site: Site, queue_name: str) -> None:
    (task_id,) = site.schedule(f"one/{queue_name}/again")
    (body,) = site.run()
    ops = ["queue.publish", "queue.process"]
    (process,) = traced(site, body, ops)["queue.process"]
    assert not process["failed"]
    (copy,) = open_queue("jobs").receive(count=1, wait=1, visibility=30)
    message = Message.decode(copy.body, queue=queue_name, keys=["a-key-of-the-tests"])
    assert (message.id, message.attempt) == (task_id, 2)
    sent = Message.decode(body, queue=queue_name, keys=["a-key-of-the-tests"])
    assert message.headers == sent.headers
    assert site.kent.events(task_id) == []


def test_a_hop_keeps_the_trace(site: Site, queue_name: str) -> None:
    """A delay beyond SQS's 15 minutes is sent again; here with eight seconds left."""
    trace_id, task_id = uuid.uuid4().hex, f"hop-{site.is_streaming}"
    message = Message(
        function="boom", args=[SECRET], id=task_id, not_before=time.time() + 8,
        headers={"sentry-trace": f"{trace_id}-{trace_id[:16]}-1"},
    )  # fmt: skip
    open_queue("jobs").send(message.encode(queue=queue_name, keys=["a-key-of-the-tests"]), {})
    site.run(2)
    assert site.kent.event(task_id)["contexts"]["trace"]["trace_id"] == trace_id
    until(lambda: len(site.kent.spans(trace_id)) == 2)
    (task,) = [each for each in site.kent.spans(trace_id) if each["op"] != "queue.process"]
    assert task["parent"] == trace_id[:16]


def test_the_daemons_post_is_no_transaction(site: Site, queue_name: str) -> None:
    def requests() -> int:
        names = [each["transaction"] for each in site.kent.of("transaction")]
        names += [span["name"] for body in site.kent.of("span") for span in body["items"]]
        return sum("dispatcher" in name for name in names)

    before = requests()
    site.schedule(f"one/{queue_name}/boom")
    (body,) = site.run()
    traced(site, body, ["http.server", "queue.process"])
    time.sleep(0.3)
    assert requests() == before


# --- check-ins -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "status"), [("quiet", "ok"), ("boom", "error")])
def test_a_periodic_task_checks_in(site: Site, name: str, status: str) -> None:
    headers = {"X-Aws-Sqsd-Taskname": name, "X-Aws-Sqsd-Msgid": f"periodic-{name}"}
    before = len(site.kent.of("check_in"))
    site.post(b"", **headers)
    until(lambda: len(site.kent.of("check_in")) >= before + 2)
    first, second = site.kent.of("check_in")[before:]
    assert first["status"] == "in_progress"
    assert second["status"] == status
    assert first["check_in_id"] == second["check_in_id"]
    assert second["duration"] >= 0
    schedule = {"quiet": "*/5 * * * *", "boom": "0 4 * * *"}[name]
    assert first["monitor_slug"] == name
    assert first["monitor_config"] == second["monitor_config"] == {
        "schedule": {"type": "crontab", "value": schedule},
        "timezone": "UTC", "checkin_margin": 3, "max_runtime": 1,
    }  # fmt: skip
    assert first["environment"] == "tests"


# --- privacy ---------------------------------------------------------------------------------


def test_no_argument_leaves(site: Site, queue_name: str) -> None:
    """In whatever way a task ends. What the project itself says (tags, messages) is its own."""
    for function in ("quiet", "boom", "mine", "patient", "broken", "again"):
        site.schedule(f"one/{queue_name}/{function}")
    bodies = site.run(6)
    assert all(SECRET in body for body in bodies)
    site.post(signed("unlisted", SECRET))
    site.post(signed("boom", SECRET, 7, "x", {"deep": [SECRET]}) + "forged")
    site.post('{"function": "boom", "args": ["' + SECRET)
    site.worker.post(signed("boom", SECRET))  # by hand, without the daemon's headers
    site.post(signed("boom", SECRET), Host="unknown.example.com")
    site.web.post(signed("boom", SECRET), **{"X-Aws-Sqsd-Msgid": "misled"})
    site.post(signed("boom", SECRET, id=f"last-{site.is_streaming}"))
    event = site.kent.event(f"last-{site.is_streaming}")
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert any(frame.get("vars", {}).get("harmless") for frame in frames)
    assert [item for item in site.kent.items() if SECRET in json.dumps(item)] == []


def test_a_machine_that_is_no_worker_is_told_of(site: Site) -> None:
    def told() -> list[dict[str, Any]]:
        return [
            each
            for each in site.kent.of("event")
            if "not-a-worker" in each.get("logentry", {}).get("message", "")
        ]

    # Logged once a minute, so another test's request may be the one that is shown.
    assert site.web.post(signed("quiet", SECRET), **{"X-Aws-Sqsd-Msgid": "misled"})[0] == 404
    until(told)
    assert "data" not in told()[-1]["request"]
