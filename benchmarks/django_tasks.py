"""Measure what Django's ``enqueue`` costs beside ``schedule_function``, in CPU time.

``python -m benchmarks.django_tasks`` takes half a minute. Each row and its baseline take turns in
the same run. The exit code is 1 if a target is missed. SQS is a stub in another process.

"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from .hot_paths import BATCH, BATCH_ROUNDS, CALLS, ROUNDS, Work, cpu_ratios, report, setup
from .processes import environment, running

TASK = "benchmarks.benchmark_tasks.work"


def sends() -> tuple[Work, Work, Work, Work]:
    """``enqueue``, its baseline, ``enqueue_many``, and its baseline."""
    setup()
    from django.tasks import task_backends

    from beanstalk_dispatch.client import Call, schedule_function, schedule_many

    from .benchmark_tasks import work

    backend: Any = task_backends["default"]
    return (
        lambda: work.enqueue(1, "two", x=3),
        lambda: schedule_function("q", TASK, 1, "two", x=3),
        lambda: backend.enqueue_many([(work, (n, "two"), {"x": 3}) for n in range(BATCH)]),
        lambda: schedule_many("q", [Call(TASK, (n, "two"), {"x": 3}) for n in range(BATCH)]),
    )


def runs() -> tuple[Work, Work]:
    """A Django task, and the same function from the table, as a consumer runs them."""
    from beanstalk_dispatch.delivery import Delivery
    from beanstalk_dispatch.execution import executor
    from beanstalk_dispatch.message import Message

    def run(function: str) -> Callable[[], object]:
        body = Message(function=function, args=(1, "two"), kwargs={"x": 3}).encode(queue="q")
        return lambda: executor.run(body, Delivery(queue="q"))

    return run(TASK), run("work")


def main() -> int:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        stub = stack.enter_context(running("benchmarks.processes", "sqs", "0"))
        assert stub.stdout
        env = environment(f"http://127.0.0.1:{stub.stdout.readline().strip()}", directory)
        env["BEANSTALK_DISPATCH_TABLE"] = "work=benchmarks.benchmark_tasks.plain"
        env["BEANSTALK_DISPATCH_TASKS"] = "benchmarks.benchmark_tasks"
        env["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        os.environ.clear()
        os.environ.update(env)
        one, baseline, many, many_baseline = sends()
        task, plain = runs()
        met = [
            report(
                "enqueue", cpu_ratios(one, baseline, ROUNDS, CALLS), "≤1.05",
                unit="schedule_function",
            ),
            report(
                f"enqueue_many of {BATCH}", cpu_ratios(many, many_baseline, BATCH_ROUNDS, 1),
                "≤1.10", unit="schedule_many",
            ),
            report(
                "the run of a Django task", cpu_ratios(task, plain, ROUNDS, CALLS), "≤5.0",
                unit="the run of a function",
            ),
        ]  # fmt: skip
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
