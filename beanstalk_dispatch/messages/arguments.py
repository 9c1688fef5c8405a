"""Name the part of an argument that JSON cannot carry, and the remedy."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Final
from uuid import UUID

from django.core.files import File
from django.db.models import Model, QuerySet
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise

# The first row whose types match names the remedy.
_REMEDIES: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((date, time), "pass value.isoformat() or a primary key"),
    ((timedelta,), "pass value.total_seconds()"),
    ((Decimal, UUID, PurePath), "pass str(value)"),
    ((Model,), "pass value.pk"),
    ((QuerySet,), 'pass list(value.values_list("pk", flat=True))'),
    ((bytes, bytearray, memoryview), "pass value.decode(), or a base64 string"),
    ((MultiValueDict,), "pass value.dict()"),
    ((Enum,), "pass value.value"),
    ((File,), "store the file and pass its name"),
    ((Mapping,), "pass dict(value)"),
    ((AbstractSet, ValuesView, Iterator, range, deque), "pass a list"),
)


def json_problem(place: str, value: object) -> str | None:
    """Return the first place in ``value`` that JSON would change, with the remedy, or None.

    ``place`` is the name of ``value``: ``args`` or ``kwargs``.
    """
    try:
        return _first_problem(place, value)
    except RecursionError:
        return f"{place}: nested too deeply, or contains itself"
    except Exception as exc:
        return f"{place}: cannot be read: {type(exc).__name__}"


def _first_problem(place: str, value: object) -> str | None:
    """Return the same as ``json_problem``. Raise any exception of a method of ``value``."""
    items: list[tuple[str, object]] = []
    if isinstance(value, dict) and not isinstance(value, MultiValueDict):
        for key in value:
            if not isinstance(key, str):
                kind = type(key).__name__
                return f"{place}: key {_short_repr(key)} is {kind}; JSON keys are strings"
        items = [(f"{place}[{_short_repr(key)}]", item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{place}[{index}]", item) for index, item in enumerate(value)]
    for item_place, item in items:
        if problem := _first_problem(item_place, item):
            return problem
    if type(value) in {dict, list} or _survives_json(value):
        return None
    return f"{place}: {_refusal_reason(value)}"


def _refusal_reason(value: object) -> str:
    """Return the reason why JSON would change ``value``, with the remedy."""
    if isinstance(value, Promise):
        return "a lazy translation is not JSON; pass str(value)"
    if type(value) is float:
        return f"{value} is not JSON; pass None or a string"  # NaN or an infinity
    if type(value) is int:
        return "int has too many digits; store the data and pass its key"
    kind = type(value).__name__
    if isinstance(value, tuple):
        return f"{kind} would come back as a list; pass a list"
    for types, remedy in _REMEDIES:
        if isinstance(value, types):
            return f"{kind} is not JSON; {remedy}"
    return f"{kind} is not JSON; pass a primary key, or strings, numbers, lists and dicts"


def _short_repr(value: object) -> str:
    try:
        return repr(value)[:100]
    except Exception:  # an int of too many digits, or a __repr__ that fails
        return "?"


def _survives_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except Exception:
        return False
