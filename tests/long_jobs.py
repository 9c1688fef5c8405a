"""Long tasks, which resume."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from django.core.cache import caches
from django.db import models, transaction

from beanstalk_dispatch.client import cancel
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.results import aget_result, get_result
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.exceptions import UnknownResult
from beanstalk_dispatch.messages.record import pause
from beanstalk_dispatch.resuming import progress, resume
from beanstalk_dispatch.safe_task import Retry

done: list[Any] = []


class InTwoColumns(models.Model):  # noqa: DJ008 - it is never shown
    """A model with a primary key of two columns, and no table."""

    pk = models.CompositePrimaryKey("a", "b")
    a = models.IntegerField()
    b = models.IntegerField()

    class Meta:
        app_label = "tests"
        managed = False


def append_all(path: str, count: int, every: int, seconds: float) -> None:
    """Write the number of each item to a file, which needs no buffer of this process."""
    for number in resume(range(count), every):
        time.sleep(seconds)
        with open(path, "a", buffering=1) as file:
            file.write(f"{number}\n")


def note(count: int, seconds: float = 0.0, every: int = 10) -> None:
    for number in resume(range(count), every):
        time.sleep(seconds)
        done.append(number)


async def note_async(count: int, seconds: float) -> None:
    note(count, seconds)


def tell(values: list[Any]) -> None:
    """Say each progress, and note how far others see the task."""
    for value in values:
        progress(*value)
        done.append(get_result("task-1").progress)


async def tell_async(values: list[Any]) -> None:
    for value in values:
        progress(*value)
        done.append((await aget_result("task-1")).progress)


def tell_in_transaction(values: list[Any]) -> None:
    with transaction.atomic():
        tell(values)


def see() -> None:
    for each in resume(OutboxMessage.objects.filter(function="f"), every=2):
        done.append(get_result("task-1").progress)
        if each.task_id == "b":
            OutboxMessage.objects.filter(task_id="c").delete()


def lose_result() -> None:
    """Delete the result of this task, and say a progress."""
    StoredResult.objects.all().delete()
    caches["default"].clear()
    progress(1)
    with suppress(UnknownResult):
        done.append(get_result("task-1"))


def fail_at(count: int, number: int, every: int, error: str) -> None:
    for each in resume(range(count), every):
        if each == number:
            raise Retry(delay=0) if error == "Retry" else ValueError("poison")
        done.append(each)


def act(action: str, name: str) -> None:
    """Cancel the task, or pause its queue, at its third item."""
    for each in resume(range(10)):
        done.append(each)
        if each == 2:
            (cancel if action == "cancel" else pause)(name)


def hide_the_end(count: int) -> None:
    with suppress(Exception):
        for each in resume(range(count)):
            time.sleep(0.3)
            done.append(each)


def twice() -> None:
    done.extend(resume([1]))
    done.extend(resume([2]))


def in_transaction() -> None:
    with transaction.atomic():
        done.extend(resume([1]))


def rows() -> None:
    for row in resume(OutboxMessage.objects.filter(function="f"), every=2):
        done.append(row.task_id)  # noqa: PERF401 - the loop ends early


def after(last: int | None) -> Iterator[int]:
    yield from range(0 if last is None else last + 1, 10)


def call(cursors: str) -> None:
    key: Any = {"same": lambda item: item, "tuple": lambda item: (item,)}[cursors]
    for each in resume(after, cursor=key):
        time.sleep(0.3)
        done.append(each)


def wrong(items: Iterable[int]) -> None:
    done.extend(resume(iter(items)))  # type: ignore[arg-type]  # the mistake
