"""This package as a producer. Environment variables make its kinds: signed, with the outbox, …"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from .raw import in_threads
from .tasks import QUEUE

DISTRIBUTIONS = ["django", "boto3", "botocore"]  # the tree has no version of its own


def operations() -> dict[str, Callable[..., Any]]:
    import django

    django.setup()
    return sending() | waiting() | outbox() | first_sends() | tables()


def sending() -> dict[str, Callable[..., Any]]:
    from beanstalk_dispatch.client import Call, schedule_function, schedule_many

    def one(count: int) -> None:
        for number in range(count):
            schedule_function(QUEUE, "noop", number, "two", x=3)

    def large(count: int) -> None:
        word = "n" * 10_000
        for number in range(count):
            schedule_function(QUEUE, "noop", number, word, x=3)

    def many(count: int, task: str = "noop", queue: str = QUEUE) -> None:
        schedule_many(queue, [Call(task, (n, "two"), {"x": 3}) for n in range(count)])

    return {
        "one": one, "many": many, "large": large,
        "threads": lambda count: in_threads(count, 32, one),
        "fifty_threads": lambda count: in_threads(count, 50, one),
    }  # fmt: skip


def waiting() -> dict[str, Callable[..., Any]]:
    """The ways to send from a view without one request after the other."""
    from django.db import transaction

    from beanstalk_dispatch.client import Call, aschedule_function, batching, schedule

    def on_commit(count: int) -> None:
        with transaction.atomic():
            for n in range(count):
                schedule(QUEUE, Call("noop", (n, "two"), {"x": 3}), on_commit=True)

    def block(count: int) -> None:
        with batching():
            for n in range(count):
                schedule(QUEUE, Call("noop", (n, "two"), {"x": 3}))

    def gather(count: int) -> None:
        async def schedule_all() -> None:
            calls = (aschedule_function(QUEUE, "noop", n, "two", x=3) for n in range(count))
            await asyncio.gather(*calls)

        asyncio.run(schedule_all())

    return {"on_commit": on_commit, "batching": block, "gather": gather}


def outbox() -> dict[str, Callable[..., Any]]:
    from django.core.management import call_command
    from django.db import transaction
    from django.db.migrations.recorder import MigrationRecorder

    from beanstalk_dispatch.client import Call, schedule
    from beanstalk_dispatch.client import schedule_many as many

    def one_row(count: int) -> None:
        """What the database takes by itself."""
        with transaction.atomic():
            MigrationRecorder.Migration.objects.create(app="benchmark", name="row")

    def outbox_each(count: int) -> None:
        with transaction.atomic():
            for n in range(count):
                schedule(QUEUE, Call("noop", (n, "two"), {"x": 3}))

    def outbox_many(count: int) -> None:
        with transaction.atomic():
            many(QUEUE, [Call("noop", (n, "two"), {"x": 3}) for n in range(count)])

    def migrate() -> None:
        call_command("migrate", verbosity=0)

    def flush() -> None:
        from beanstalk_dispatch.contrib.outbox.sender import SENDER

        SENDER.flush(30)

    return {
        "one_row": one_row, "outbox_each": outbox_each, "outbox_many": outbox_many,
        "migrate": migrate, "flush": flush,
    }  # fmt: skip


def first_sends() -> dict[str, Callable[..., Any]]:
    from beanstalk_dispatch.client import schedule_function, warm

    def after_fork(*, is_warmed: bool = False) -> list[dict[str, float]]:
        """The times of the first sends of a forked process, in seconds."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            if is_warmed:
                warm()
            took = []
            for number in range(12):
                wall, cpu = time.perf_counter(), time.process_time()
                schedule_function(QUEUE, "noop", number, "two", x=3)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                took.append({"wall": wall, "cpu": cpu})
            os.write(writer, json.dumps(took).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            figures: list[dict[str, float]] = json.load(pipe)
        os.waitpid(child, 0)
        return figures

    return {"warm": warm, "after_fork": after_fork}


def tables() -> dict[str, Callable[..., Any]]:
    """Scheduling and running one name of the table after the other."""
    from beanstalk_dispatch.client import schedule_function
    from beanstalk_dispatch.conf import get_config
    from beanstalk_dispatch.messages.delivery import Delivery
    from beanstalk_dispatch.messages.message import Message
    from beanstalk_dispatch.running.consumer import DelayedCopies
    from beanstalk_dispatch.running.pipeline import run_delivery
    from beanstalk_dispatch.running.run import Run
    from beanstalk_dispatch.testing import capture_tasks

    names = [name for name in get_config().table if name.startswith("many")]
    position = 0

    def next_names(count: int) -> list[str]:
        nonlocal position
        position += count
        return [names[number % len(names)] for number in range(position - count, position)]

    def schedule_names(count: int) -> None:
        for number, name in enumerate(next_names(count)):
            schedule_function(QUEUE, name, number, "two", x=3)

    def check_names(count: int) -> None:
        """Schedule without a request."""
        with capture_tasks():
            schedule_names(count)

    def run_names(count: int) -> None:
        for name in next_names(count):
            message = Message(function=name, args=(1, "two"), kwargs={"x": 3})
            run_delivery(
                Run(
                    Delivery(body=message.encode(queue=QUEUE), queue=QUEUE),
                    get_config(),
                    DelayedCopies(),
                )
            )

    return {
        "schedule_names": schedule_names, "check_names": check_names, "run_names": run_names,
    }  # fmt: skip
