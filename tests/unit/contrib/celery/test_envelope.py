"""Messages of Celery on a queue of ours: what runs, and what is refused with one clear line."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import beanstalk_dispatch.contrib.celery  # noqa: F401  # as the variable has it imported
from beanstalk_dispatch.exceptions import MessageError
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.consumer import NOBODY, Nobody
from beanstalk_dispatch.running.run import Consumer, Run
from beanstalk_dispatch.sqs.opening import open_queue
from tests import jobs
from tests.conftest import Environment
from tests.runs import deliver_and_keep

KEYS: Final = "a-key-of-the-tests"
ID: Final = "6b59318d-50e8-4c9f-9635-fab929d47371"
UUID_VALUE: Final = UUID("caa510f7-691c-4ca9-ac64-632ef47a3e63")


def kombu(kind: str, value: object) -> dict[str, object]:
    return {"__type__": kind, "__value__": value}


def envelope(
    *args: object,
    kwargs: Mapping[str, object] | None = None,
    embedded: Mapping[str, object] | None = None,
    content_type: str = "application/json",
    body: object = None,
    **headers: Any,
) -> str:
    """A body as Celery 5.7 with kombu's SQS transport sends it."""
    successors = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    inner = json.dumps([args, kwargs or {}, successors | dict(embedded or {})])
    content = {
        "body": base64.b64encode(inner.encode()).decode() if body is None else body,
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {
            "lang": "py", "task": "record", "id": ID, "shadow": None, "eta": None, "expires": None,
            "group": None, "group_index": None, "retries": 0, "timelimit": [None, None],
            "root_id": ID, "parent_id": None, "origin": "gen7279@vm", "ignore_result": False,
            **headers,
        },
        "properties": {"correlation_id": ID, "delivery_mode": 2, "body_encoding": "base64"},
    }  # fmt: skip
    return base64.b64encode(json.dumps(content).encode()).decode()


@pytest.fixture
def celery_env(worker_env: Environment) -> Environment:
    """A worker whose queue may have messages of Celery."""
    functions = " ".join(f"tests.typed_jobs.{each}" for each in ("one_of_each", "nested", "bare"))
    worker_env(DISPATCH_CELERY_QUEUES="jobs", DISPATCH_TASKS=functions)
    return worker_env


class Copies(Nobody):
    """A consumer that keeps the copies it is to send, and their delays."""

    def __init__(self) -> None:
        self.sent: list[tuple[Message, float]] = []

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        self.sent.append((message, delay))


def run(body: str, consumer: Consumer = NOBODY) -> tuple[Run, Result]:
    delivery = Delivery(queue=open_queue("jobs").name, message_id="m")
    return deliver_and_keep(body, delivery, consumer)


def reason_of(body: str) -> str:
    """Why a body is refused. It must not have run."""
    _, result = run(body)
    assert (result.outcome, jobs.calls) == (Outcome.MALFORMED, [])
    return str(result.reason)


def test_a_task_runs_with_its_arguments_and_its_id(celery_env: Environment) -> None:
    body = envelope(1, [2], kwargs={"user": {"pk": 3}}, timelimit=[20, 10], retries=4)
    ran, result = run(body)
    assert result.outcome is Outcome.DONE
    assert jobs.calls == [((1, [2]), {"user": {"pk": 3}})]
    assert (ran.message.id, ran.message.attempt, ran.time_limit) == (ID, 5, 10)


def test_kombus_types_come_back_by_the_annotations(celery_env: Environment) -> None:
    body = envelope(
        [],
        {"today": kombu("date", "2026-12-01")},
        kombu("decimal", "1.10"),
        kwargs={"order": kombu("uuid", {"hex": UUID_VALUE.hex})},
        task="tests.typed_jobs.nested",
    )
    assert run(body)[1].outcome is Outcome.DONE
    days = {"today": date(2026, 12, 1)}
    assert jobs.calls == [([], days, (Decimal("1.10"),), {"order": UUID_VALUE})]


def test_moments_are_written_as_our_sender_writes_them(celery_env: Environment) -> None:
    moments = (kombu("datetime", "2026-12-01T18:09:45+00:00"), kombu("time", "12:30:00"))
    message = Message.decode(envelope(*moments, "x"), queue=open_queue("jobs").name)
    assert message.args == ["2026-12-01T18:09:45+00:00", "12:30:00", "x"]
    assert message.typed == [0, 1]


def test_a_retry_is_a_message_of_ours(celery_env: Environment) -> None:
    celery_env(DISPATCH_SIGNING_KEYS=KEYS, DISPATCH_TASKS="tests.typed_jobs.Ship")
    order = kombu("uuid", {"hex": UUID_VALUE.hex})
    copies = Copies()
    body = envelope(order, True, task="tests.typed_jobs.Ship", retries=1)
    assert run(body, copies)[1].outcome is Outcome.RETRY
    ((copy, _),) = copies.sent
    assert (copy.id, copy.attempt, copy.typed) == (ID, 3, [0])
    signed = copy.encode(queue=open_queue("jobs").name, keys=[KEYS])
    assert run(signed)[1].outcome is Outcome.DONE
    assert jobs.calls == [(UUID_VALUE, [0])] * 2


