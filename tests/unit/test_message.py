from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beanstalk_dispatch.exceptions import BadSignature, InvalidArgument, MalformedMessage
from beanstalk_dispatch.message import Message, wrap

KEYS = ["new-key", "old-key"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


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
        not_before=2.5,
        options={"timeout": 5},
        headers={"traceparent": "00"},
    )
    assert Message.decode(message.encode(queue="q"), queue="q") == message


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


def test_repr_shows_no_arguments() -> None:
    message = Message(function="f", args=["hush"], kwargs={"a": "hush"}, headers={"h": "hush"})
    assert "hush" not in repr(message)
    assert message.id in repr(message)


class Odd(dict[str, Any]):
    """A mapping that JSON writes as another."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None


class Broken(dict[str, Any]):
    """Raises what no JSON encoder expects."""

    def items(self) -> Any:
        raise KeyError


class BrokenNumber(int):
    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


cyclic: list[Any] = []
cyclic.append(cyclic)


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ([], {"when": datetime.datetime(2026, 1, 1)}, "kwargs['when']: datetime"),
        ([1, {"a": [b"x"]}], {}, "args[1]['a'][0]: bytes"),
        ([{1: 2}], {}, "args[0]: key 1 is int"),
        ([(1, 2)], {}, "args[0]: tuple"),
        ([{1}], {}, "args[0]: set"),
        ([math.nan], {}, "args[0]: float"),
        ([math.inf], {}, "args[0]: float"),
        ([decimal.Decimal(1)], {}, "args[0]: Decimal"),
        ([object()], {}, "args[0]: object"),
        ([10**5000], {}, "args[0]: int"),
        ([cyclic], {}, "args: nested too deeply"),
        ([], {1: 2}, "kwargs: key 1 is int"),
        ([Odd()], {}, "the message cannot be written as JSON"),
        ([{10**5000: 1}], {}, "args[0]: key ? is int"),
        ([{"x" * 1000: {1}}], {}, f"args[0]['{'x' * 99}]: set"),
        ([Broken(a=1)], {}, "args: cannot be read: KeyError"),
        ([BrokenNumber(1)], {}, "args[0]: BrokenNumber"),
    ],
)
def test_arguments_that_json_changes_are_named(
    args: list[Any], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Message(function="mail", args=args, kwargs=kwargs).encode(queue="q")
    assert f"mail: {named}" in str(caught.value)


def test_subclasses_that_come_back_equal_are_fine() -> None:
    class Text(str):
        __slots__ = ()

    body = Message(function="f", args=[Text("a"), True, 1.0, None]).encode(queue="q")
    assert Message.decode(body, queue="q").args == ["a", True, 1.0, None]


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
        (b"[]", "list given"),
        (b"1234", "int given"),
        (b'"text"', "str given"),
        (base64.b64encode(b"[1]"), "list given"),
        (base64.b64encode(b"\xff\xff"), "not JSON"),
        (b"A" * 1_048_576, "not JSON"),
        (b"{}", "Please provide a function argument"),
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
        ("function", "", "function is not a text"),
        ("function", None, "function is not a text"),
        ("args", None, "args is not a list"),
        ("kwargs", None, "kwargs is not an object"),
        ("function", "two\nlines", "function is not a text"),
        ("function", "x" * 256, "function is not a text"),
        ("function", 5, "function is not a text"),
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
        ("headers", "x", "headers is not"),
    ],
)
def test_wrong_members_are_refused(member: str, value: object, reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        Message.decode(json.dumps(VALID | {member: value}), queue="q")


def test_unknown_and_empty_members_are_ignored() -> None:
    decoded = Message.decode(json.dumps(VALID | {"new": 1, "id": None}), queue="q", default_id="d")
    assert decoded.id == "d"


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
    ],
)
def test_what_is_not_ours_is_refused_before_it_is_parsed(body: str, reason: str) -> None:
    with pytest.raises(BadSignature, match=reason):
        Message.decode(body, queue="q", keys=KEYS)


def test_without_keys_a_signature_is_not_looked_at() -> None:
    """So that web machines can begin to sign before workers begin to verify."""
    assert Message.decode(signed(), queue="q").function == "f"
