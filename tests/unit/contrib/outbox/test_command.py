from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from beanstalk_dispatch.client import Call, schedule, schedule_function
from beanstalk_dispatch.contrib.outbox import relay
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from tests.conftest import Environment
from tests.recording_sqs import Sqs

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("no_sender"),
]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    call_command("beanstalk_outbox", *arguments)
    return capsys.readouterr().out.strip()


def test_an_empty_outbox_is_shown(sqs: Sqs, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--status", capsys=capsys) == "nothing waits in the outbox"
    assert json.loads(run("--status", "--json", capsys=capsys)) == []


def test_what_waits_is_shown(sqs: Sqs, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(2):
        schedule_function("jobs", "record", n)
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(seconds=90))
    shown = run("--status", capsys=capsys)
    assert shown.startswith("jobs: 2 waiting in default; the oldest for 9")
    OutboxMessage.objects.filter(id=OutboxMessage.objects.all()[0].id).update(failures=1)
    assert ", 1 of them refused by SQS;" in run("--status", capsys=capsys)
    (found,) = json.loads(run("--status", "--json", capsys=capsys))
    assert found.pop("oldest_seconds") == pytest.approx(90, abs=20)
    assert found == {"database": "default", "queue": "jobs", "count": 2, "refused": 1,
                     "delayed": 0, "next_due_at": None}  # fmt: skip


def test_what_waits_for_later_is_shown_apart(sqs: Sqs, capsys: pytest.CaptureFixture[str]) -> None:
    for hours in (2, 3):
        schedule("jobs", Call("record", [1], delay=timedelta(hours=hours)))
    due_at = OutboxMessage.objects.order_by("due_at").values_list("due_at", flat=True)[0]
    assert due_at
    shown = run("--status", capsys=capsys)
    first = due_at.isoformat()
    assert shown == f"jobs: 0 waiting in default; 2 due later, the first at {first}"
    assert run("--once", capsys=capsys) == "sent 0, 0 left"


def test_a_wrong_configuration_is_an_error(sqs: Sqs, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_OUTBOX="sometimes")
    with pytest.raises(CommandError, match="'sometimes' is not accepted; write always or"):
        call_command("beanstalk_outbox", "--status")


def test_json_needs_status(sqs: Sqs) -> None:
    with pytest.raises(CommandError, match="--json needs --status"):
        call_command("beanstalk_outbox", "--json")


def test_once_sends_what_waits(sqs: Sqs, capsys: pytest.CaptureFixture[str]) -> None:
    schedule_function("jobs", "record", 1)
    assert run("--once", capsys=capsys) == "sent 1, 0 left"
    assert sqs.labels == [1]


def test_once_fails_if_something_is_left(sqs: Sqs, capsys: pytest.CaptureFixture[str]) -> None:
    schedule_function("jobs", "record", 1)
    sqs.is_down = True
    says = "^something is left: the log says why, unless another process sends it$"
    with pytest.raises(CommandError, match=says) as caught:
        run("--once", capsys=capsys)
    assert caught.value.returncode == 75


def test_a_message_is_discarded_by_the_id_of_its_task(
    sqs: Sqs, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [schedule_function("jobs", "record", n) for n in range(2)]
    assert run("--discard", ids[0], capsys=capsys) == f"deleted the message of the task {ids[0]}"
    assert [row.task_id for row in OutboxMessage.objects.all()] == ids[1:]
    with pytest.raises(CommandError, match=f"no message of the task '{ids[0]}' waits"):
        call_command("beanstalk_outbox", "--discard", ids[0])


def test_a_missing_table_is_an_error(sqs: Sqs, no_table: None) -> None:
    with pytest.raises(CommandError, match="cannot be read: OperationalError: no such table"):
        call_command("beanstalk_outbox", "--status")


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_sends_until_a_signal(number: int, sqs: Sqs, handlers: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.01)
    schedule_function("jobs", "record", 1)

    def stop_when_sent() -> None:
        while not sqs.labels:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop_when_sent).start()
    call_command("beanstalk_outbox")
    assert not OutboxMessage.objects.exists()


def test_a_hangup_that_nohup_has_ignored_ends_nothing(
    sqs: Sqs, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(relay.Relay, "run", lambda self, is_stopping: None)
    call_command("beanstalk_outbox")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
