from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from django.utils.datastructures import MultiValueDict
from hypothesis import given
from hypothesis import strategies as st

from beanstalk_dispatch.contrib.tasks.library import TaskResultStatus, normalize_json, to_json

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text(max_size=5) | st.integers() | st.binary(max_size=3)
values = st.recursive(
    scalars | st.binary(max_size=5) | st.sampled_from([TaskResultStatus.READY, object()]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(keys, inner, max_size=4).map(MappingProxyType)
        | st.lists(inner, max_size=2).map(lambda each: MultiValueDict({"a": each}))
    ),
    max_leaves=10,
)


def outcome_of(function: Any, value: object) -> tuple[object, ...]:
    """What it returns or raises, with the types of what is in it."""
    try:
        found = function(value)
    except (TypeError, ValueError) as exc:
        return type(exc), str(exc)
    return found, repr(found)


@given(values)
def test_to_json_does_what_normalize_json_does(value: object) -> None:
    assert outcome_of(to_json, value) == outcome_of(normalize_json, value)


@pytest.mark.parametrize("value", [{1, 2}, [object], {"a": ({3},)}, (b"\xff",)])
def test_to_json_refuses_what_normalize_json_refuses(value: object) -> None:
    refused = outcome_of(to_json, value)
    assert refused[0] in {TypeError, ValueError}
    assert refused == outcome_of(normalize_json, value)


def test_to_json_shares_nothing_with_its_argument() -> None:
    value = {"a": [1, {"b": 2}]}
    copy = to_json(value)
    value["a"][1]["b"] = 3  # type: ignore[index]
    assert copy == {"a": [1, {"b": 2}]}
