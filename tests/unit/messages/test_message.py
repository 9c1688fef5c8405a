from __future__ import annotations

import base64
import json
import string
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest
from django.core.signing import Signer
from hypothesis import given, settings
from hypothesis import strategies as st

from beanstalk_dispatch.exceptions import BadSignature, InvalidArgument, MalformedMessage
from beanstalk_dispatch.messages.message import Message, now, read_dead_letter, wrap
from beanstalk_dispatch.messages.signatures import is_signed

KEYS = ["new-key", "old-key"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)  # one example may wait for a loaded machine
@given(st.lists(json_values), st.dictionaries(st.text(), json_values))
def test_what_goes_in_comes_out(args: list[Any], kwargs: dict[str, Any]) -> None:
    message = Message(function="f", args=args, kwargs=kwargs)
    for options in ({}, {"keys": KEYS}):
        body = message.encode(queue="q", **options)  # type: ignore[arg-type]
        assert body.isascii()
        decoded = Message.decode(body, queue="q", **options)  # type: ignore[arg-type]
        assert decoded == message


def test_optional_members_travel() -> None:
    message = Message(
        function="f",
        args=[],
        sent_at=1.5,
        attempt=3,
        first_attempt=2,
        not_before=2.5,
        options={"timeout": 5},
        headers={"traceparent": "00"},
    )
    assert Message.decode(message.encode(queue="q"), queue="q") == message


TASK_ID = "6b1f2b2e-8f7a-4c3d-9e21-0a5b7c9d1e3f"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SIMPLE = Message(
    function="send_welcome",
    args=[7, "Zoë", None],
    kwargs={"html": True, "ratio": 0.5},
    id=TASK_ID,
    sent_at=1767225600.25,
)
FULL = Message(
    function="send_welcome",
    args=[7],
    kwargs={"html": True},
    id=TASK_ID,
    sent_at=1767225600.25,
    attempt=3,
    not_before=1767229200.0,
    options={"timeout": 30.0, "max_retries": 5},
    headers={"traceparent": TRACE},
)
SIMPLE_BODY = (
    '{"v":1,"id":"6b1f2b2e-8f7a-4c3d-9e21-0a5b7c9d1e3f","function":"send_welcome",'
    '"args":[7,"Zo\\u00eb",null],"kwargs":{"html":true,"ratio":0.5},"sent_at":1767225600.25}'
)
SIGNED_BODY = f"{SIMPLE_BODY}:Ca_BRwaNkOKB33u7th7xMsdJmg_dk2YJgwnrFv_N4-Q"
FULL_BODY = (
    '{"v":1,"id":"6b1f2b2e-8f7a-4c3d-9e21-0a5b7c9d1e3f","function":"send_welcome",'
    '"args":[7],"kwargs":{"html":true},"sent_at":1767225600.25,"attempt":3,'
    '"not_before":1767229200.0,"options":{"timeout":30.0,"max_retries":5},'
    f'"headers":{{"traceparent":"{TRACE}"}}}}'
)
LEGACY_BODY = (
    "eyJmdW5jdGlvbiI6InNlbmRfd2VsY29tZSIsImFyZ3MiOls3XSwia3dhcmdzIjp7Imh0bWwiOnRydWV9LCJhdHRl"
    "bXB0IjozLCJub3RfYmVmb3JlIjoxNzY3MjI5MjAwLjAsIm9wdGlvbnMiOnsidGltZW91dCI6MzAuMCwibWF4X3Jl"
    "dHJpZXMiOjV9fQ=="
)
DEAD_LETTER_BODY = (
    '{"v":1,"dead_letter":{"attempts":3,"id":"6b1f2b2e-8f7a-4c3d-9e21-0a5b7c9d1e3f"},'
    f'"body":{json.dumps(SIMPLE_BODY)}}}:JPGmPMk99O5suS1eNjyGIuG7r6_01I6l3gU6eRLaq5c'
)
REASON = {"attempts": 3, "id": TASK_ID}


