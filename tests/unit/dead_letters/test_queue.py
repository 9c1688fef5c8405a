from __future__ import annotations

import time
from typing import Any

import pytest

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.dead_letters import sweep
from beanstalk_dispatch.dead_letters.dead_letter import Filters
from beanstalk_dispatch.dead_letters.queue import DeadLetterQueue
from beanstalk_dispatch.dead_letters.sweep import Steps, SweepOptions, SweepReport
from beanstalk_dispatch.exceptions import SendError, UnknownQueue
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.messages.outcomes import Outcome, Result, Successor
from beanstalk_dispatch.sqs.administration import get_attributes
from beanstalk_dispatch.sqs.opening import open_beside, open_queue
from tests.conftest import Environment
from tests.dead_letters import KEY, Dead, failing, receive_all
from tests.proxy import Proxy, error
from tests.runs import deliver


def finish(steps: Steps) -> SweepReport:
    *_, report = steps
    return report


# --- looking ---------------------------------------------------------------------------------


def test_a_sample_says_how_much_of_the_queue_it_is(dead: Dead) -> None:
    dead.sent_many(25)
    sample = dead.open().sample(limit=12)
    assert (len(sample.dead_letters), sample.looked_at, sample.about) == (12, 12, 25)
    assert sample.still_hidden == 0
    assert len(dead.ids()) == 25


def test_a_sample_has_what_matches_and_the_newest_first(dead: Dead) -> None:
    for number in range(3):
        dead.sent(number=number, at=time.time() - 100 + number)
    dead.moved()
    sample = dead.open().sample(Filters(functions=frozenset({"fail"})))
    assert [each.id for each in sample.dead_letters] == ["fail-2", "fail-1", "fail-0"]
    assert sample.looked_at == 4


def test_a_sample_ends_when_it_is_asked_to(dead: Dead) -> None:
    dead.sent_many(11)
    assert dead.open().sample(is_stopping=lambda: True).looked_at == 0


def test_the_number_of_letters_may_be_unknown(dead: Dead, spoilt: Proxy) -> None:
    dead_letters = dead.open()
    spoilt.spoil = failing("GetQueueAttributes", status=403)
    assert dead_letters.sample().about is None


def test_a_dead_letter_is_found_by_either_id(dead: Dead) -> None:
    dead.sent_many(15)
    dead_letters = dead.open()
    found = dead_letters.find("fail-7")
    assert found
    again = dead_letters.find(found.message_id)
    assert again
    assert again.id == "fail-7"
    assert dead_letters.find("nothing") is None
    assert len(dead.ids()) == 15


# --- redriving -------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [None, KEY])
def test_letters_of_both_kinds_go_back_to_their_queue(
    dead: Dead, sqs_env: Environment, keys: str | None
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=keys)
    dead.sent(number=1)
    dead.moved(id="moved")
    report = finish(dead.open().redrive())
    assert (report.done, report.looked_at, report.failed, report.about) == (2, 2, 0, 2)
    assert report.is_complete
    assert dead.ids() == []
    assert dead.ids(dead.source) == ["fail-1", "moved"]


def test_a_dead_letter_that_sqs_moved_goes_back_as_it_was(dead: Dead) -> None:
    dead.moved(id="moved", attempt=2)
    (before,) = receive_all(dead.queue)
    finish(dead.open().redrive())
    (after,) = receive_all(dead.source)
    assert after.body == before.body
    assert after.message_attributes == {"tenant": "customer-12"}
    assert after.sent_attributes["tenant"]["DataType"] == "String"


def test_the_attempts_continue_to_count(dead: Dead) -> None:
    dead.sent()
    finish(dead.open().redrive())
    (received,) = receive_all(dead.source)
    message = Message.decode(received.body, queue=dead.source_name)
    assert (message.id, message.attempt, message.counted_attempt) == ("fail-0", 4, 4)


@pytest.mark.parametrize("keys", [None, KEY])
def test_attempts_that_are_reset_count_from_here(
    dead: Dead, sqs_env: Environment, keys: str | None
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=keys)
    dead.sent()
    finish(dead.open().redrive(reset_attempts=True))
    (received,) = receive_all(dead.source)
    message = Message.decode(received.body, queue=dead.source_name, keys=[keys] if keys else [])
    assert (message.id, message.attempt, message.counted_attempt) == ("fail-0", 4, 1)
    assert message.not_before is None


