from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.outbox import claims
from beanstalk_dispatch.contrib.outbox import relay as relay_module
from beanstalk_dispatch.contrib.outbox.claims import Claim, Heads, claim, database_now
from beanstalk_dispatch.contrib.outbox.committed import Place
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.relay import Relay, send_waiting
from beanstalk_dispatch.contrib.outbox.rows import to_prepared
from beanstalk_dispatch.contrib.outbox.status import waiting_in
from beanstalk_dispatch.contrib.results import get_result
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.scheduling.destination import Destination, resolve
from beanstalk_dispatch.signals import task_scheduled
from beanstalk_dispatch.sqs.backoff import BackoffTimes
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.proxy import Proxy, error
from tests.recording_sqs import Sqs, body_of
from tests.workers import until

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("no_sender"),
]
TIMES = BackoffTimes(first_retry=0.05, longest_retry=0.1)


def retry_now() -> None:
    """Make available what has to wait."""
    OutboxMessage.objects.update(available_at=timezone.now())


def labels() -> list[Any]:
    return [
        body_of({"MessageBody": row.body})["args"][0]
        for row in OutboxMessage.objects.order_by("id")
    ]


def fifo(*labels: Any, group: str = "g") -> None:
    schedule_many("fifo", [Call("record", [n], group_id=group) for n in labels])


def test_what_waits_is_sent_in_tens_and_deleted(sqs: Sqs) -> None:
    for n in range(25):
        schedule_function("jobs", "record", n)
    relay = Relay()
    relay.send_available()
    assert sorted(map(len, sqs.requests)) == [5, 10, 10]
    assert sorted(sqs.labels) == list(range(25))
    assert (relay.sent, labels()) == (25, [])