@pytest.mark.parametrize(
    ("encoded", "body"),
    [
        (SIMPLE.encode(queue="shop-mail"), SIMPLE_BODY),
        (SIMPLE.encode(queue="shop-mail", keys=KEYS), SIGNED_BODY),
        (FULL.encode(queue="shop-mail"), FULL_BODY),
        (FULL.encode(queue="shop-mail", legacy=True), LEGACY_BODY),
        (wrap(SIMPLE_BODY, REASON, queue="shop-mail", keys=KEYS), DEAD_LETTER_BODY),
    ],
    ids=["json", "signed", "every member", "0.1", "dead letter"],
)
def test_the_format_stays_the_same_byte_for_byte(encoded: str, body: str) -> None:
    """During a deployment two releases of this package read the same queue."""
    assert encoded == body


@pytest.mark.parametrize(
    ("body", "keys", "message"),
    [
        (SIMPLE_BODY, [], SIMPLE),
        (SIGNED_BODY, KEYS, SIMPLE),
        (FULL_BODY, [], FULL),
        (LEGACY_BODY, [], replace(FULL, id="from-sqs", sent_at=None, headers={})),
        (DEAD_LETTER_BODY, [], replace(SIMPLE, attempt=4)),
    ],
    ids=["json", "signed", "every member", "0.1", "dead letter"],
)
def test_each_form_is_read(body: str, keys: list[str], message: Message) -> None:
    read = Message.decode(body, queue="shop-mail", keys=keys, default_id="from-sqs")
    assert read == message


def test_the_format_is_the_documented_one() -> None:
    body = json.loads(Message(function="f", args=[1], kwargs={"a": "ü"}, id="i").encode(queue="q"))
    assert body == {"v": 1, "id": "i", "function": "f", "args": [1], "kwargs": {"a": "ü"}}


def test_legacy_messages_are_what_0_1_reads() -> None:
    body = Message(function="f", args=[1], kwargs={"a": 2}, sent_at=1.0).encode(
        queue="q", legacy=True
    )
    assert json.loads(base64.b64decode(body)) == {"function": "f", "args": [1], "kwargs": {"a": 2}}
    decoded = Message.decode(body, queue="q", default_id="from-sqs")
    assert (decoded.function, decoded.args, decoded.id) == ("f", [1], "from-sqs")


def test_a_copy_of_a_legacy_message_keeps_the_id_that_sqs_gave_the_first() -> None:
    copied = Message(function="f", args=[], id="from-sqs")
    body = copied.encode(queue="q", legacy=True, is_copy=True)
    assert Message.decode(body, queue="q", default_id="of-the-copy") == copied


def test_the_json_of_0_1_may_have_whitespace_around_it() -> None:
    body = base64.b64encode(b' \n{"function": "f", "args": [], "kwargs": {}}\n')
    assert Message.decode(body, queue="q").function == "f"


def test_repr_shows_no_arguments() -> None:
    message = Message(function="f", args=["hush"], kwargs={"a": "hush"}, headers={"h": "hush"})
    assert "hush" not in repr(message)
    assert message.id in repr(message)


VALID = {"function": "f", "args": [], "kwargs": {}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b"  \n", "empty body"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"hello", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"function":"f","args":[' + b"9" * 5000 + b'],"kwargs":{}}', "limit"),
        (b'{"function":"f","args":[1e999],"kwargs":{}}', "too large"),
        (b'{"function":"f","args":[NaN],"kwargs":{}}', "NaN is not JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b"1234", "expected a JSON object, got int"),
        (b'"text"', "expected a JSON object, got str"),
        (base64.b64encode(b"[1]"), "expected a JSON object, got list"),
        (base64.b64encode(b"\xff\xff"), "not JSON"),
        (b"A" * 1_048_576, "not JSON"),
        (b"{}", "Please provide a function argument"),
        (
            b'{"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": "{}"}',
            "an envelope of SNS; turn on raw message delivery of its subscription",
        ),
        (
            b'{"version": "0", "id": "1", "detail-type": "Scheduled Event", "detail": {}}',
            'an event of EventBridge; set the Input of its target to {"function": ',
        ),
        (b'{"function": "f"}', "Please provide a args argument"),
        (b'{"function": "f", "args": []}', "Please provide a kwargs argument"),
    ],
)
def test_malformed_bodies_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        Message.decode(body, queue="q")


def test_a_megabyte_of_spaces_is_refused_at_once() -> None:
    """Backtracking over them would take hours, with every other thread waiting."""
    body = b"A" + b" " * 1_048_574 + b"!"
    started = time.thread_time()
    with pytest.raises(MalformedMessage, match="not JSON"):
        Message.decode(body, queue="q")
    assert time.thread_time() - started < 5


