"""Django's ``@task`` on this package, and the same function from the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .tasks import QUEUE

DISTRIBUTIONS = ["django-beanstalk-dispatch", "django"]


def operations() -> dict[str, Callable[..., Any]]:
    import django

    django.setup()
    from django.tasks import task_backends

    from beanstalk_dispatch.client import Call, schedule_function, schedule_many
    from beanstalk_dispatch.conf import get_config
    from beanstalk_dispatch.messages.delivery import Delivery
    from beanstalk_dispatch.messages.message import Message
    from beanstalk_dispatch.running.consumer import DelayedCopies
    from beanstalk_dispatch.running.pipeline import run_delivery
    from beanstalk_dispatch.running.run import Run

    from .ours_tasks_listed import noop

    backend: Any = task_backends["default"]
    path = noop.module_path

    def enqueue(count: int) -> None:
        for number in range(count):
            noop.enqueue(number, "two", x=3)

    def enqueue_many(count: int) -> None:
        backend.enqueue_many([(noop, (n, "two"), {"x": 3}) for n in range(count)])

    def schedule(count: int) -> None:
        for number in range(count):
            schedule_function(QUEUE, path, number, "two", x=3)

    def schedule_all(count: int) -> None:
        schedule_many(QUEUE, [Call(path, (n, "two"), {"x": 3}) for n in range(count)])

    def run(count: int, name: str) -> None:
        for _ in range(count):
            body = Message(function=name, args=(1, "two"), kwargs={"x": 3}).encode(queue=QUEUE)
            run_delivery(Run(Delivery(body=body, queue=QUEUE), get_config(), DelayedCopies()))

    return {
        "enqueue": enqueue, "enqueue_many": enqueue_many, "schedule": schedule,
        "schedule_many": schedule_all,
        "run_task": lambda count: run(count, path),
        "run_function": lambda count: run(count, "noop"),
    }  # fmt: skip