def test_more_than_one_claim_is_sent(sqs: Sqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_CLAIMED", 2)
    for n in range(5):
        schedule_function("jobs", "record", n)
    Relay().send_available()
    assert [len(each) for each in sqs.requests] == [2, 2, 1]


def test_a_message_keeps_its_id_its_group_and_its_deduplication_id(sqs: Sqs) -> None:
    first = schedule("fifo", Call("record", [1], group_id="g"))
    schedule("fifo", Call("record", [2], group_id="g", deduplication_id="d"))
    schedule("jobs", Call("record", [3], group_id="tenant"))
    Relay().send_available()
    found = {body_of(entry)["args"][0]: entry for entry in sqs.entries}
    assert body_of(found[1])["id"] == first
    assert found[1]["MessageGroupId"] == "g"
    assert found[1]["MessageDeduplicationId"] == first
    assert found[2]["MessageDeduplicationId"] == "d"
    assert found[3]["MessageGroupId"] == "tenant"


def test_a_delay_is_counted_from_the_call(sqs: Sqs) -> None:
    for n in range(2):
        schedule("jobs", Call("record", [n], delay=600))
    schedule("jobs", Call("record", [2]))
    waited = OutboxMessage.objects.order_by("id")[0]
    OutboxMessage.objects.filter(id=waited.id).update(due_at=timezone.now() - timedelta(seconds=5))
    Relay().send_available()
    delays = {body_of(entry)["args"][0]: entry.get("DelaySeconds") for entry in sqs.entries}
    assert delays == {0: None, 1: 600, 2: None}


def test_a_call_of_a_later_time_stays_until_sqs_can_keep_it(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay's clock is that of the database."""
    for n in range(12):  # of one minute, which may begin in between
        schedule("jobs", Call("record", [n], delay=timedelta(days=30)))
    Relay().send_available()
    assert (sqs.requests, len(labels())) == ([], 12)
    due_at = OutboxMessage.objects.order_by("id")[0].due_at
    assert due_at

    def send(before: timedelta) -> None:
        monkeypatch.setattr(relay_module, "database_now", lambda _: due_at - before)
        Relay().send_available()

    send(timedelta(minutes=15, seconds=1))
    assert sqs.requests == []
    send(timedelta(minutes=13, seconds=59))
    assert sorted(map(len, sqs.requests)) == [2, 10]
    assert {entry["DelaySeconds"] for entry in sqs.entries} <= {839, 840}
    assert labels() == []


@pytest.mark.parametrize("is_later", [False, True])
def test_what_waits_for_later_does_not_count_as_late(sqs: Sqs, is_later: bool) -> None:
    schedule("jobs", Call("record", [1], delay=timedelta(hours=2 if is_later else 0.2)))
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(days=1))
    (found,) = waiting_in("default")
    assert (found.count, found.delayed, found.oldest_seconds) == (not is_later, is_later, 0)


def test_a_message_is_signed_when_it_is_sent_and_is_as_old_as_its_signature(
    sqs: Sqs, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS="the-key-of-yesterday", DISPATCH_MAX_AGE="30m")
    schedule_function("jobs", "record", 1)
    (row,) = OutboxMessage.objects.all()
    stored_at = body_of({"MessageBody": row.body})["sent_at"]
    sqs_env(DISPATCH_SIGNING_KEYS="the-key-of-today")
    later = stored_at + 9999
    monkeypatch.setattr("beanstalk_dispatch.contrib.outbox.rows.message_time", lambda: later)
    Relay().send_available()
    (entry,) = sqs.entries
    name = open_queue("jobs").name
    message = Message.decode(entry["MessageBody"], queue=name, keys=["the-key-of-today"])
    assert message.sent_at == stored_at + 9999


def test_a_time_zone_is_not_needed(sqs: Sqs, settings: Any) -> None:
    settings.USE_TZ = False
    schedule("jobs", Call("record", [1], delay=900))
    schedule("jobs", Call("record", [2], delay=3600))
    Relay().send_available()
    assert [entry["DelaySeconds"] for entry in sqs.entries] == [900]
    OutboxMessage.objects.update(available_at=timezone.now())
    Relay().send_available()
    assert [entry["DelaySeconds"] for entry in sqs.entries] == [900, 900]


# --- failures --------------------------------------------------------------------------------


def test_while_sqs_does_not_answer_a_queue_is_tried_once(
    sqs: Sqs, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        schedule_function("jobs", "record", n)
    sqs.is_down = True
    relay = Relay(TIMES)
    relay.send_available()
    assert labels() == [0, 1, 2]
    assert {row.failures for row in OutboxMessage.objects.all()} == {0}
    assert "ServiceUnavailable" in OutboxMessage.objects.all()[0].error
    assert "send from the outbox failed queue=jobs failures=1 retry_in=" in caplog.text
    pause = relay.retry_in()
    assert pause is not None
    assert 0 <= pause <= 0.1
    sqs.is_down = False
    until(lambda: not relay.send_available() and not labels())  # type: ignore[func-returns-value]
    assert sorted(sqs.labels) == [0, 1, 2]
    assert "send from the outbox recovered queue=jobs" in caplog.text
    assert relay.retry_in() is None


@pytest.mark.parametrize(
    ("code", "attempts"),
    [("AccessDenied", 1), ("QueueDoesNotExist", 1), ("KmsDisabled", 1), ("RequestThrottled", 3)],
)
def test_an_error_of_a_queue_is_backed_off_from_and_logged_once(
    sqs: Sqs, proxy: Proxy, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, code: str, attempts: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0
    )
    schedule_many("jobs", [Call("record", [n]) for n in range(50)])
    open_queue("jobs")
    relay = Relay(BackoffTimes(first_retry=0.8, longest_retry=0.8))
    sqs.failure = error(400, code)
    for _ in range(5):
        relay.send_available()
    first = proxy.counts["SendMessageBatch"]
    assert attempts <= first <= 5 * attempts  # the batches of one claim
    until(lambda: not relay.retry_in())
    relay.send_available()
    assert proxy.counts["SendMessageBatch"] == first + attempts  # one batch tries again
    assert {row.failures for row in OutboxMessage.objects.all()} == {0}
    assert [each.levelname for each in caplog.records].count("ERROR") == 1
    sqs.failure = None
    until(lambda: not relay.send_available() and not labels())  # type: ignore[func-returns-value]
    assert sorted(sqs.labels) == list(range(50))


def test_an_error_of_everybody_is_tried_once_for_all_queues(
    sqs: Sqs, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    schedule_function("jobs", "record", 1)
    fifo(2)
    relay = Relay(BackoffTimes(first_retry=0.4, longest_retry=0.4))
    sqs.failure = error(403, "ExpiredToken")
    for each in ("jobs", "fifo"):
        open_queue(each)
    for _ in range(10):
        relay.send_available()
    assert proxy.counts["SendMessageBatch"] == 1
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert line.startswith("send from the outbox failed queue='every queue' failures=1 ")
    sqs.failure = None
    until(lambda: not relay.send_available() and not labels())  # type: ignore[func-returns-value]
    assert sorted(sqs.labels) == [1, 2]
    assert relay.retry_in() is None


def test_a_queue_that_cannot_be_opened_refuses_no_message(sqs: Sqs, proxy: Proxy) -> None:
    schedule_many("jobs", [Call("record", [n]) for n in range(5)])
    proxy.spoil = lambda operation, request: error(400, "Broken")
    Relay().send_available()
    assert proxy.counts == {"GetQueueUrl": 1}
    assert {row.failures for row in OutboxMessage.objects.all()} == {0}


def test_another_queue_is_sent_meanwhile(sqs: Sqs, sqs_env: Environment, queue_name: str) -> None:
    schedule_function("jobs", "record", 1)
    sqs_env(DISPATCH_QUEUES=f"fifo={queue_name}.fifo")
    fifo(2)
    Relay().send_available()
    assert (sqs.labels, labels()) == ([2], [1])
    assert "'jobs' is not in BEANSTALK_DISPATCH_QUEUES" in OutboxMessage.objects.get().error


def test_a_message_that_sqs_refuses_waits_longer_each_time_and_keeps_no_other(
    sqs: Sqs, caplog: pytest.LogCaptureFixture
) -> None:
    sqs.refuses_entry = lambda label: label == "bad"
    for each in ("bad", "good"):
        schedule_function("jobs", "record", each)
    before = timezone.now()
    Relay().send_available()
    assert (sqs.labels, labels()) == (["good"], ["bad"])
    row = OutboxMessage.objects.get()
    assert (row.failures, row.error) == (1, "Refused")
    assert before + timedelta(seconds=1) <= row.available_at
    assert row.available_at <= timezone.now() + timedelta(seconds=2)
    assert f"refused from the outbox id={row.task_id} function=record queue=jobs" in caplog.text
    before = timezone.now()
    OutboxMessage.objects.update(failures=50, available_at=before)
    Relay().send_available()
    wait = OutboxMessage.objects.get().available_at - before
    assert 150 <= wait.total_seconds() < 330


def test_a_message_that_sqs_refuses_pauses_no_queue(
    sqs: Sqs, caplog: pytest.LogCaptureFixture
) -> None:
    sqs.refuses_entry = lambda label: label == "bad"
    relay = Relay()
    for each in ("bad", "good"):
        schedule_function("jobs", "record", each)
        relay.send_available()
    assert sqs.labels == ["good"]
    assert relay.retry_in() is None
    assert "send from the outbox failed" not in caplog.text


def test_one_message_for_which_sqs_refuses_the_request_keeps_no_other(sqs: Sqs) -> None:
    sqs.refuses_request = lambda label: label == "bad"
    for each in ("bad", "good", "better"):
        schedule_function("jobs", "record", each)
    Relay().send_available()
    assert (sorted(sqs.labels), labels()) == (["better", "good"], ["bad"])
    assert OutboxMessage.objects.get().failures == 1


@pytest.mark.parametrize("change", [{"body": "{"}, {"body": "[]"}, {"parameters": "x"}])
def test_a_row_that_was_changed_keeps_no_other(sqs: Sqs, change: dict[str, str]) -> None:
    for n in range(2):
        schedule_function("jobs", "record", n)
    OutboxMessage.objects.filter(id=OutboxMessage.objects.order_by("id")[0].id).update(**change)
    Relay().send_available()
    assert sqs.labels == [1]
    assert OutboxMessage.objects.get().failures == 1


@pytest.mark.parametrize("field", ["task_id", "function"])
def test_a_row_whose_body_is_another_message_is_not_sent_and_forges_no_line(
    sqs: Sqs, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the id of another row it would be taken for sent, or the other one for not sent."""
    schedule_function("jobs", "record", 1)
    forged = "x outcome=done\nERROR forged"
    OutboxMessage.objects.update(**{field: forged})
    Relay().send_available()
    assert sqs.labels == []
    row = OutboxMessage.objects.get()
    assert row.error == "the row was changed: its body has another id or function"
    (line,) = [each for each in caplog.messages if each.startswith("refused from the outbox")]
    assert repr(forged) in line
    assert "\n" not in line


@pytest.mark.parametrize("kind", ["entry", "request", "row"])
def test_a_fifo_group_waits_for_its_head(sqs: Sqs, kind: str) -> None:
    fifo(1, 2, 3)
    fifo("other", group="other")
    if kind == "row":
        OutboxMessage.objects.filter(fifo_group="g", id=OutboxMessage.objects.all()[0].id).update(
            body="{"
        )
    else:
        setattr(sqs, f"refuses_{kind}", lambda label: label == 1)
    Relay().send_available()
    assert OutboxMessage.objects.filter(fifo_group="g").count() == 3
    Relay().send_available()
    assert sqs.labels == ["other"]
    OutboxMessage.objects.filter(body="{").delete()
    sqs.refuses_entry = sqs.refuses_request = lambda label: False
    retry_now()
    Relay().send_available()
    assert [each for each in sqs.labels if each != "other"] == [1, 2, 3][kind == "row" :]
    assert not OutboxMessage.objects.exists()


def test_what_was_refused_is_tried_alone(sqs: Sqs) -> None:
    fifo(1, 2)
    OutboxMessage.objects.filter(id=OutboxMessage.objects.order_by("id")[0].id).update(failures=1)
    Relay().send_available()
    assert [len(each) for each in sqs.requests] == [1, 1]
    assert sqs.labels == [1, 2]


def test_a_group_is_sent_up_to_what_has_to_wait(sqs: Sqs) -> None:
    fifo(1, 2, 3)
    second = OutboxMessage.objects.order_by("id")[1].id
    later = timezone.now() + timedelta(minutes=1)
    OutboxMessage.objects.filter(id=second).update(available_at=later)
    Relay().send_available()
    assert (sqs.labels, labels()) == ([1], [2, 3])


def test_a_group_of_the_same_name_in_another_queue_does_not_wait(
    sqs: Sqs, sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"fifo={queue_name}.fifo more={queue_name}-more.fifo")
    fifo(1)
    retry = timezone.now() + timedelta(minutes=1)
    OutboxMessage.objects.update(available_at=retry)
    schedule("more", Call("record", [2], group_id="g"))
    Relay().send_available()
    assert sqs.labels == [2]


def test_a_database_that_does_not_answer_is_logged_once_a_minute(
    sqs: Sqs, no_table: None, caplog: pytest.LogCaptureFixture
) -> None:
    relay = Relay()
    for _ in range(2):
        relay.send_available()
        relay._count_waiting()
    assert caplog.text.count("the outbox cannot be read database=default error=OperationalErr") == 1


# --- claims ----------------------------------------------------------------------------------


def test_a_claim_looks_into_the_index_only_and_asks_few_questions(
    sqs: Sqs, sqs_env: Environment
) -> None:
    schedule_many("jobs", [Call("record", [n]) for n in range(5)])
    for group in range(3):
        fifo(*range(5), group=f"g{group}")
    with CaptureQueriesContext(connection) as captured:
        Relay().send_available()
    reads = [each["sql"] for each in captured if "SELECT" in each["sql"].split(" FROM ")[0]]
    with connection.cursor() as cursor:
        for statement in reads:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}")
            plan = [line[-1] for line in cursor.fetchall()]
            of_table = [line for line in plan if "beanstalk_outbox" in line or "head" in line]
            assert all(" USING " in line for line in of_table), (statement, plan)
    assert len(captured) <= 25  # for two claims, and a look that finds nothing


def test_no_group_waits_for_ever_behind_groups_that_are_never_empty(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MAX_CLAIMED", 3)
    for group in range(7):
        fifo(group, group=f"g{group}")
    heads, now = Heads(), database_now("default")
    first = OutboxMessage.objects.order_by("id")[0].id
    found = [[each - first for each in heads.find("default", "fifo", now, 2)] for _ in range(5)]
    assert found == [[0, 1], [2, 3], [4, 5], [6, 0], [1, 2]]


def test_heads_that_must_wait_keep_no_later_group_from_being_found(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MAX_CLAIMED", 3)
    monkeypatch.setattr(claims, "MAX_LOOKED_AT", 2)
    for group in range(8):
        fifo(group, group=f"g{group}")
    last = OutboxMessage.objects.order_by("-id")[0].id
    later = timezone.now() + timedelta(minutes=1)
    OutboxMessage.objects.exclude(id=last).update(available_at=later)
    heads, now = Heads(), database_now("default")
    assert heads.find("default", "fifo", now, 3) == []  # it has looked at six groups
    assert heads.find("default", "fifo", now, 3) == [last]


@pytest.mark.parametrize("timeout", [5, 60])
def test_a_claim_lasts_longer_than_three_sends(
    sqs: Sqs, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, timeout: int
) -> None:
    sqs_env(DISPATCH_SEND_TIMEOUT=timeout)
    schedule_function("jobs", "record", 1)
    lasts: list[float] = []

    def note(database: str, queue: str, ids: Any, *, now: datetime, seconds: float) -> Any:
        claimed = claim(database, queue, ids, now=now, seconds=seconds)
        assert claimed
        lasts.append((claimed.until - now).total_seconds())
        return claimed

    monkeypatch.setattr(relay_module, "claim", note)
    Relay().send_available()
    assert sqs.labels == [1]
    assert lasts[0] >= 3 * timeout + 5


def test_the_rest_of_a_delay_is_rounded_up(sqs: Sqs) -> None:
    """SQS takes whole seconds, and a task must not run early."""
    schedule("jobs", Call("record", [0], delay=600))
    due_at = timezone.now() + timedelta(seconds=99.2)
    OutboxMessage.objects.update(due_at=due_at)
    now = due_at - timedelta(seconds=98.3)
    destination = resolve("jobs", get_config())
    prepared = to_prepared(OutboxMessage.objects.get(), destination, now=now)
    assert prepared.send_parameters["DelaySeconds"] == 99


@pytest.mark.parametrize(("seconds_left", "sent"), [(61, [1, 2, 3]), (59, [1]), (-1000, [1])])
def test_no_request_begins_that_could_end_after_the_claim(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch, seconds_left: float, sent: list[int]
) -> None:
    """A send takes a minute at most."""
    fifo(1, 2, 3)
    send = relay_module._send_wave

    def send_late(destination: Destination, rows: Any, claimed: Claim) -> Any:
        monkeypatch.setattr("time.monotonic", lambda: claimed.ends_at - seconds_left)
        return send(destination, rows, claimed)

    monkeypatch.setattr(relay_module, "_send_wave", send_late)
    relay, now = Relay(), database_now("default")
    head = OutboxMessage.objects.order_by("id")[0].id
    relay._send_ids(Place("default", "fifo"), [head], now, get_config())
    monkeypatch.undo()
    assert sqs.labels == sent
    assert labels() == [each for each in (1, 2, 3) if each not in sent]


def test_what_another_has_claimed_after_the_end_of_a_claim_is_not_given_free(sqs: Sqs) -> None:
    schedule_function("jobs", "record", 1)
    row = OutboxMessage.objects.get()
    now = database_now("default")
    first = claim("default", "jobs", [row.id], now=now, seconds=10)
    second = claim("default", "jobs", [row.id], now=now + timedelta(seconds=30), seconds=10)
    assert first
    assert second
    assert first
    assert second
    assert (len(first.rows), len(second.rows)) == (1, 1)
    assert not first.rows_in("default", [row.id]).exists()
    assert second.rows_in("default", [row.id]).exists()


def test_a_row_whose_id_another_queue_had_before_is_sent_to_its_own(sqs: Sqs) -> None:
    """After a flush a table begins at 1 again, while a process remembers the old ids."""
    schedule_function("jobs", "record", 1)
    row = OutboxMessage.objects.get()
    remembered = Place("default", "fifo", ids=[row.id])
    relay = Relay()
    relay._send_ids(remembered, [row.id], database_now("default"), get_config())
    assert (relay.sent, sqs.labels) == (0, [])
    retry_now()
    relay.send_available()
    assert sqs.labels == [1]


def test_the_migrations_go_both_ways(sqs: Sqs) -> None:
    for target in ("0001", "0002"):
        call_command("migrate", "beanstalk_outbox", target, verbosity=0)
        schedule_function("jobs", "record", target)
        Relay().send_available()
    assert sqs.labels == ["0001", "0002"]


# --- several relays --------------------------------------------------------------------------


def test_what_another_relay_has_claimed_is_left_alone(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second relay reads the same rows, and is slower."""
    fifo(1, 2)
    schedule_function("jobs", "record", 3)
    second = Relay()

    def claim_late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(relay_module, "claim", claim)
        second.send_available()
        return claim(*args, **kwargs)

    monkeypatch.setattr(relay_module, "claim", claim_late)
    first = Relay()
    first.send_available()
    assert (first.sent, second.sent) == (0, 3)
    assert sorted(sqs.labels) == [1, 2, 3]


def test_a_deadlock_with_another_relay_is_a_claim_that_is_lost(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on MariaDB: 1020, "Record has changed since last read"."""
    schedule_function("jobs", "record", 1)
    update = QuerySet.update

    def update_once(*args: Any, **values: Any) -> int:
        monkeypatch.setattr(QuerySet, "update", update)
        raise OperationalError(1020)

    monkeypatch.setattr(QuerySet, "update", update_once)
    Relay().send_available()
    assert (sqs.labels, caplog.messages) == ([], [])
    Relay().send_available()
    assert sqs.labels == [1]


def test_a_delete_is_tried_again(sqs: Sqs, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule_function("jobs", "record", 1)
    delete, tries = QuerySet.delete, iter(range(2))

    def delete_at_last(self: Any) -> Any:
        if next(tries, None) is not None:
            raise OperationalError("database is locked")
        return delete(self)

    monkeypatch.setattr(QuerySet, "delete", delete_at_last)
    Relay().send_available()
    assert (sqs.labels, labels()) == ([1], [])


def test_a_delete_that_never_succeeds_is_logged(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> Any:
        raise OperationalError("database is locked")

    schedule_function("jobs", "record", 1)
    with monkeypatch.context() as patch:
        patch.setattr(QuerySet, "delete", fail)
        Relay().send_available()
    assert labels() == [1]
    assert "error=OperationalError: database is locked" in caplog.text


def test_a_relay_that_was_killed_loses_its_claim_after_a_time(sqs: Sqs) -> None:
    fifo(1, 2)
    head = OutboxMessage.objects.order_by("id")[0].id
    claimed = claim("default", "fifo", [head], now=database_now("default"), seconds=60)
    assert claimed
    assert claimed
    assert len(claimed.rows) == 2
    Relay().send_available()
    assert sqs.labels == []
    retry_now()
    Relay().send_available()
    assert sqs.labels == [1, 2]


# --- what it reports -------------------------------------------------------------------------


@pytest.fixture
def announced() -> Iterator[list[str]]:
    found: list[str] = []

    def receiver(task_id: str, **_: Any) -> None:
        assert not transaction.get_connection().in_atomic_block
        found.append(task_id)

    task_scheduled.connect(receiver)
    yield found
    task_scheduled.disconnect(receiver)


def test_the_signal_is_sent_when_sqs_has_taken_the_message(sqs: Sqs, announced: list[str]) -> None:
    task_id = schedule_function("jobs", "record", 1)
    assert announced == []
    Relay().send_available()
    assert announced == [task_id]


def test_it_runs_until_it_is_stopped_and_counts_what_waits(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "POLL_SECONDS", 0.01)
    schedule_function("jobs", "record", 1)
    sqs.is_down = True
    relay = Relay(TIMES)
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(seconds=90))
    rounds = iter(range(3))
    relay.run(lambda: next(rounds, None) is None)
    assert (relay.sent, relay.waiting) == (0, 1)
    assert relay.oldest_seconds == pytest.approx(90, abs=20)


def test_as_a_periodic_task_it_ends_when_nothing_is_left(sqs: Sqs) -> None:
    schedule_function("jobs", "record", 1)
    send_waiting()
    assert (sqs.labels, labels()) == ([1], [])


def test_as_a_periodic_task_it_ends_in_time(sqs: Sqs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "PERIODIC_SECONDS", 0)
    schedule_function("jobs", "record", 1)
    send_waiting()
    assert labels() == [1]


def test_an_error_of_a_database_is_not_raised_in_the_middle(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SQS has the message, and its row stays: it is sent twice rather than lost."""

    def fail(*args: object) -> None:
        raise OperationalError("the disk is full\nDETAIL: a-secret")

    schedule_function("jobs", "record", 1)
    monkeypatch.setattr(relay_module, "_delete_rows", fail)
    Relay().send_available()
    assert (sqs.labels, labels()) == ([1], [1])
    assert "error=OperationalError: the disk is full" in caplog.text
    assert "a-secret" not in caplog.text


def test_the_key_of_a_unique_call_is_asked_for_when_it_is_sent(
    sqs: Sqs, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_LEASE_CACHE="default", DISPATCH_RESULTS="default")
    caches["default"].clear()
    first, second = schedule_many("jobs", [Call("record", [n], unique="k") for n in range(2)])
    assert first != second
    Relay().send_available()
    assert [body_of(each)["id"] for request in sqs.requests for each in request] == [first]
    assert [get_result(each).superseded_by for each in (first, second)] == [None, first]
    assert not OutboxMessage.objects.exists()
