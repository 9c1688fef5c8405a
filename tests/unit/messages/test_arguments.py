from __future__ import annotations

import datetime
import decimal
import enum
import io
import math
import uuid
from collections import Counter, OrderedDict, deque
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pytest
from django.core.files import File
from django.db import models
from django.http import HttpRequest, QueryDict
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from beanstalk_dispatch.exceptions import InvalidArgument
from beanstalk_dispatch.messages.message import Message


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


class Invoice(models.Model):  # noqa: DJ008
    class Meta:
        app_label = "tests"


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 1


TIME: Final = "pass value.isoformat() or a primary key"
KEYS: Final = 'pass list(value.values_list("pk", flat=True))'
GENERAL: Final = "pass a primary key, or strings, numbers, lists and dicts"


def refusal(*args: Any, **kwargs: Any) -> str:
    """The error of a message with these arguments."""
    with pytest.raises(InvalidArgument) as caught:
        Message(function="mail", args=args, kwargs=kwargs).encode(queue="q")
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            datetime.datetime(2026, 1, 1),
            f"datetime is not JSON; {TIME}",
        ),
        (datetime.date(2026, 1, 1), f"date is not JSON; {TIME}"),
        (datetime.time(9), f"time is not JSON; {TIME}"),
        (datetime.timedelta(1), "timedelta is not JSON; pass value.total_seconds()"),
        (decimal.Decimal(1), "Decimal is not JSON; pass str(value)"),
        (uuid.UUID(int=1), "UUID is not JSON; pass str(value)"),
        (Path("/data"), "PosixPath is not JSON; pass str(value)"),
        (Invoice(pk=1), "Invoice is not JSON; pass value.pk"),
        (models.QuerySet(Invoice), f"QuerySet is not JSON; {KEYS}"),
        ({1}, "set is not JSON; pass a list"),
        (frozenset({1}), "frozenset is not JSON; pass a list"),
        ({"a": 1}.keys(), "dict_keys is not JSON; pass a list"),
        ({"a": 1}.values(), "dict_values is not JSON; pass a list"),
        ((n for n in [1]), "generator is not JSON; pass a list"),
        (range(3), "range is not JSON; pass a list"),
        (deque([1]), "deque is not JSON; pass a list"),
        ((1, 2), "tuple would come back as a list; pass a list"),
        (Point(1, 2), "Point would come back as a list; pass a list"),
        (b"x", "bytes is not JSON; pass value.decode(), or a base64 string"),
        (bytearray(b"x"), "bytearray is not JSON; pass value.decode(), or a base64 string"),
        (memoryview(b"x"), "memoryview is not JSON; pass value.decode(), or a base64 string"),
        (gettext_lazy("Welcome"), "a lazy translation is not JSON; pass str(value)"),
        (math.nan, "nan is not JSON; pass None or a string"),
        (-math.inf, "-inf is not JSON; pass None or a string"),
        (10**5000, "int has too many digits; store the data and pass its key"),
        (QueryDict("a=1&a=2"), "QueryDict is not JSON; pass value.dict()"),
        (MappingProxyType({"a": 1}), "mappingproxy is not JSON; pass dict(value)"),
        (Colour.RED, "Colour is not JSON; pass value.value"),
        (File(io.BytesIO(b"x"), "a.png"), "File is not JSON; store the file and pass its name"),
        (Odd(), "Odd is not JSON; pass dict(value)"),
        (object(), f"object is not JSON; {GENERAL}"),
        (HttpRequest(), f"HttpRequest is not JSON; {GENERAL}"),
        (BrokenNumber(1), f"BrokenNumber is not JSON; {GENERAL}"),
    ],
    ids=lambda value: value.partition(" ")[0] if isinstance(value, str) else "value",
)
def test_the_error_names_the_argument_its_type_and_the_remedy(value: object, problem: str) -> None:
    assert refusal(value) == f"mail: args[0]: {problem}"
    assert refusal(1, value) == f"mail: args[1]: {problem}"
    assert refusal(when=value) == f"mail: kwargs['when']: {problem}"
    assert refusal([1, {"a": value}]) == f"mail: args[0][1]['a']: {problem}"
    assert refusal(data={"a": [value]}) == f"mail: kwargs['data']['a'][0]: {problem}"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({1: 2}, "args[0]: key 1 is int; JSON keys are strings"),
        ({None: 2}, "args[0]: key None is NoneType; JSON keys are strings"),
        ({"a": {("b", 1): 2}}, "args[0]['a']: key ('b', 1) is tuple; JSON keys are strings"),
        ({10**5000: 1}, "args[0]: key ? is int; JSON keys are strings"),
        ({"x" * 1000: {1}}, f"args[0]['{'x' * 99}]: set is not JSON; pass a list"),
        (cyclic, "args: nested too deeply, or contains itself"),
        (Broken(a=1), "args: cannot be read: KeyError"),
        ({"a": 1, "b": {1}, "c": b""}, "args[0]['b']: set is not JSON; pass a list"),
    ],
    ids=["int key", "None key", "tuple key", "huge key", "long key", "cycle", "broken", "first"],
)
def test_the_error_names_the_first_place_that_is_wrong(value: object, problem: str) -> None:
    assert refusal(value) == f"mail: {problem}"


def test_positional_arguments_are_named_before_keyword_arguments() -> None:
    assert refusal({1}, when={2}) == "mail: args[0]: set is not JSON; pass a list"


def test_a_keyword_that_is_not_a_string_is_named() -> None:
    kwargs: Any = {1: 2}
    with pytest.raises(InvalidArgument) as caught:
        Message(function="mail", kwargs=kwargs).encode(queue="q")
    assert str(caught.value) == "mail: kwargs: key 1 is int; JSON keys are strings"


def test_a_message_whose_arguments_are_fine_is_refused_as_a_whole() -> None:
    options: Any = {"timeout": {30}}
    with pytest.raises(InvalidArgument) as caught:
        Message(function="mail", options=options).encode(queue="q")
    assert str(caught.value) == "mail: the message cannot be written as JSON"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        Text("a"), mark_safe("<b>"), True, 1.0, None, Level.HIGH, OrderedDict(a=1), Counter("a"),
        QueryDict(), [], {},
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_that_comes_back_equal_is_sent(value: object) -> None:
    body = Message(function="f", args=[value]).encode(queue="q")
    assert Message.decode(body, queue="q").args == [value]
