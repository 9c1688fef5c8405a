"""A message of a batch, as ``Queue.send_batch`` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A body with its parameters."""

    body: str
    send_parameters: Mapping[str, Any]
