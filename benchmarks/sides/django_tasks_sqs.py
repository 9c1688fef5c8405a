"""Django's task framework on SQS, with django-tasks-sqs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django

DISTRIBUTIONS = ["django-tasks-sqs", "django", "botocore"]


def operations() -> dict[str, Callable[..., Any]]:
    django.setup()
    from django.tasks import task_backends

    from . import django_tasks_sqs_tasks as listed

    backend: Any = task_backends["default"]

    def one(count: int) -> None:
        for number in range(count):
            listed.noop.enqueue(number, "two", x=3)

    def many(count: int, task: str = "noop") -> None:
        backend.enqueue_many([(getattr(listed, task), (n, "two"), {"x": 3}) for n in range(count)])

    return {"one": one, "many": many}
