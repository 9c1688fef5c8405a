from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.dead_letters.dead_letter import (
    MOVED_BY_SQS,
    Filters,
    ReceivedDeadLetter,
    dead_letter_of,
    grouped,
    parse_since,
)
from beanstalk_dispatch.messages.message import Message, wrap
from tests.conftest import Environment
from tests.dead_letters import KEY
from tests.workers import messages

REASON: dict[str, Any] = {
    "outcome": "failed", "exception": "ValueError: no", "traceback": "Traceback", "attempts": 3,
    "receive_count": 2, "id": "the-id", "function": "f", "queue": "q", "at": 1_764_000_000.5,
}  # fmt: skip


def dead_letter(
    body: str, *, sources: tuple[str, ...] = (), **attributes: str
) -> ReceivedDeadLetter:
    (received,) = messages(1)
    received.body = body
    received.attributes = {"ApproximateReceiveCount": "4", "SentTimestamp": "5000"} | attributes
    return dead_letter_of(received, get_config(), sources=sources)


def body(**members: Any) -> str:
    return Message(function="f", args=[1], id="the-id", **members).encode(queue="q")


def sent(**reason: Any) -> ReceivedDeadLetter:
    return dead_letter(wrap(body(attempt=3), REASON | reason, queue="q"))


def test_a_dead_letter_of_the_package_says_everything() -> None:
    found = sent()
    assert (found.id, found.function, found.queue) == ("the-id", "f", "q")
    assert (found.outcome, found.exception, found.traceback) == (
        "failed", "ValueError: no", "Traceback",
    )  # fmt: skip
    assert (found.attempts, found.receive_count, found.at) == (3, 2, 1_764_000_000.5)
    assert found.exception_type == "ValueError"
    assert found.when == datetime.fromtimestamp(1_764_000_000.5, UTC)
    assert found.is_from_package
    assert found.message
    assert (list(found.message.args), found.message.attempt) == ([1], 4)
    assert found.signature == "not checked"
    assert "Traceback" not in repr(found)


def test_a_dead_letter_that_sqs_moved_says_what_its_message_says() -> None:
    arn = "arn:aws:sqs:eu-west-1:123456789012:shop-mail"
    found = dead_letter(body(attempt=2), DeadLetterQueueSourceArn=arn)
    assert (found.id, found.function, found.queue) == ("the-id", "f", "shop-mail")
    assert (found.exception, found.outcome, found.traceback) == (MOVED_BY_SQS, "", "")
    assert (found.attempts, found.receive_count, found.at) == (2, 4, 5.0)
    assert not found.is_from_package


@pytest.mark.parametrize(("sources", "queue"), [((), ""), (("one",), "one"), (("one", "two"), "")])
def test_without_that_attribute_only_one_source_is_sure(
    sources: tuple[str, ...], queue: str
) -> None:
    assert dead_letter(body(), sources=sources).queue == queue


def test_a_body_that_is_not_a_message_is_shown_too() -> None:
    found = dead_letter("{")
    assert (found.id, found.function, found.message) == ("None-0", "", None)
    assert "not JSON" in found.problem
    assert found.body == "{"


@pytest.mark.parametrize(
    ("reason", "name", "value"),
    [
        ({"queue": 5}, "queue", ""),
        ({"queue": "a b"}, "queue", ""),
        ({"exception": ""}, "exception", "failed"),
        ({"at": "now"}, "at", 5.0),
        ({"at": 1e30}, "at", 5.0),
        ({"receive_count": None}, "receive_count", 1),
    ],
)
def test_a_dead_letter_that_a_stranger_wrote_breaks_nothing(
    reason: dict[str, Any], name: str, value: object
) -> None:
    assert getattr(sent(**reason), name) == value


def test_the_signature_is_checked_with_keys(env: Environment) -> None:
    signed = Message(function="f").encode(queue="q", keys=[KEY])
    env(DISPATCH_SIGNING_KEYS=KEY)
    good = dead_letter(wrap(signed, REASON, queue="q", keys=[KEY]))
    assert good.signature == "valid"
    assert dead_letter(wrap(signed, REASON, queue="q")).signature.startswith("not signed; set")


