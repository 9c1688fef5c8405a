"""Makes instances of frozen dataclasses, in a third of the time, where each delivery needs one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def make(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return an instance of a frozen dataclass with slots that has these values of its fields.

    The class's own ``__init__`` sets each field with ``object.__setattr__``, which takes as long as
    thirty plain assignments. Here a twin that is not frozen gets the values, and then its class.
    """
    instance: T = _twin_of(kind)(**values)  # type: ignore[arg-type] # a class is hashable
    instance.__class__ = kind
    return instance


@functools.cache
def _twin_of(kind: Any) -> Any:
    members = [
        (each.name, Any, field(default=each.default, default_factory=each.default_factory))
        for each in fields(kind)
    ]
    return make_dataclass(kind.__name__, members, slots=True, kw_only=True)