def test_a_reset_dead_letter_is_not_too_old(dead: Dead, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=KEY, DISPATCH_MAX_AGE="1h")
    dead.sent()
    finish(dead.open().redrive(reset_attempts=True))
    (received,) = receive_all(dead.source)
    message = Message.decode(received.body, queue=dead.source_name, keys=[KEY])
    assert message.not_before == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("reset", [False, True])
def test_a_dead_letter_that_goes_back_is_not_a_duplicate_for_the_lease(
    dead: Dead, sqs_env: Environment, reset: bool
) -> None:
    """The lease takes an attempt that is not above the last one for a duplicate."""
    assert dead.source.name
    sqs_env(
        WORKER=True,
        DISPATCH_QUEUES=f"jobs={dead.source_name} dead={dead.name}",
        DISPATCH_DEAD_LETTER_QUEUE="dead",
        DISPATCH_LEASE_CACHE="default",
    )
    body = dead.body("fail", id=f"leased-{reset}", attempt=2, options={"max_retries": 1})
    assert execute(dead, body).successor is Successor.DEAD_LETTER
    assert finish(dead.open().redrive(reset_attempts=reset)).done == 1
    (received,) = dead.source.receive(count=1, wait=0, visibility=60)
    result = execute(dead, received.body)
    assert result.outcome is (Outcome.RETRY if reset else Outcome.FAILED)


def execute(dead: Dead, body: str) -> Result:
    return deliver(body, Delivery(queue=dead.source_name))


def test_only_what_matches_goes_back(dead: Dead) -> None:
    dead.sent_many(15)
    dead.sent_many(12, function="loop")
    report = finish(dead.open().redrive(Filters(functions=frozenset({"loop"}))))
    assert (report.done, report.looked_at) == (12, 27)
    assert dead.ids(dead.source) == sorted(f"loop-{number}" for number in range(12))
    assert dead.ids() == sorted(f"fail-{number}" for number in range(15))


def test_a_run_by_ids_ends_when_it_has_them(dead: Dead) -> None:
    dead.sent_many(30)
    (first,) = dead.open().sample(limit=1).dead_letters
    report = finish(dead.open().redrive(Filters(ids=frozenset({first.id}))))
    assert report.done == 1
    assert report.looked_at < 30
    assert len(dead.ids()) == 29


def test_ids_that_no_dead_letter_has_are_reported(dead: Dead) -> None:
    dead.sent_many(2)
    report = finish(dead.open().redrive(Filters(ids=frozenset({"fail-1", "fail-9"}))))
    assert (report.done, report.not_found, report.is_complete) == (1, ["fail-9"], False)


def test_a_run_ends_at_its_limit(dead: Dead) -> None:
    dead.sent_many(5)
    assert finish(dead.open().redrive(options=SweepOptions(limit=3))).done == 3
    assert (len(dead.ids()), len(dead.ids(dead.source))) == (2, 3)


def test_a_dry_run_changes_nothing_and_finds_what_would_stay(dead: Dead) -> None:
    dead.sent_many(2)
    dead.sent(number=2, queue="elsewhere")
    report = finish(dead.open().redrive(options=SweepOptions(dry_run=True)))
    assert (report.done, report.failed) == (2, 1)
    assert (len(dead.ids()), len(dead.ids(dead.source))) == (3, 0)


def test_a_rate_makes_a_run_wait(dead: Dead) -> None:
    dead.sent_many(3)
    started = time.monotonic()
    assert finish(dead.open().redrive(options=SweepOptions(rate=10, limit=3))).done == 3
    assert time.monotonic() - started >= 0.2


def test_at_a_low_rate_few_letters_are_hidden_at_a_time(dead: Dead) -> None:
    dead.sent_many(10)
    steps = dead.open().redrive(options=SweepOptions(rate=0.1, hide=30))
    assert next(report for report in steps if report.done)
    steps.close()
    assert len(dead.ids()) == 9
    assert get_attributes(dead.queue).in_flight == 0


def test_a_run_that_is_closed_leaves_nothing_hidden(dead: Dead) -> None:
    dead.sent_many(25)
    steps = dead.open().redrive(Filters(exceptions=frozenset({"ValueError"})))
    while (report := next(steps)).done < 4:
        pass
    steps.close()
    assert report.done == 4
    assert (len(dead.ids()), len(dead.ids(dead.source))) == (21, 4)