@pytest.mark.parametrize("task_id", ["two\nlines", "\ud800", "x" * 256, "", 5])
def test_a_dead_letters_id_is_fit_for_the_log_or_not_taken(task_id: object) -> None:
    letter = {"v": 1, "dead_letter": {"attempts": 1, "id": task_id}, "body": json.dumps(VALID)}
    assert Message.decode(json.dumps(letter), queue="q").id.isalnum() is False
    assert len(Message.decode(json.dumps(letter), queue="q").id) == 36


@pytest.mark.parametrize("body", ["\ud800", "\ud800:x", "x:\ud800", "\ud800:" + "A" * 43])
def test_half_a_surrogate_pair_has_no_signature(body: str) -> None:
    letter = wrap(json.dumps({"dead_letter": {"attempts": 1}, "body": body}), {"attempts": 1},
                  queue="q", keys=KEYS)  # fmt: skip
    for each in (body, letter):
        with pytest.raises(BadSignature):
            Message.decode(each, queue="q", keys=KEYS)


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("v", "1", "v is not a version"),
        ("v", 2, "newer than 1"),
        ("v", True, "v is not a version"),
        ("function", "", "function is not a string"),
        ("function", None, "function is not a string"),
        ("args", None, "args is not a list"),
        ("kwargs", None, "kwargs is not an object"),
        ("function", "two\nlines", "function is not a string"),
        ("function", "x" * 256, "function is not a string"),
        ("function", 5, "function is not a string"),
        ("args", "abc", "args is not a list"),
        ("kwargs", [], "kwargs is not an object"),
        ("id", "a\nb", "id is not"),
        ("sent_at", "now", "sent_at is not"),
        ("sent_at", True, "sent_at is not"),
        ("attempt", 0, "attempt is not"),
        ("attempt", 1.5, "attempt is not"),
        ("not_before", -1, "not_before is not"),
        ("options", [], "options is not"),
        ("headers", {"a": 1}, "headers is not"),
        ("headers", {"a": "b", "c": 1}, "headers is not"),
        ("headers", "x", "headers is not"),
    ],
)
def test_wrong_members_are_refused(member: str, value: object, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        Message.decode(json.dumps(VALID | {member: value}), queue="q")


def test_unknown_and_empty_members_are_ignored() -> None:
    decoded = Message.decode(json.dumps(VALID | {"new": 1, "id": None}), queue="q", default_id="d")
    assert decoded.id == "d"


@settings(deadline=None)  # one example may wait for a loaded machine
@given(st.binary() | st.text().map(str.encode) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_other_body_is_refused(body: bytes) -> None:
    for keys in ([], KEYS):
        with pytest.raises((MalformedMessage, BadSignature)) as caught:
            Message.decode(body, queue="q", keys=keys)
        assert str(caught.value).isprintable()


def signed(queue: str = "q", keys: list[str] = KEYS) -> str:
    return Message(function="f", options={"timeout": 5}).encode(queue=queue, keys=keys)


def test_any_key_verifies() -> None:
    assert Message.decode(signed(keys=["old-key"]), queue="q", keys=KEYS).function == "f"
    assert Message.decode(signed(keys=["new-key"]), queue="q", keys=KEYS).function == "f"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (signed(keys=["other"]), "no signing key matches"),
        (signed(queue="another"), "no signing key matches for queue 'q'"),
        (signed().replace('"timeout":5', '"timeout":6'), "no signing key matches"),
        (Message(function="f").encode(queue="q"), "not signed"),
        ("{" + "[" * 100_000, "not signed"),
        ("short", "not signed"),
        ("a" * 43, "not signed"),
    ],
)
def test_what_is_not_ours_is_refused_before_it_is_parsed(body: str, reason: str) -> None:
    with pytest.raises(BadSignature, match=reason):
        Message.decode(body, queue="q", keys=KEYS)


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ([], "{}"), (None, "{}"), ("attempts", "{}"),
        ({"attempts": 1}, None), ({"attempts": 1}, {}), ({"attempts": 1}, 5),
        ({}, "{}"), ({"attempts": "1"}, "{}"), ({"attempts": True}, "{}"), ({"attempts": 0}, "{}"),
        ({"attempts": 1.5}, "{}"), ({"attempts": -1}, "{}"), ({"attempts": 2**31}, "{}"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_dead_letter_is_refused(reason: object, body: object) -> None:
    content = json.dumps({"dead_letter": reason, "body": body})
    with pytest.raises(MalformedMessage, match="dead_letter is not a dead letter"):
        Message.decode(content, queue="q")
    assert read_dead_letter(content) is None
    wrapped = json.loads(wrap(content, {"attempts": 1, "id": "i"}, queue="q"))
    assert wrapped["body"] == content  # it is wrapped like any other body


def test_a_dead_letter_is_read_without_its_signature() -> None:
    body = signed()
    letter = wrap(body, {"attempts": 2, "id": "i"}, queue="q", keys=KEYS)
    assert read_dead_letter(letter) == ({"attempts": 2, "id": "i"}, body)
    assert read_dead_letter("not json") is None
    assert read_dead_letter(signed()) is None


@pytest.mark.parametrize("around", ["", " ", "\n"])
@pytest.mark.parametrize("keys", [[], KEYS])
def test_a_dead_letter_is_not_put_into_another(keys: list[str], around: str) -> None:
    letter = wrap("{", {"attempts": 1, "id": "i"}, queue="q", keys=keys)
    again = wrap(around + letter + around, {"attempts": 2, "id": "i"}, queue="q", keys=keys)
    assert read_dead_letter(around + again + around) == ({"attempts": 2, "id": "i"}, "{")


@pytest.mark.parametrize("more", [" x", "{}", "]", ' "a"'])
def test_nothing_may_follow_the_json(more: str) -> None:
    with pytest.raises(MalformedMessage, match="not JSON: Extra data"):
        Message.decode('{"function":"f","args":[],"kwargs":{}}' + more, queue="q")


def test_what_looks_signed_is_signed_or_ends_like_it() -> None:
    plain = Message(function="f").encode(queue="q")
    assert is_signed(signed())
    assert not is_signed(plain)
    assert not is_signed(plain + "a" * 43)  # without a colon
    assert not is_signed(plain + ":" + "a" * 42)
    assert not is_signed("a" * 43)
    assert not is_signed("a" * 100)


def test_retries_are_counted_from_the_first_attempt() -> None:
    assert Message(function="f", attempt=5).counted_attempt == 5
    assert Message(function="f", attempt=5, first_attempt=4).counted_attempt == 2
    assert Message(function="f", attempt=1, first_attempt=9).counted_attempt == 1


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [([{1}], {}, "args"), ([], {"a": {1}}, "kwargs"), ([float("nan")], {}, "args"),
     ([float("inf")], {}, "args"), ([(1,)], {}, "args"), ([], {"a": {1: 2}}, "kwargs")],
)  # fmt: skip
def test_an_argument_that_json_would_change_is_refused_by_name(
    args: list[Any], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidArgument, match=rf"^f: {named}"):
        Message(function="f", args=args, kwargs=kwargs).encode(queue="q")


