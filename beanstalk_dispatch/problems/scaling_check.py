"""Comparison of the files by which a worker environment scales with the needs of its plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.deploying.plan import Plan
from beanstalk_dispatch.deploying.scaling import (
    SCALING_EBEXTENSIONS,
    scaling_files,
    scaling_options,
)
from beanstalk_dispatch.deploying.sqsd_options import json_options, options_file

from .findings import problem

_CHOICES: Final = frozenset({"TargetValue", "MinSize"})
"""The values that a project may change."""


def check(plan: Plan, root: Path) -> Iterator[CheckMessage]:
    """Yield the problems of each file. A missing file is reported elsewhere."""
    if plan.is_shared and (root / SCALING_EBEXTENSIONS).exists():
        yield problem("E417", SCALING_EBEXTENSIONS)
    for path, needed in scaling_files(plan).items():
        if (root / path).exists():
            found, limit = _read_json(root / path), _find_target(needed)
            target = _find_target(found)
            if _without_choices(found) != _without_choices(needed):
                yield problem("E418", path)
            elif not 0 < target <= limit:
                yield problem("E419", path, target=target, limit=limit)
    if plan.is_shared and (root / options_file(plan.worker)).exists():
        yield from _check_options(plan, root)


def _check_options(plan: Plan, root: Path) -> Iterator[CheckMessage]:
    path = options_file(plan.worker)
    for namespace, needed in scaling_options(plan).items():
        found = json_options(root / path, namespace)
        for name, value in needed.items():
            current = found.get(name, "not set")
            if current != value and name not in _CHOICES:
                yield problem(
                    "E420", path, namespace=namespace, name=name, current=current, value=value
                )


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        return None


def _find_target(value: Any) -> float:
    """Return the TargetValue anywhere in a JSON value; 0 if there is no number of that name."""
    if not isinstance(value, dict):
        return 0
    found = value.get("TargetValue", 0)
    inner = max((_find_target(each) for each in value.values()), default=0)
    return max(found if isinstance(found, int | float) else 0, inner)


def _without_choices(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_choices(each) for name, each in value.items() if name not in _CHOICES}