def test_a_dead_letter_that_is_about_to_be_visible_is_left(dead: Dead) -> None:
    dead.sent_many(1)
    report = finish(dead.open().redrive(options=SweepOptions(hide=1, limit=1)))
    assert (report.done, report.failed) == (0, 0)


def test_a_dead_letter_that_comes_again_after_it_was_sent_is_not_sent_again(
    dead: Dead, spoilt: Proxy
) -> None:
    dead.sent_many(1)
    ignored: list[str] = []

    def spoil(operation: str, request: dict[str, Any]) -> Any:
        """SQS says that the message is deleted, but delivers it again."""
        if operation == "DeleteMessageBatch" and not ignored:
            ignored.append(operation)
            (entry,) = request["Entries"]
            dead.queue.client.change_message_visibility(
                QueueUrl=dead.queue.url, ReceiptHandle=entry["ReceiptHandle"], VisibilityTimeout=0
            )
            return 200, {"Successful": [{"Id": "0"}], "Failed": []}
        return None

    spoilt.spoil = spoil
    report = finish(dead.open().redrive(Filters(exceptions=frozenset({"ValueError"}))))
    assert (report.done, ignored) == (1, ["DeleteMessageBatch"])
    assert (dead.ids(), dead.ids(dead.source)) == ([], ["fail-0"])


# --- trouble ---------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["SendMessage", "DeleteMessageBatch", "ReceiveMessage"])
def test_a_server_that_fails_for_a_while_costs_no_letter(
    dead: Dead, spoilt: Proxy, operation: str
) -> None:
    dead.sent_many(12)
    spoilt.spoil = failing(operation, after=1, times=8)
    report = finish(dead.open().redrive())
    assert (report.done, report.error, report.waiting_for) == (12, "", "")
    assert dead.ids() == []
    assert dead.ids(dead.source) == sorted(f"fail-{number}" for number in range(12))


