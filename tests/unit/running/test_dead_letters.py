from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.signing import Signer

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.exceptions import BadSignature, MalformedMessage, UnknownQueue
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running import dead_letters
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from tests.conftest import Environment
from tests.jobs import calls
from tests.proxy import Proxy, error
from tests.runs import deliver


@pytest.fixture
def dead(sqs_env: Environment, queue_name: str) -> Environment:
    calls.clear()
    sqs_env(
        DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead",
        DISPATCH_DEAD_LETTER_QUEUE="dead",
    )
    open_queue("dead")
    return sqs_env


def run(body: str, *, queue: str = "q", **more: Any) -> Result:
    return deliver(body, Delivery(queue=queue, message_id="from-sqs", **more))


def letters() -> list[dict[str, Any]]:
    received = open_queue("dead").receive(count=10, wait=0, visibility=30)
    return [json.loads(each.body) for each in received]


def body(function: str, *args: Any, queue: str = "q", **members: Any) -> str:
    return Message(function=function, args=args, **members).encode(queue=queue)


def test_a_message_of_the_dead_letter_queue_is_not_sent_there_again(
    dead: Environment, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = f"{queue_name}-dead"
    result = run(body("fail", "no", queue=own, attempt=3, options={"max_retries": 2}), queue=own)
    assert (result.outcome, result.is_acknowledged) == (Outcome.FAILED, False)
    advice = "give BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE another queue"
    assert f"error=the message was received from {own} itself; {advice}" in caplog.text
    assert letters() == []


def test_no_call_goes_to_the_dead_letter_queue(dead: Environment) -> None:
    with pytest.raises(
        UnknownQueue, match="'dead' is BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE, from wh"
    ):
        schedule_function("dead", "record", 1)


def test_spent_retries_are_a_dead_letter_with_the_reason(
    dead: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    text = body("fail", "the reason", id="the-id", attempt=3, options={"max_retries": 2})
    result = run(text, receive_count=4)
    assert (result.outcome, result.is_acknowledged) == (Outcome.FAILED, True)
    assert "outcome=failed" in caplog.text
    assert "dead_letter_queue=dead" in caplog.text
    (letter,) = letters()
    reason = letter["dead_letter"]
    assert letter["body"] == text
    assert reason["outcome"] == "failed"
    assert reason["exception"] == "ValueError: the reason"
    assert "Traceback (most recent call last)" in reason["traceback"]
    assert "in fail" in reason["traceback"]
    assert (reason["attempts"], reason["receive_count"]) == (3, 4)
    assert (reason["id"], reason["function"], reason["queue"]) == ("the-id", "fail", "q")
    assert reason["at"] > 1.7e9


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("{", "malformed"),
        ("", "malformed"),
        (body("nowhere"), "unknown-function"),
    ],
)
def test_what_can_never_run_is_a_dead_letter(dead: Environment, text: str, outcome: str) -> None:
    result = run(text)
    assert (result.outcome, result.is_acknowledged) == (outcome, True)
    (letter,) = letters()
    assert letter["body"] == text
    assert letter["dead_letter"]["outcome"] == outcome
    assert letter["dead_letter"]["id"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyError


def test_an_error_without_a_text_has_its_name() -> None:
    assert dead_letters._exception_string(Unspeakable()) == "Unspeakable"


def test_bytes_that_are_no_text_are_a_dead_letter(dead: Environment) -> None:
    result = deliver(b"\xff{", Delivery(queue="q"))
    assert (result.outcome, result.is_acknowledged) == (Outcome.MALFORMED, True)
    (letter,) = letters()
    assert letter["body"] == "\ufffd{"


def test_a_periodic_task_that_is_not_listed_is_a_dead_letter(dead: Environment) -> None:
    assert run("", task_name="record").outcome is Outcome.NOT_ALLOWED
    (letter,) = letters()
    assert letter["dead_letter"]["function"] == "record"


def test_a_message_whose_key_was_removed_too_early_is_left_to_sqs(dead: Environment) -> None:
    old, new = "the-old-key-of-the-tests", "the-new-key-of-the-tests"
    dead(DISPATCH_SIGNING_KEYS=new)
    text = Message(function="record").encode(queue="q", keys=[old])
    for receive_count, hidden in ((1, 10), (2, 20), (9, 900), (10**9, 900)):
        result = run(text, receive_count=receive_count)
        assert (result.outcome, result.is_acknowledged) == (Outcome.BAD_SIGNATURE, False)
        assert (result.retry_after, result.is_final) == (hidden, False)
    assert letters() == []
    dead(DISPATCH_SIGNING_KEYS=f"{new} {old}")
    assert run(text).outcome is Outcome.DONE


def test_failures_that_sqs_redelivers_are_none(dead: Environment) -> None:
    assert not run(body("fail")).is_acknowledged
    assert letters() == []


def test_without_such_a_queue_it_is_redelivered(dead: Environment) -> None:
    dead(DISPATCH_DEAD_LETTER_QUEUE=None)
    assert not run("{").is_acknowledged


@pytest.mark.parametrize("on_failure", ["redeliver", "acknowledge"])
def test_what_the_queue_does_not_take_is_not_acknowledged(
    dead: Environment, proxy: Proxy, on_failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    dead(DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_ON_FAILURE=on_failure)
    proxy.spoil = lambda operation, request: (
        error(403, "AccessDenied") if operation == "SendMessage" else None
    )
    result = run(body("fail", id="the-id", options={"max_retries": 0}))
    assert (result.outcome, result.is_acknowledged) == (Outcome.FAILED, False)
    assert "dead letter not sent id=the-id queue=dead error=SendMessage on" in caplog.text


def test_one_too_large_for_sqs_is_not_acknowledged(dead: Environment) -> None:
    text = body("fail", '"' * 300_000, options={"max_retries": 0})
    assert len(text) < MAX_MESSAGE_BYTES
    assert not run(text).is_acknowledged


def test_what_comes_from_the_dead_letter_queue_does_not_go_back_there(dead: Environment) -> None:
    result = run("{", queue=open_queue("dead").name)
    assert not result.is_acknowledged
    assert letters() == []


def test_in_the_calling_process_there_is_none(dead: Environment) -> None:
    dead(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    assert not run("{").is_acknowledged
    assert letters() == []


def test_a_fifo_queue_takes_them_too(dead: Environment, queue_name: str) -> None:
    dead(DISPATCH_QUEUES=f"dead={queue_name}-dead.fifo")
    assert run("{").is_acknowledged
    assert len(letters()) == 1


# --- put back ---


@pytest.mark.parametrize("keys", [[], ["key"]])
def test_put_back_on_its_queue_it_runs(keys: list[str]) -> None:
    text = Message(function="f", args=[1], id="i", attempt=3).encode(queue="q", keys=keys)
    letter = wrap(text, {"attempts": 3, "id": "i"}, queue="q", keys=keys)
    message = Message.decode(letter, queue="q", keys=keys, default_id="another")
    assert (message.function, message.args, message.id, message.attempt) == ("f", [1], "i", 4)


def test_a_legacy_message_keeps_its_id() -> None:
    text = Message(function="f").encode(queue="q", legacy=True)
    letter = wrap(text, {"attempts": 1, "id": "from-sqs"}, queue="q")
    assert Message.decode(letter, queue="q", default_id="another").id == "from-sqs"
    letter = wrap(text, {"attempts": 1, "id": None}, queue="q")
    assert Message.decode(letter, queue="q").function == "f"


def test_a_dead_letter_is_not_wrapped_again() -> None:
    letter = wrap("{", {"attempts": 1, "id": None}, queue="q", keys=["a-key-of-the-tests"])
    again = wrap(letter, {"attempts": 2, "id": None}, queue="q")
    assert json.loads(again)["body"] == "{"


def test_a_signed_letter_does_not_vouch_for_what_is_in_it() -> None:
    forged = Message(function="f").encode(queue="q")
    letter = wrap(forged, {"attempts": 1, "id": None}, queue="q", keys=["a-key-of-the-tests"])
    with pytest.raises(BadSignature, match="not signed"):
        Message.decode(letter, queue="q", keys=["a-key-of-the-tests"])


@pytest.mark.parametrize("keys_of_the_stranger", [(), ("a-key-of-a-stranger",)])
def test_a_letter_of_a_stranger_is_refused_again_when_it_is_put_back(
    dead: Environment, keys_of_the_stranger: tuple[str, ...]
) -> None:
    """In it is a message that our key has signed, and that has run once."""
    dead(DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    signed = Message(function="record", args=[1]).encode(queue="q", keys=["a-key-of-the-tests"])
    reason = {"attempts": 7, "id": "i"}
    text = wrap(signed, reason, queue="q", keys=keys_of_the_stranger)
    for _ in range(3):
        assert run(text).outcome is Outcome.BAD_SIGNATURE
        text = wrap(text, reason, queue="q", keys=["a-key-of-the-tests"])
    assert calls == []
    assert run(signed).outcome is Outcome.DONE


def test_a_letter_whose_key_was_away_runs_when_the_key_is_there_again(dead: Environment) -> None:
    old, new = "the-old-key-of-the-tests", "the-new-key-of-the-tests"
    signed = Message(function="record", args=[1], id="i").encode(queue="q", keys=[old])
    text = wrap(signed, {"attempts": 2, "id": "i"}, queue="q", keys=[old])
    dead(DISPATCH_SIGNING_KEYS=new)
    for _ in range(3):
        assert run(text).outcome is Outcome.BAD_SIGNATURE
        text = wrap(text, {"attempts": 2, "id": "i"}, queue="q", keys=[new])
    dead(DISPATCH_SIGNING_KEYS=f"{new} {old}")
    assert Message.decode(text, queue="q", keys=[new, old]).attempt == 3
    assert run(text).outcome is Outcome.DONE
    assert calls == [((1,), {})]


def test_an_unsigned_letter_is_refused() -> None:
    signed = Message(function="f").encode(queue="q", keys=["a-key-of-the-tests"])
    letter = wrap(signed, {"attempts": 1, "id": None}, queue="q")
    with pytest.raises(BadSignature, match="not signed"):
        Message.decode(letter, queue="q", keys=["a-key-of-the-tests"])
    resigned = Signer(key="a-key-of-the-tests", salt="beanstalk_dispatch.message.q").sign(letter)
    assert Message.decode(resigned, queue="q", keys=["a-key-of-the-tests"]).function == "f"


@pytest.mark.parametrize(
    "letter",
    [
        {"dead_letter": 5, "body": "{}"},
        {"dead_letter": {"attempts": 1}, "body": 5},
        {"dead_letter": {"attempts": "1"}, "body": "{}"},
        {"dead_letter": {"attempts": 0}, "body": "{}"},
        {"dead_letter": {}, "body": "{}"},
    ],
)
def test_what_only_looks_like_a_dead_letter_is_malformed(letter: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage, match="not a dead letter"):
        Message.decode(json.dumps(letter), queue="q")


def test_a_dead_letter_in_a_dead_letter_is_malformed() -> None:
    inner = json.dumps({"dead_letter": {"attempts": 1}, "body": "{}"})
    outer = json.dumps({"dead_letter": {"attempts": 1}, "body": inner})
    with pytest.raises(MalformedMessage, match="function"):
        Message.decode(outer, queue="q")
