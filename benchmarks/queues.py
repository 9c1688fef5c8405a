"""What more queues cost a worker: flooded ones, and idle ones beside a busy one.

    python -m benchmarks.queues --ministack PATH [--tasks N] [--rounds N]

Each round drains the same number of tasks from one queue, from 20 queues, and from one queue beside
50 idle ones, in a process each. The figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Final

from .processes import VARIABLES, free_port, process, wait_for

FLOODED: Final = 20
IDLE: Final = 50
CASES: Final = {"one": (1, 0), "flooded": (FLOODED, 0), "idle": (1, IDLE)}


def consume(busy: int, idle: int, tasks: int) -> None:
    """Schedule the tasks, run a worker until all are done, and print the figures."""
    import django
    from botocore.session import Session

    django.setup()
    from beanstalk_dispatch.client import Call, schedule_many
    from beanstalk_dispatch.consumers.poller.options import WorkerOptions
    from beanstalk_dispatch.consumers.poller.runners import run_here
    from beanstalk_dispatch.consumers.poller.worker import Worker
    from beanstalk_dispatch.sqs.opening import open_queue

    receives: list[float] = []
    make_client = Session.create_client

    def create_client(self: Session, *values: Any, **options: Any) -> Any:
        client = make_client(self, *values, **options)
        client.meta.events.register(
            "before-send.sqs.ReceiveMessage", lambda **about: receives.append(0)
        )
        return client

    Session.create_client = create_client  # type: ignore[method-assign]
    names = [f"queue{number}" for number in range(busy + idle)]
    for name in names[:busy]:
        schedule_many(name, [Call("noop", [i]) for i in range(tasks // busy)])
    for name in names[busy:]:
        open_queue(name)
    worker = Worker(names, run_here, WorkerOptions(wait=5))
    threads: list[int] = []

    def stop_when_done() -> None:
        threads.append(threading.active_count())
        if worker.counters.done >= tasks // busy * busy:
            figures["cpu"] = (time.process_time() - cpu) / tasks
            figures["receives"] = len(receives) / tasks
            worker.stop()

    figures: dict[str, float] = {}
    receives.clear()
    cpu = time.process_time()
    worker.run(stop_when_done)
    print(json.dumps(figures | {"threads": max(threads)}))


def measure(case: str, tasks: int, endpoint: str) -> dict[str, float]:
    busy, idle = CASES[case]
    prefix = f"{case}-{time.monotonic_ns()}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.queues", "--consume", case, "--tasks", str(tasks)],
        env=os.environ | VARIABLES | {
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": endpoint,
            "BEANSTALK_DISPATCH_QUEUES": " ".join(
                f"queue{number}={prefix}-{number}" for number in range(busy + idle)
            ),
        },
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--tasks", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--consume", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        consume(*CASES[arguments.consume], arguments.tasks)
        return
    port = free_port()
    results: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    with process(arguments.ministack, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1"):
        wait_for(port)
        for _ in range(arguments.rounds):
            for case, found in results.items():
                found.append(measure(case, arguments.tasks, f"http://127.0.0.1:{port}"))
    medians = {
        case: {name: statistics.median(each[name] for each in found) for name in found[0]}
        for case, found in results.items()
    }
    for case, figures in medians.items():
        print(f"{case:<8}{figures['cpu'] * 1000:8.3f} ms CPU per task, "
              f"{figures['receives']:.3f} receives per task, {figures['threads']:.0f} threads, "
              f"{figures['cpu'] / medians['one']['cpu']:.2f} × one queue")  # fmt: skip


if __name__ == "__main__":
    main()