@pytest.mark.parametrize("operation", ["SendMessage", "ReceiveMessage"])
def test_a_server_that_fails_for_longer_ends_the_run(
    dead: Dead, spoilt: Proxy, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_PATIENCE_SECONDS", 0)
    dead.sent_many(12)
    spoilt.spoil = failing(operation, after=1)
    report = finish(dead.open().redrive())
    assert f"{operation} on" in report.error
    assert not report.is_complete
    spoilt.spoil = failing("nothing")
    assert len(dead.ids()) + len(dead.ids(dead.source)) == 12
    finish(dead.open().redrive())
    assert dead.ids(dead.source) == sorted(f"fail-{number}" for number in range(12))


@pytest.mark.parametrize("is_final", [True, False])
def test_a_dead_letter_that_cannot_be_deleted_ends_the_run_and_is_named(
    dead: Dead, spoilt: Proxy, is_final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_PATIENCE_SECONDS", 0.05)
    dead.sent_many(3)
    failed = [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": is_final}]
    spoilt.spoil = lambda operation, request: (
        (200, {"Successful": [], "Failed": failed}) if operation == "DeleteMessageBatch" else None
    )
    report = finish(dead.open().redrive())
    (name,) = report.not_deleted
    assert report.error == f"{name} could not be deleted: ReceiptHandleIsInvalid"
    assert (len(dead.ids()), dead.ids(dead.source)) == (3, [name])


def test_a_missing_permission_ends_the_run(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(3)
    spoilt.spoil = failing("SendMessage", status=403)
    report = finish(dead.open().redrive())
    assert "the permission sqs:SendMessage is missing" in report.error
    assert (report.done, len(dead.ids())) == (0, 3)


def test_a_dead_letter_that_sqs_refuses_stays_and_the_others_go(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(3)

    def spoil(operation: str, request: dict[str, Any]) -> Any:
        is_refused = operation == "SendMessage" and "fail-1" in request["MessageBody"]
        return error(400, "InvalidMessageContents") if is_refused else None

    spoilt.spoil = spoil
    report = finish(dead.open().redrive())
    assert (report.done, report.failed, report.error) == (2, 1, "")
    assert "InvalidMessageContents" in report.reasons["fail-1"]
    assert dead.ids() == ["fail-1"]


def test_only_some_of_the_letters_that_stay_are_listed(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "MAX_LISTED", 1)
    for number in range(3):
        dead.sent(number=number, queue="elsewhere")
    report = finish(dead.open().redrive())
    assert (report.failed, len(report.reasons)) == (3, 1)


# --- discarding and purging ------------------------------------------------------------------


def test_what_matches_is_deleted(dead: Dead) -> None:
    dead.sent_many(3)
    dead.moved(id="moved")
    dead_letters = dead.open()
    report = finish(dead_letters.discard(Filters(exceptions=frozenset({"moved by SQS"}))))
    assert (report.done, dead.ids(dead.source)) == (1, [])
    assert dead.ids() == ["fail-0", "fail-1", "fail-2"]
    assert finish(dead_letters.discard(options=SweepOptions(dry_run=True))).done == 3
    assert finish(dead_letters.discard()).done == 3
    assert dead.ids() == []


def test_a_discard_deletes_ten_at_a_time(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(25)
    report = finish(dead.open().discard(options=SweepOptions(limit=22)))
    assert (report.done, len(dead.ids())) == (22, 3)
    assert spoilt.counts["DeleteMessageBatch"] == 3


def test_a_discard_that_is_refused_counts_what_is_deleted(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(12)
    spoilt.spoil = failing("DeleteMessageBatch", after=1, status=403)
    report = finish(dead.open().discard())
    assert (report.done, len(report.not_deleted)) == (10, 2)
    assert "could not be deleted: DeleteMessageBatch" in report.error
    assert len(dead.ids()) == 2


def test_a_purge_deletes_everything(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(3)
    dead_letters = dead.open()
    dead_letters.purge()
    assert dead.ids() == []
    spoilt.spoil = failing("PurgeQueue", status=403)
    with pytest.raises(SendError, match="AccessDenied"):
        dead_letters.purge()


# --- where dead letters go -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "reason"),
    [
        ("elsewhere", "its queue elsewhere has no redrive policy that names"),
        (5, "SQS does not say which queue it came from"),
        (None, "it came from this queue itself"),
    ],
)
def test_a_dead_letter_for_another_queue_stays(dead: Dead, queue: object, reason: str) -> None:
    dead.sent(queue=dead.name if queue is None else queue)
    report = finish(dead.open().redrive())
    assert report.reasons["fail-0"].startswith(reason)
    assert dead.ids() == ["fail-0"]


def test_a_dead_letter_of_an_alias_goes_there(
    dead: Dead, sqs_env: Environment, queue_name: str
) -> None:
    assert dead.source.name
    sqs_env(
        DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other dead={dead.name}",
        DISPATCH_DEAD_LETTER_QUEUE="dead",
    )
    dead.sent(queue=f"{queue_name}-other")
    assert finish(dead.open().redrive()).done == 1
    assert len(receive_all(open_queue("other"))) == 1


@pytest.mark.parametrize("keys", [None, KEY])
def test_letters_can_be_sent_to_another_queue_which_signs_them_for_it(
    dead: Dead, sqs_env: Environment, queue_name: str, keys: str | None
) -> None:
    assert dead.source.name
    sqs_env(
        DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other", DISPATCH_SIGNING_KEYS=keys
    )
    dead.sent()
    dead.moved(id="moved")
    dead_letters = dead.open()
    assert finish(dead_letters.redrive(to="other")).done == 2
    for each in receive_all(open_queue("other")):
        assert Message.decode(each.body, queue=f"{queue_name}-other", keys=[keys] if keys else [])
    with pytest.raises(UnknownQueue, match=f"'no' is not in .*; source queues: {queue_name}"):
        next(dead_letters.redrive(to="no"))


@pytest.mark.parametrize("source", ["eu-west-1/999999999999", "eu-west-1/123456789012", None])
def test_a_dead_letter_that_goes_to_another_account_is_signed_for_it(
    dead: Dead, sqs_env: Environment, source: str | None
) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    dead.moved()
    dead_letters = dead.open()
    dead_letters.queue.location = "eu-west-1/123456789012"
    open_beside(dead_letters.queue, dead.source_name).location = source
    assert finish(dead_letters.redrive()).done == 1
    (received,) = receive_all(dead.source)
    is_signed_again = '"location":"eu-west-1/999999999999"' in received.body
    assert is_signed_again is (source == "eu-west-1/999999999999")


def test_a_source_queue_is_a_target_by_its_own_name(dead: Dead) -> None:
    dead.sent(queue="elsewhere")
    assert finish(dead.open().redrive(to=dead.source_name)).done == 1
    assert len(receive_all(dead.source)) == 1


def test_a_signed_message_is_not_changed_without_keys(dead: Dead, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    dead.sent()
    sqs_env(DISPATCH_SIGNING_KEYS=None)
    report = finish(dead.open().redrive(reset_attempts=True))
    assert report.reasons["fail-0"].startswith("it is signed, so it can be changed only with")
    assert finish(dead.open().redrive()).done == 1


def test_a_dead_letter_that_is_not_a_message_goes_back_but_is_not_changed(dead: Dead) -> None:
    dead.queue.send("{", {})
    report = finish(dead.open().redrive(reset_attempts=True))
    assert "not JSON" in next(iter(report.reasons.values()))
    assert finish(dead.open().redrive()).done == 1


def test_a_forged_message_is_not_signed(dead: Dead, sqs_env: Environment) -> None:
    dead.moved(id="forged")
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    report = finish(dead.open().redrive(reset_attempts=True))
    assert report.reasons["forged"].startswith("not signed; set BEANSTALK_DISPATCH_SIGNING_KEYS")


def test_a_message_of_another_account_is_not_signed_again(dead: Dead, sqs_env: Environment) -> None:
    """A worker refuses it, so a redrive must not make it one that runs."""
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    elsewhere = "eu-west-1/999999999999"
    captured = Message(function="record", id="captured")
    body = captured.encode(queue=dead.source_name, keys=[KEY], location=elsewhere)
    dead.queue.send(body, {})
    dead_letters = dead.open()
    dead_letters.queue.location = "eu-west-1/123456789012"
    report = finish(dead_letters.redrive(reset_attempts=True))
    assert report.reasons["captured"].startswith(f"signed for a queue in {elsewhere!r}")


def test_a_letter_beside_the_place_where_its_queue_was_is_redriven(
    dead: Dead, sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue has another region now, and the package's dead letter says only the name."""
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    before, now = "eu-west-1/123456789012", "eu-central-1/123456789012"
    monkeypatch.setattr(Config, "location_of", lambda config, name: now)
    for task_id, place in {"left": before, "captured": "eu-west-1/999999999999"}.items():
        body = Message(function="record", id=task_id).encode(
            queue=dead.source_name, keys=[KEY], location=place
        )
        reason = {"id": task_id, "attempts": 1, "queue": dead.source_name}
        dead.queue.send(wrap(body, reason, queue=dead.source_name, keys=[KEY]), {})
    dead_letters = dead.open()
    dead_letters.queue.location = before
    signatures = {each.id: each.signature for each in dead_letters.sample().dead_letters}
    assert signatures.pop("left") == "valid"
    report = finish(dead_letters.redrive(to=dead.source_name, reset_attempts=True))
    assert report.done == 1
    assert report.reasons.keys() == signatures.keys() == {"captured"}


def test_a_message_of_the_old_format_keeps_it(dead: Dead, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_MESSAGE_FORMAT="base64")
    text = Message(function="record").encode(queue=dead.source_name, legacy=True)
    dead.queue.send(text, {})
    assert finish(dead.open().redrive(reset_attempts=True)).done == 1
    (received,) = receive_all(dead.source)
    assert received.body == text


@pytest.mark.slow
def test_on_a_fifo_queue_a_dead_letter_keeps_its_group(
    sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}.fifo")
    source = open_queue("jobs")
    dead_letters = open_beside(source, f"{queue_name}-dead-letter.fifo")
    body = Message(function="record", id="the-id").encode(queue=source.name)
    dead_letters.send(body, {"MessageGroupId": "group", "MessageDeduplicationId": "the-id"})
    source.send(body, {"MessageGroupId": "group", "MessageDeduplicationId": "the-id"})
    (first,) = source.receive(count=10, wait=0, visibility=60)
    source.delete_batch([first])
    assert finish(DeadLetterQueue.open(dead_letters.name).redrive()).done == 1
    (received,) = source.receive(count=10, wait=0, visibility=60)  # not taken for the first one
    assert received.attributes["MessageGroupId"] == "group"
    assert received.body == body