def test_an_id_is_a_random_uuid() -> None:
    ids = {Message(function="f").id for _ in range(100)}
    assert len(ids) == 100
    assert {(uuid.UUID(each).version, str(uuid.UUID(each))) for each in ids} == {
        (4, each) for each in ids
    }
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}


def test_a_header_that_json_would_change_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="f: the message cannot be written as JSON"):
        Message(function="f", headers={"a": object()}).encode(queue="q")  # type: ignore[dict-item]


def decoded(**members: Any) -> Message:
    content = {"function": "f", "args": [], "kwargs": {}} | members
    return Message.decode(json.dumps(content), queue="q")


@pytest.mark.parametrize(
    ("member", "fits", "does_not", "description"),
    [
        ("function", "f" * 255, "f" * 256, "a string of 1 to 255 printable characters"),
        ("id", "i" * 255, "i" * 256, "a string of 1 to 255 printable characters"),
        ("id", "i", "", "a string of 1 to 255 printable characters"),
        ("sent_at", 0, -1, "Unix seconds"),
        ("sent_at", 2**40 - 1, 2**40, "Unix seconds"),
        ("not_before", 0.0, -0.001, "Unix seconds"),
        ("attempt", 1, 0, "a count from 1"),
        ("attempt", 2**31 - 1, 2**31, "a count from 1"),
        ("first_attempt", 2**31 - 1, 2**31, "a count from 1"),
        ("options", {}, [], "an object"),
        ("headers", {"a": "b"}, {"a": 1}, "an object of strings"),
        ("headers", {}, [], "an object of strings"),
    ],
)
def test_each_member_has_its_limits(
    member: str, fits: object, does_not: object, description: str
) -> None:
    assert getattr(decoded(**{member: fits}), member) == fits
    with pytest.raises(MalformedMessage) as caught:
        decoded(**{member: does_not})
    assert str(caught.value) == f"{member} is not {description}"


