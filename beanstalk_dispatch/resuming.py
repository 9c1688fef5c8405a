"""Resume and progress: long tasks that continue where they were interrupted, and say how far.

    for order in resume(Order.objects.order_by("pk"), every=100):
        send_invoice(order)

docs/long-tasks.md has more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from beanstalk_dispatch.safe_task import Retry

if TYPE_CHECKING:
    from django.db.models import QuerySet

__all__ = ["progress", "resume"]

T = TypeVar("T")

_After = Callable[[Any], "Iterable[tuple[Any, T]]"]
"""A function that returns the items after a cursor, each with its own cursor."""


class NextLeg(Retry):
    """The end of a leg, whose message is sent again with the cursor."""


class Leg(Protocol):
    """The part of a long task that one delivery runs, from its cursor on."""

    cursor: Any
    progress: tuple[int, int | None]
    """The number of items that are finished, and of all items if that is known."""

    def begin(self, every: int, count: Callable[[], int | None]) -> None:
        """Read the cursor. Raise RuntimeError for a second ``resume`` of one task.

        Call ``count`` for the number of all items if the progress is kept and no leg has done it.
        """

    def finish_item(self, cursor: Any) -> None:
        """Note the cursor of a finished item. Raise NextLeg if the leg ends here."""

    def check(self) -> None:
        """Raise NextLeg if the leg has ended, and the task has caught its end."""


LEG: Final[ContextVar[Callable[[], Leg] | None]] = ContextVar(
    "beanstalk_dispatch.leg", default=None
)
"""Makes the leg of the task that runs. It is None outside of a delivery."""
PROGRESS: Final[ContextVar[Callable[[float, float | None], None] | None]] = ContextVar(
    "beanstalk_dispatch.progress", default=None
)
"""Keeps the progress of the task that runs. It is None if no results are kept."""


def progress(n: float, of: float | None = None) -> None:
    """Say that the task is at ``n``, of ``of`` if that is known: ``progress(300, 1000)``.

    It is kept with the result, once a second at most. A wrong value and a store that does not
    answer are logged, and fail no task. Without results, and outside of a task, nothing happens.
    """
    if (keep := PROGRESS.get()) is not None:
        keep(n, of)


def resume(
    items: QuerySet[Any] | Sequence[T] | Callable[[Any], Iterable[T]],
    every: int = 100,
    *,
    cursor: Callable[[T], Any] | None = None,
) -> Iterator[Any]:
    """Return an iterator of the items that the task has not finished yet.

    ``items`` is a queryset in the order of its primary key, or a sequence such as a list or a
    range. With ``cursor``, a function that returns a JSON value for an item, it is a function of
    such a value that returns the items after it, and all items for None.

    An item is finished when the next one is asked for. Before the time limit, and when the process
    stops, the queue is paused or the task is cancelled, the loop ends by an exception after an
    item, and the message is sent again with the cursor. With a lease, the cursor is also kept
    after ``every`` items, so a killed process repeats at most that many.

    Raise TypeError or ValueError for items that have no cursor, and RuntimeError for a second
    ``resume`` of one task, or inside of ``transaction.atomic()``. Outside of a task all items are
    returned.

    If results are kept, the loop calls ``progress``. A queryset is counted for that once a task.
    """
    if every < 1:
        raise ValueError(f"every is at least 1, not {every}")
    after, count = _source(items, every, cursor)
    make_leg = LEG.get()
    leg = None if make_leg is None else make_leg()
    if leg is not None:
        leg.begin(every, count)
    return _items(leg, after)


def _items(leg: Leg | None, after: _After[T]) -> Iterator[T]:
    for cursor, item in after(None if leg is None else leg.cursor):
        yield item
        if leg is not None:
            leg.finish_item(cursor)


def _source(
    items: Any, every: int, cursor: Callable[[T], Any] | None
) -> tuple[_After[T], Callable[[], int | None]]:
    """Return the function of the items after a cursor, and one that returns their number."""
    if cursor is not None:
        return lambda last: ((cursor(each), each) for each in items(last)), lambda: None
    from django.db.models import QuerySet  # noqa: PLC0415 - web processes do without

    if isinstance(items, QuerySet):
        return _rows(items, every), items.count
    if isinstance(items, Sequence):
        return lambda last: enumerate(items[last or 0 :], (last or 0) + 1), items.__len__
    raise TypeError(
        "resume() takes a queryset, a sequence, or a function of a cursor with cursor=, "
        f"not {type(items).__name__}"
    )


def _rows(rows: QuerySet[Any], every: int) -> _After[Any]:
    """Return the function that reads rows in batches, each after the last primary key."""
    query, key = rows.query, rows.model._meta.pk  # noqa: SLF001 - documented by Django
    is_sorted = tuple(query.order_by) in ((), ("pk",), (key.name,)) and query.standard_ordering
    is_plain = not (query.is_sliced or query.combinator or query.values_select)
    if not (is_sorted and is_plain and key.concrete):
        raise ValueError(
            'resume() takes a queryset in order_by("pk"), of one column, without a slice, '
            "reverse(), values() or union(); for any other, pass a function and cursor="
        )

    def after(last: Any) -> Iterator[tuple[Any, Any]]:
        batch = rows.order_by("pk")
        while found := list((batch if last is None else batch.filter(pk__gt=last))[:every]):
            for row in found:
                last = row.pk if isinstance(row.pk, int) else str(row.pk)
                yield last, row

    return after
