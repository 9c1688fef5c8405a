"""One and the same signed message on endpoint, poller, Lambda and in the calling process.

Outcome, attempt, result, dead letter, copy and log fields are the same. What differs is listed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from django.core.cache import caches
from django.test import Client

from beanstalk_dispatch.client import cancel
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.calling_process import execute
from beanstalk_dispatch.consumers.endpoint.sqsd import headers_of
from beanstalk_dispatch.consumers.poller.in_flight import Ack
from beanstalk_dispatch.consumers.poller.runners import delivery_of, run_here
from beanstalk_dispatch.contrib.aws_lambda.function import handle
from beanstalk_dispatch.contrib.results import get_result
from beanstalk_dispatch.exceptions import UnknownResult
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.message import Message, read_dead_letter
from beanstalk_dispatch.messages.record import pause
from beanstalk_dispatch.running.definitions.options import limit_key
from beanstalk_dispatch.running.leases.slots import Slot
from beanstalk_dispatch.running.unrun_receives import UNRUN
from beanstalk_dispatch.scheduling.destination import resolve
from beanstalk_dispatch.signals import delivery_finished
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.parameters import send_parameters
from beanstalk_dispatch.sqs.queue import Received
from tests import django_tasks
from tests.conftest import TABLE, Environment
from tests.lambda_events import Context, event, record_of
from tests.proxy import Proxy
from tests.services import PATH

KEY: Final = "a-key-of-the-tests-for-all"
LINE: Final = re.compile(r"task id=(\S+) function=(\S+) outcome=(\S+) receive_count=(\d+) (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What can be seen of a delivery."""

    outcome: str
    attempt: int = 1
    is_acknowledged: bool = True
    result: str | None = "SUCCESSFUL"
    """The status of the task's result, after the delivery."""
    dead_letter: str | None = None
    """The outcome in the dead letter."""
    copy_attempt: int | None = None
    """The attempt of the copy on the queue."""
    log_fields: frozenset[str] = frozenset({"ms"})
    """Those after ``receive_count``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    seen: Seen
    function: str
    args: tuple[Any, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    key: str = KEY
    is_delivered_twice: bool = False
    is_cancelled: bool = False
    is_paused: bool = False
    is_limited: bool = False
    """True if no slot is free."""
    by_poller: Mapping[str, Any] = field(default_factory=dict)
    """What is different there."""
    by_calling_process: Mapping[str, Any] | None = field(default_factory=dict)
    """What is different there; None if there is no such thing."""
    on_fifo: Mapping[str, Any] | None = field(default_factory=dict)
    """What is different on a FIFO queue; None if there is no such thing."""


WITH_REASON: Final = frozenset({"ms", "reason"})
DEAD: Final = frozenset({"ms", "reason", "dead_letter_queue"})
NO_DEAD_LETTER: Final = {"dead_letter": None, "is_acknowledged": False, "log_fields": WITH_REASON}
"""The calling process sends no dead letters: who has called sees the failure."""
NOT_PAUSED: Final = {
    "outcome": "done", "result": "SUCCESSFUL", "copy_attempt": None,
    "log_fields": frozenset({"ms"}),
}  # fmt: skip
CASES: Final = {
    "function": Case(function="record", args=(1,), seen=Seen(outcome="done")),
    "SafeTask": Case(function="recorder", args=(1,), seen=Seen(outcome="done")),
    "@task": Case(function=django_tasks.add.module_path, args=(1, 2), seen=Seen(outcome="done")),
    "failed": Case(
        function="fail",
        seen=Seen(outcome="failed", is_acknowledged=False, result="READY", log_fields=WITH_REASON),
        by_calling_process={"result": "FAILED"},  # it is not delivered again
    ),
    "no retry left": Case(
        function="fail", members={"options": {"max_retries": 0}},
        seen=Seen(outcome="failed", result="FAILED", dead_letter="failed", log_fields=DEAD),
        by_calling_process=NO_DEAD_LETTER,
    ),
    "@task without a retry": Case(
        function=django_tasks.fail.module_path,
        seen=Seen(outcome="failed", result="FAILED", dead_letter="failed", log_fields=DEAD),
        by_calling_process=NO_DEAD_LETTER,
    ),
    "retried": Case(
        function="flaky", seen=Seen(outcome="retry", result="READY", copy_attempt=2),
        on_fifo={"copy_attempt": None, "is_acknowledged": False},  # it is delivered again itself
        by_calling_process={  # it runs at once
            "result": "SUCCESSFUL", "copy_attempt": None, "is_acknowledged": True,
        },
    ),
    "timed out": Case(
        function="loop", args=(30,), members={"options": {"timeout": 0.1}},
        seen=Seen(
            outcome="timed-out", is_acknowledged=False, result="READY", log_fields=WITH_REASON
        ),
        by_calling_process={"result": "FAILED"},
    ),
    "delayed": Case(
        function="record", members={"not_before": round(time.time()) + 600},
        seen=Seen(outcome="deferred", result=None, copy_attempt=1),
        on_fifo=None,  # it takes no delay
        by_calling_process={"result": "SUCCESSFUL", "copy_attempt": None},
    ),
    "duplicate": Case(
        function="record", is_delivered_twice=True,
        seen=Seen(outcome="duplicate", log_fields=WITH_REASON),
        by_calling_process=None,  # it has no message of SQS that could come twice
    ),
    "cancelled": Case(
        function="record", is_cancelled=True,
        seen=Seen(outcome="cancelled", result="FAILED", log_fields=WITH_REASON),
    ),
    "cancelled @task": Case(
        function=django_tasks.add.module_path, args=(1, 2), is_cancelled=True,
        seen=Seen(outcome="cancelled", result="FAILED", log_fields=WITH_REASON),
    ),
    "cancelled while it waits": Case(
        function="record", members={"not_before": round(time.time()) + 600}, is_cancelled=True,
        seen=Seen(outcome="cancelled", result="FAILED", log_fields=WITH_REASON),
    ),
    "limited": Case(
        function="record", is_limited=True,
        seen=Seen(outcome="deferred", result=None, copy_attempt=1, log_fields=WITH_REASON),
        by_calling_process=NOT_PAUSED | {"is_acknowledged": True},
        on_fifo={"copy_attempt": None, "is_acknowledged": False},
    ),
    "expired": Case(
        function="record", members={"not_after": 1000.0},
        seen=Seen(outcome="expired", result="FAILED", log_fields=WITH_REASON),
    ),
    "paused": Case(
        function="record", is_paused=True,
        seen=Seen(outcome="deferred", result=None, copy_attempt=1, log_fields=WITH_REASON),
        by_poller=NOT_PAUSED,  # it receives nothing while the queue is paused
        by_calling_process=NOT_PAUSED,
        on_fifo=NOT_PAUSED,  # it takes no delayed copy
    ),
    "forged": Case(
        function="record", key="another-key-of-sixteen",
        seen=Seen(
            outcome="bad-signature", is_acknowledged=False, result=None, log_fields=WITH_REASON
        ),
    ),
}  # fmt: skip


# --- the consumers: each runs a message, and says whether it is acknowledged -----------------


def by_endpoint(received: Received) -> bool:
    headers = headers_of(delivery_of(received))
    answer = Client().post(PATH, received.body, content_type="application/json", headers=headers)
    return answer.status_code == 200


def by_poller(received: Received) -> bool:
    return isinstance(run_here(received), Ack)


def by_lambda(received: Received) -> bool:
    return handle(event(record_of(received)), Context()) == {"batchItemFailures": []}


def by_calling_process(received: Received) -> bool:
    return execute(resolve("jobs", get_config()), received.body)[1].is_acknowledged


CONSUMERS: Final[Mapping[str, Callable[[Received], bool]]] = {
    each.__name__.removeprefix("by_"): each
    for each in (by_endpoint, by_poller, by_lambda, by_calling_process)
}


@pytest.fixture
def outcomes(
    sqs_env: Environment, queue_name: str, proxy: Proxy
) -> Iterator[list[tuple[str, int]]]:
    """The outcome and the attempt of each delivery, on queues of this test."""
    sqs_env(
        WORKER=True, DISPATCH_TABLE=TABLE, DISPATCH_TASKS="tests.django_tasks",
        DISPATCH_RESULTS="default", DISPATCH_SIGNING_KEYS=KEY,
        DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead",
        DISPATCH_DEAD_LETTER_QUEUE="dead", DISPATCH_SQS_ENDPOINT_URL=proxy.url,
    )  # fmt: skip
    caches["default"].clear()
    found: list[tuple[str, int]] = []

    def note(delivery: Any, outcome: str, **more: Any) -> None:
        found.append((str(outcome), delivery.message.attempt if delivery.message else 1))

    delivery_finished.connect(note)
    yield found
    delivery_finished.disconnect(note)
    caches["default"].clear()


@pytest.fixture
def sent(proxy: Proxy) -> list[tuple[str, str]]:
    """The name of the queue and the body of each message that is sent."""
    found: list[tuple[str, str]] = []

    def note(operation: str, request: dict[str, Any]) -> None:
        if operation == "SendMessage":
            found.append((request["QueueUrl"].rpartition("/")[2], request["MessageBody"]))

    proxy.spoil = note
    return found


def sent_and_received(body: str) -> Received:
    """A message with this body, and not the retry that a consumer before has sent."""
    queue = open_queue("jobs")
    group = f"group-{time.monotonic_ns()}" if queue.is_fifo else None
    options = send_parameters(queue.address, group_id=group, message_id=group)
    queue.send(body, options if group else {})
    found: list[Received] = []
    while not found:
        received = open_queue("jobs").receive(count=10, wait=0, visibility=60)
        found = [each for each in received if each.body == body]
    return found[0]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, "") for name in CASES]
    + [(name, ".fifo") for name, case in CASES.items() if case.on_fifo is not None],
)
def test_a_message_fares_the_same_on_each(
    name: str, suffix: str, outcomes: list[tuple[str, int]], sent: list[tuple[str, str]],
    sqs_env: Environment, queue_name: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    case = CASES[name]
    if suffix:
        case = replace(case, seen=replace(case.seen, **case.on_fifo or {}))
        queue_name += suffix
        sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} dead={dead_name(queue_name)}")
    message = Message(function=case.function, id="the-message", args=case.args, **case.members)
    body = message.encode(queue=queue_name, keys=[case.key])
    expected = dict.fromkeys(CONSUMERS, case.seen)
    expected["poller"] = replace(case.seen, **case.by_poller)
    if case.by_calling_process is None:
        del expected["calling_process"]
    else:
        expected["calling_process"] = replace(case.seen, **case.by_calling_process)

    seen = {}
    for consumer in expected:
        caches["default"].clear()
        THROTTLE.forget()  # or the second refusal within a minute has no line
        received = sent_and_received(body)
        if consumer == "calling_process":
            sqs_env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
        has_lease = case.is_cancelled or case.is_paused or case.is_limited
        sqs_env(
            DISPATCH_LEASE_CACHE="default" if has_lease else None,
            DISPATCH_POLICIES="record.limit=1" if case.is_limited else None,
        )
        if case.is_limited:
            key = limit_key("record", {}, ())
            assert Slot("default", key, limit=1, time_limit=60).take()
        if case.is_paused:
            pause(queue_name)
        if case.is_cancelled:
            cancel("the-message")
        if case.is_delivered_twice:
            CONSUMERS[consumer](received)
        for each in (caplog, outcomes, sent):
            each.clear()
        caplog.set_level("INFO")
        is_acknowledged = CONSUMERS[consumer](received)
        seen[consumer] = what_is_seen(queue_name, is_acknowledged, outcomes, sent, caplog.messages)
    assert seen == expected


def what_is_seen(
    queue_name: str, is_acknowledged: bool, outcomes: list[tuple[str, int]],
    sent: list[tuple[str, str]], log: list[str],
) -> Seen:  # fmt: skip
    (line, *_) = (match for each in log if (match := LINE.match(each)))
    outcome, attempt = outcomes[0]
    assert line[3] == outcome
    bodies = dict(sent)
    assert len(bodies) == len(sent)
    dead_letter = read_dead_letter(bodies.get(dead_name(queue_name), ""))
    copies = [Message.decode(each, queue=queue_name, keys=[KEY])
              for name, each in sent if name == queue_name]  # fmt: skip
    return Seen(
        outcome=outcome,
        attempt=attempt,
        is_acknowledged=is_acknowledged,
        result=status_of_result(),
        dead_letter=dead_letter and dead_letter[0]["outcome"],
        copy_attempt=copies[0].attempt if copies else None,
        log_fields=frozenset(re.findall(r"(?:^| )(\w+)=", line[5])),
    )


def dead_name(queue_name: str) -> str:
    name, dot, suffix = queue_name.partition(".fifo")
    return f"{name}-dead{dot}{suffix}"


def status_of_result() -> str | None:
    try:
        return str(get_result("the-message").status)
    except UnknownResult:
        return None


@pytest.mark.parametrize("consumer", ["endpoint", "poller", "lambda"])
def test_the_attempts_of_a_fifo_message_are_limited_on_each(
    consumer: str, outcomes: list[tuple[str, int]], sqs_env: Environment, queue_name: str
) -> None:
    """Two retries, three attempts. A receive that ran nothing is none, as while it drains."""
    queue_name += ".fifo"
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} dead={dead_name(queue_name)}")
    message = Message(function="fail", id="the-message", options={"max_retries": 2})
    received = sent_and_received(message.encode(queue=queue_name, keys=[KEY]))
    UNRUN.note(replace(delivery_of(received), receive_count=2))
    acknowledged = []
    for receive_count in (1, 3, 4):
        count = {"ApproximateReceiveCount": str(receive_count)}
        received.attributes = {**received.attributes, **count}
        acknowledged.append(CONSUMERS[consumer](received))
    assert outcomes == [("retry", 1), ("retry", 2), ("failed", 3)]
    assert acknowledged == [False, False, True]
    assert status_of_result() == "FAILED"