ELSEWHERE = "us-east-1/123456789012"
HERE = "eu-west-1/123456789012"


@pytest.mark.parametrize(
    ("location", "is_wrapped", "expected"),
    [(HERE, True, "valid"), (HERE, False, "valid"), (ELSEWHERE, True, "signed for a queue in"),
     (ELSEWHERE, False, "signed for a queue in")],
)  # fmt: skip
def test_a_signature_of_another_region_is_not_valid_as_a_worker_refuses_it(
    env: Environment, monkeypatch: pytest.MonkeyPatch, location: str, is_wrapped: bool,
    expected: str,
) -> None:  # fmt: skip
    env(DISPATCH_SIGNING_KEYS=KEY, DISPATCH_QUEUES=f"q=arn:aws:sqs:{HERE.replace('/', ':')}:q")
    (received,) = messages(1)
    monkeypatch.setattr(received.queue, "location", HERE)
    signed = Message(function="f").encode(queue="q", keys=[KEY], location=location)
    body = wrap(signed, REASON, queue="q", keys=[KEY]) if is_wrapped else signed
    assert dead_letter(body, sources=("q",)).signature.startswith(expected)


# --- filters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "is_match"),
    [
        ({}, True),
        ({"functions": {"f", "g"}}, True),
        ({"functions": {"g"}}, False),
        ({"exceptions": {"ValueError"}}, True),
        ({"exceptions": {"Value"}}, False),
        ({"exceptions": {"ValueError: n", "KeyError"}}, True),
        ({"exceptions": {"ValueError: x"}}, False),
        ({"queues": {"q"}}, True),
        ({"queues": {"other"}}, False),
        ({"since": 1_764_000_000}, True),
        ({"since": 1_764_000_001}, False),
        ({"argument": "771"}, False),
        ({"ids": frozenset({"the-id"})}, True),
        ({"ids": frozenset({"None-0"})}, True),
        ({"ids": frozenset({"other"})}, False),
    ],
)
def test_a_filter_lets_through_what_is_meant(filters: dict[str, Any], is_match: bool) -> None:
    filters = {
        name: frozenset(each) if isinstance(each, set) else each for name, each in filters.items()
    }
    assert Filters(**filters).match(sent()) is is_match
    assert bool(Filters(**filters)) is bool(filters)


def test_groups_are_by_function_exception_and_queue() -> None:
    dead_letters = [
        sent(at=100), sent(at=300, exception="ValueError: other"), sent(at=200),
        sent(exception="KeyError: 1"),
    ]  # fmt: skip
    groups = grouped(dead_letters)
    assert [(each.count, each.exception) for each in groups] == [(3, "ValueError"), (1, "KeyError")]
    assert (groups[0].oldest, groups[0].newest) == (100, 300)


def test_the_next_attempt_of_a_dead_letter_is_not_below_its_first() -> None:
    text = json.dumps(json.loads(body()) | {"first_attempt": 9})
    found = dead_letter(wrap(text, REASON, queue="q"))
    assert found.message
    assert found.message.counted_attempt == 1


# --- since -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "seconds"), [("90s", 90), ("2h", 7200), ("3d", 259_200)])
def test_since_is_an_age(value: str, seconds: int) -> None:
    assert parse_since(value) == pytest.approx(time.time() - seconds, abs=30)


@pytest.mark.parametrize(
    "value", ["2026-11-25T00:00Z", "2026-11-25T01:00+01:00", "2026-11-25", "2026-11-25 00:00"]
)
def test_since_is_a_date_in_the_projects_time_zone(value: str, settings: Any) -> None:
    settings.TIME_ZONE = "UTC"
    assert parse_since(value) == datetime(2026, 11, 25, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("value", ["", "yesterday", "2x", "-1h"])
def test_another_since_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="neither an age"):
        parse_since(value)