def test_eta_and_expires_hold(celery_env: Environment) -> None:
    copies = Copies()
    eta = datetime.now(UTC) + timedelta(days=3)
    for moment in (eta.isoformat(), eta.replace(tzinfo=None).isoformat()):
        assert run(envelope(eta=moment), copies)[1].outcome is Outcome.DEFERRED
    assert [round(delay / 86400) for _, delay in copies.sent] == [3, 3]
    assert run(envelope(expires="2026-01-01T00:00:00+00:00"))[1].outcome is Outcome.EXPIRED
    assert jobs.calls == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (envelope(content_type="application/x-python-serialize"),
         "a message of Celery for 'record': only JSON that is not compressed can be read"),
        (envelope(compression="application/x-gzip"),
         "a message of Celery for 'record': only JSON that is not compressed can be read"),
        (envelope(embedded={"chain": [{"task": "record"}]}),
         "a message of Celery for 'record': its chain would be lost; have Celery run it"),
        (envelope(embedded={"chord": {"task": "record"}}),
         "a message of Celery for 'record': its chord would be lost; have Celery run it"),
        (envelope(embedded={"callbacks": [{"task": "record"}]}),
         "a message of Celery for 'record': its callbacks would be lost; have Celery run it"),
        (envelope(embedded={"errbacks": [{"task": "record"}]}),
         "a message of Celery for 'record': its errbacks would be lost; have Celery run it"),
        (envelope(kombu("bytes", "x")),
         "a message of Celery for 'record': an argument is of kombu's type 'bytes'"),
        (envelope(kombu("uuid", "x")), "a message of Celery for 'record': it cannot be read"),
        (envelope(retries="x"), "a message of Celery for 'record': it cannot be read"),
        (envelope(eta="soon"), "a message of Celery for 'record': it cannot be read"),
        (envelope(body=base64.b64encode(b'["ab", {}, {}]').decode()),
         "a message of Celery for 'record': it cannot be read"),
        (envelope(body="?"), "a message of Celery for 'record': it cannot be read"),
        (envelope(body=base64.b64encode(b"[" * 900 + b"]" * 900).decode()),
         "a message of Celery for 'record': it cannot be read"),
        (envelope(task=7), "function is not a string of 1 to 255 printable characters"),
        (envelope(kombu("uuid", {"hex": UUID_VALUE.hex}), task="tests.typed_jobs.bare"),
         "argument 'value' needs an annotation that says its type"),
        (json.dumps({"content-type": "application/json", "headers": {}}),
         "a message of Celery for None: it is not of task_protocol 2"),
        (json.dumps({"content-type": "application/json", "headers": 1}),
         "a message of Celery; to run it, name its queue in BEANSTALK_DISPATCH_CELERY_QUEUES"),
    ],
)  # fmt: skip
def test_what_would_run_otherwise_is_refused(
    celery_env: Environment, body: str, reason: str
) -> None:
    assert reason_of(body) == reason


def test_other_messages_of_the_queue_are_read_as_ever(celery_env: Environment) -> None:
    name = open_queue("jobs").name
    assert run(Message(function="record", id="1").encode(queue=name))[1].outcome is Outcome.DONE
    jobs.calls.clear()
    assert reason_of("no JSON") == "not JSON: Expecting value at character 0"


def test_a_queue_that_is_not_named_runs_nothing(celery_env: Environment) -> None:
    celery_env(DISPATCH_CELERY_QUEUES=None)
    hint = "a message of Celery; to run it, name its queue in BEANSTALK_DISPATCH_CELERY_QUEUES"
    assert reason_of(envelope()) == hint
    celery_env(DISPATCH_SIGNING_KEYS=KEYS)
    result = run(envelope())[1]
    assert (result.outcome, result.reason) == (
        Outcome.BAD_SIGNATURE,
        "not signed; to run messages of Celery, name the queue in BEANSTALK_DISPATCH_CELERY_QUEUES",
    )


def test_only_messages_of_celery_need_no_signature(celery_env: Environment) -> None:
    celery_env(DISPATCH_SIGNING_KEYS=KEYS)
    name = open_queue("jobs").name
    unsigned = Message(function="record").encode(queue=name)
    forged = Message(function="record").encode(queue=name, keys=["another-key"])
    for body in (unsigned, forged, json.dumps({**json.loads(unsigned), "content-type": "x"})):
        assert run(body)[1].outcome is Outcome.BAD_SIGNATURE
    assert run(envelope())[1].outcome is Outcome.DONE


def test_a_dead_letter_is_read_as_the_message_of_celery_inside(celery_env: Environment) -> None:
    celery_env(DISPATCH_SIGNING_KEYS=KEYS)
    name = open_queue("jobs").name
    dead_letter = wrap(envelope(5), {"attempts": 2, "id": ID}, queue=name, keys=[KEYS])
    ran, result = run(dead_letter)
    assert (result.outcome, ran.message.attempt) == (Outcome.DONE, 3)
    assert jobs.calls == [((5,), {})]


def test_whatever_stands_in_it_the_message_is_read_or_refused(celery_env: Environment) -> None:
    plain = st.sampled_from([None, True, -1, "", "uuid", "date", "2026-12-01", UUID_VALUE.hex])
    values = plain | st.lists(plain, max_size=3)
    names = st.sampled_from(["task", "retries", "eta", "expires", "timelimit", "id", "compression"])
    typed = st.fixed_dictionaries(
        {"__type__": plain, "__value__": values | st.fixed_dictionaries({"hex": values})}
    )
    queue = open_queue("jobs").name

    # One example may wait for a loaded machine.
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(names, values, max_size=3), values | typed)
    def decode(headers: dict[str, Any], argument: Any) -> None:
        with suppress(MessageError):
            assert Message.decode(envelope(argument, **headers), queue=queue, default_id="1")

    decode()
