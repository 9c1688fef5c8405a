from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.contrib.outbox import committed as committed_module
from beanstalk_dispatch.contrib.outbox import relay as relay_module
from beanstalk_dispatch.contrib.outbox import sender as sender_module
from beanstalk_dispatch.contrib.outbox.committed import Committed, StoredRow
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.contrib.outbox.sender import SENDER, Sender
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.backoff import BackoffTimes
from tests.conftest import Environment
from tests.recording_sqs import Sqs
from tests.services import in_child
from tests.workers import until

pytestmark = pytest.mark.django_db(transaction=True)
TIMES = BackoffTimes(first_retry=0.05, longest_retry=0.1)


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
    def fail(self: Relay, committed: Committed) -> None:
        monkeypatch.undo()
        raise KeyError

    sender = Sender()
    monkeypatch.setattr("beanstalk_dispatch.contrib.outbox.sender.RESTART_SECONDS", 0.01)
    monkeypatch.setattr(Relay, "send_committed", fail)
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
    in_child(lambda: SENDER._thread is None and SENDER.flush(0))
    assert SENDER._thread is not None


# --- its own rows ----------------------------------------------------------------------------


def committed_rows() -> Committed:
    """Everything in the table, as if this process had just committed it."""
    found = Committed()
    found.add([
        StoredRow("default", row.queue, row.fifo_group, row.id)
        for row in OutboxMessage.objects.order_by("id")
    ])  # fmt: skip
    return found


def send_all(relay: Relay, committed: Committed) -> None:
    while relay.send_committed(committed):
        pass


def test_it_sends_what_was_committed_and_asks_for_nothing_else(sqs: Sqs, no_sender: None) -> None:
    schedule_many("jobs", [Call("record", [n]) for n in range(20)])
    own = OutboxMessage.objects.order_by("id")[7]
    committed = Committed()
    committed.add([StoredRow("default", "jobs", "", own.id)])
    with CaptureQueriesContext(connection) as captured:
        send_all(Relay(), committed)
    assert sqs.labels == [7]
    assert OutboxMessage.objects.count() == 19
    assert len(captured) <= 8  # with BEGIN and COMMIT
    assert all(f"{own.id}" in each["sql"] for each in captured if " WHERE " in each["sql"])


def test_a_group_is_sent_from_its_head_by_whoever_has_claimed_that(
    sqs: Sqs, no_sender: None
) -> None:
    for n, group in enumerate(("a", "b", "a", "b")):
        schedule("fifo", Call("record", [n], group_id=group))
    committed = committed_rows()
    OutboxMessage.objects.filter(fifo_group="b").first().delete()  # type: ignore[union-attr]
    held = OutboxMessage.objects.get(fifo_group="b")
    OutboxMessage.objects.filter(id=held.id).update(available_at="2100-01-01T00:00:00Z")
    send_all(Relay(), committed)
    assert sqs.labels == [0, 2]
    assert not committed


def test_groups_that_are_empty_are_forgotten(sqs: Sqs, no_sender: None) -> None:
    schedule("fifo", Call("record", [1], group_id="a"))
    committed = committed_rows()
    OutboxMessage.objects.all().delete()
    send_all(Relay(), committed)
    assert not committed


def test_what_is_not_sent_is_kept_in_mind_until_sqs_takes_it(sqs: Sqs, no_sender: None) -> None:
    schedule_function("jobs", "record", 1)
    schedule("fifo", Call("record", [2], group_id="a"))
    sqs.is_down = True
    committed, relay = committed_rows(), Relay(TIMES)
    send_all(relay, committed)
    send_all(relay, committed)
    assert len(committed) == 2
    sqs.is_down = False
    until(lambda: send_all(relay, committed) or not committed)  # type: ignore[func-returns-value]
    assert sorted(sqs.labels) == [1, 2]
    assert relay.retry_in() is None


def test_after_an_error_of_the_database_it_tries_again(
    sqs: Sqs, no_table: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, relay = Committed(), Relay()
    committed.add([StoredRow("default", "jobs", "", 1), StoredRow("default", "fifo", "a", 2)])
    assert not relay.send_committed(committed)
    assert (len(committed), relay.retry_in()) == (2, None)
    tries: list[Committed] = []
    monkeypatch.setattr(sender_module, "DATABASE_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Relay, "send_committed", lambda self, committed: tries.append(committed))
    sender = Sender()
    sender.wake([StoredRow("default", "jobs", "", 1)])
    until(lambda: len(tries) > 2)
    monkeypatch.setattr(sender_module, "DATABASE_RETRY_SECONDS", 3600)


def test_what_could_not_be_claimed_is_tried_again(
    sqs: Sqs, no_sender: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a deadlock."""
    schedule("fifo", Call("record", [1], group_id="a"))
    committed, relay = committed_rows(), Relay()
    with monkeypatch.context() as patch:
        patch.setattr(relay_module, "claim", lambda *_, **__: None)
        assert not relay.send_committed(committed)
    send_all(relay, committed)
    assert sqs.labels == [1]


def test_what_is_more_than_one_claim_is_sent_by_several(sqs: Sqs) -> None:
    schedule_many("jobs", [Call("record", [n]) for n in range(100)])
    assert SENDER.flush(30)
    assert sorted(sqs.labels) == list(range(100))
    assert not OutboxMessage.objects.exists()


def test_more_than_it_remembers_is_left_to_a_relay(
    sqs: Sqs, no_sender: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed_module, "MAX_REMEMBERED", 3)
    schedule_many("jobs", [Call("record", [n]) for n in range(4)])
    assert len(committed_rows()) == 0
    OutboxMessage.objects.all()[0].delete()
    assert len(committed_rows()) == 3


def test_a_thread_that_is_behind_is_given_no_more_than_it_remembers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sender, "_start_thread", lambda self: None)
    monkeypatch.setattr(sender_module, "MAX_REMEMBERED", 1)
    sender = Sender()
    for n in range(3):
        sender.wake([StoredRow("default", "jobs", "", n)])
    assert [row.id for row in sender._new] == [0]


def test_rows_whose_ids_the_database_does_not_tell_are_looked_for(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on MySQL, for several rows that are inserted together."""
    features = type(connection.features)  # on Django 5.2 one of them is a property
    monkeypatch.setattr(features, "can_return_rows_from_bulk_insert", False)
    monkeypatch.setattr(features, "can_return_columns_from_insert", False)
    schedule_many("jobs", [Call("record", [n]) for n in range(3)])
    assert SENDER.flush(30)
    assert sqs.labels == [0, 1, 2]
    schedule_function("jobs", "record", 3)
    assert SENDER.flush(30)
    assert sqs.labels == [0, 1, 2, 3]


def test_a_client_that_cannot_be_made_does_not_end_the_thread(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: object) -> None:
        raise SendError("no client")

    monkeypatch.setattr(sender_module, "warm_clients", fail)
    sender = Sender()
    sender.wake()
    assert sender.flush(30)
