"""Tasks whose annotations say more than JSON does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Model
from pydantic import BaseModel

from beanstalk_dispatch.contrib.tasks import task
from beanstalk_dispatch.safe_task import SafeTask

from .jobs import calls

if TYPE_CHECKING:
    from collections.abc import Hashable


class Size(Enum):
    SMALL = 1
    LARGE = Decimal("2.5")


@dataclass
class Line:
    item: UUID
    price: Decimal


@dataclass
class Bill:
    key: Hashable


class Address(BaseModel):
    street: str
    since: date


def one_of_each(
    id: UUID,  # noqa: A002
    at: datetime,
    on: date,
    clock: time,
    wait: timedelta,
    price: Decimal,
    size: Size,
    line: Line,
    address: Address,
) -> None:
    calls.append((id, at, on, clock, wait, price, size, line, address))


def nested(lines: list[Line], days: dict[str, date | None], *rest: Decimal, **more: UUID) -> None:
    calls.append((lines, days, rest, more))


def single(id: UUID | int) -> None:  # noqa: A002
    calls.append((id,))


def pay(bill: Bill | None) -> None: ...


def bare(value, other: Any = None) -> None: ...  # type: ignore[no-untyped-def]


class Ship(SafeTask, max_attempts=3):
    def run(self, id: UUID, fails: bool = False) -> None:  # noqa: A002
        message = self.delivery and self.delivery.message
        calls.append((id, message and message.typed))
        if fails and len(calls) < 2:
            raise ValueError("not yet")


@task(takes_context=True)
def with_context(
    context: Any, price: Decimal, on: list[date] | None = None, tags: list[str] | None = None
) -> None:
    calls.append((price, context.attempt, on, tags))


def of_a_model(user: Model) -> None: ...


def unread(key: Hashable, on: date | None = None) -> None:
    calls.append((key, on))
