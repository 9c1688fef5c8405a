from __future__ import annotations

import os
import threading

import pytest
from django.db import transaction

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.contrib.outbox.sender import SENDER, Sender
from tests.conftest import Environment
from tests.recording_sqs import Sqs
from tests.workers import until

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_several_commits_have_stored_is_sent_by_one_thread(sqs: Sqs) -> None:
    for n in range(3):
        with transaction.atomic():
            schedule_function("jobs", "record", n)
        assert SENDER.flush(30)
    assert sqs.labels == [0, 1, 2]
    threads = {SENDER._thread}
    schedule_function("jobs", "record", 3)
    assert SENDER.flush(30)
    assert threads == {SENDER._thread} != {None}


@pytest.mark.slow
def test_it_tries_again_until_sqs_answers(sqs: Sqs) -> None:
    sqs.is_down = True
    schedule_function("jobs", "record", 1)
    assert SENDER.flush(30)
    assert OutboxMessage.objects.count() == 1
    sqs.is_down = False
    until(lambda: sqs.labels, 30)
    SENDER.wake()  # a further round begins when this one has ended
    assert SENDER.flush(30)
    assert not OutboxMessage.objects.exists()


def test_a_request_does_not_wait_for_sqs(sqs: Sqs) -> None:
    gate = threading.Event()
    answer = sqs.refuses_request
    sqs.refuses_request = lambda label: not gate.wait(30)
    schedule_function("jobs", "record", 1)
    assert not SENDER.flush(0.01)
    gate.set()
    assert SENDER.flush(30)
    assert sqs.labels == [1]
    sqs.refuses_request = answer


def test_an_error_does_not_end_the_thread(
    sqs: Sqs, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fail(self: Relay) -> None:
        monkeypatch.undo()
        raise KeyError

    sender = Sender()
    monkeypatch.setattr("beanstalk_dispatch.contrib.outbox.sender.RESTART_SECONDS", 0.01)
    monkeypatch.setattr(Relay, "send_available", fail)
    sender.wake()
    assert sender.flush(30)
    sender.wake()
    assert sender.flush(30)
    assert "unexpected error in thread; restarting it thread=beanstalk_dispatch-outbox" in (
        caplog.text
    )


def test_at_the_end_of_the_interpreter_a_commit_does_not_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sender = Sender()
    sender.wake()
    assert sender._thread is None


def test_a_forked_child_has_a_thread_of_its_own(sqs: Sqs) -> None:
    schedule_function("jobs", "record", 1)
    assert SENDER.flush(30)
    pid = os.fork()
    if not pid:  # pragma: no cover - the child
        os._exit(0 if SENDER._thread is None and SENDER.flush(0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert SENDER._thread is not None