def test_a_redriven_message_keeps_the_id_of_its_letter() -> None:
    """A message of 0.1 has none of its own."""
    legacy = Message(function="f").encode(queue="q", legacy=True)
    letter = wrap(legacy, {"attempts": 1, "id": "the-id"}, queue="q")
    assert Message.decode(letter, queue="q", default_id="from-sqs").id == "the-id"


def test_a_body_that_is_not_utf_8_is_wrapped_as_far_as_it_can_be_read() -> None:
    letter = wrap(b"\xffabc", {"attempts": 1, "id": "i"}, queue="q")
    assert read_dead_letter(letter) == ({"attempts": 1, "id": "i"}, "\ufffdabc")


def test_the_clock_is_in_milliseconds() -> None:
    moment = now()
    assert moment == round(moment, 3) == pytest.approx(time.time(), abs=5)


HERE, THERE = "eu-west-1/123456789012", "eu-west-1/999999999999"


@pytest.mark.parametrize("is_letter", [False, True])
@pytest.mark.parametrize(
    ("signed_for", "received_in", "is_accepted"),
    [
        (HERE, HERE, True),
        (HERE, None, True),  # the daemon gives the worker the queue's name only
        (None, HERE, True),  # the sender knew only the name, or is an older release
        (None, None, True),
        (THERE, HERE, False),
        (HERE, THERE, False),
    ],
)
def test_a_message_for_a_queue_of_the_same_name_elsewhere_is_refused(
    signed_for: str | None, received_in: str | None, is_accepted: bool, is_letter: bool
) -> None:
    body = Message(function="f").encode(queue="q", keys=KEYS, location=signed_for)
    if is_letter:
        body = wrap(body, {"attempts": 1, "id": "i"}, queue="q", keys=KEYS)
    if is_accepted:
        assert Message.decode(body, queue="q", keys=KEYS, location=received_in).function == "f"
        return
    with pytest.raises(BadSignature) as caught:
        Message.decode(body, queue="q", keys=KEYS, location=received_in)
    assert str(caught.value) == f"signed for a queue in {signed_for!r}, received in {received_in!r}"


def test_without_keys_a_message_has_no_place_and_is_from_any() -> None:
    body = Message(function="f").encode(queue="q", location=THERE)
    assert "location" not in json.loads(body)
    signed_there = Message(function="f").encode(queue="q", keys=KEYS, location=THERE)
    assert Message.decode(signed_there, queue="q", location=HERE).function == "f"


def test_without_keys_a_signature_is_not_looked_at() -> None:
    """So that web machines can begin to sign before workers begin to verify."""
    assert Message.decode(signed(), queue="q").function == "f"


@given(
    text=st.text(max_size=50),
    queue=st.text(string.ascii_letters + string.digits + "-_.", min_size=1),
    keys=st.lists(st.text(min_size=1, max_size=70), min_size=1, max_size=3, unique=True),
)
def test_a_signature_is_that_of_djangos_signer(text: str, queue: str, keys: list[str]) -> None:
    message = Message(function="f", args=[text])
    signer = Signer(
        key=keys[0], salt=f"beanstalk_dispatch.message.{queue}", fallback_keys=[*keys[1:]]
    )
    for _ in range(2):  # what is kept of the first is used for the second
        signed_by_us = message.encode(queue=queue, keys=keys)
        signed_by_django = Signer(key=keys[-1], salt=signer.salt).sign(message.encode(queue=queue))
        assert signed_by_us == signer.sign(message.encode(queue=queue))
        assert Message.decode(signed_by_django, queue=queue, keys=keys) == message
