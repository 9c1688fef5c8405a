"""The fields of a dataclass that differ from their defaults, which another process needs."""

from __future__ import annotations

import functools
from dataclasses import MISSING, fields
from typing import Any


def changed_fields(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, by name."""
    return {
        name: value
        for name, default in _defaults_of(instance.__class__)
        if (value := getattr(instance, name)) != default
    }


@functools.cache
def _defaults_of(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (each.name, each.default if each.default_factory is MISSING else each.default_factory())
        for each in fields(kind)
        if each.init
    )
