"""How long a quiet queue waits beside a flooded one, in one worker of four threads.

    python -m benchmarks.turns [--seconds N] [--task SECONDS]

The tasks of the flooded queue take about three seconds. The quiet queue gets a message now and
then, whose task takes no time. The figures are the times from its sending to the start of its task.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from typing import Final

from .compare import Run, Side, started

THREADS: Final = 4
QUEUES: Final = ("flooded", "quiet")


def consume(seconds: float, task: float) -> None:
    """Run a worker for that time, and print the waits of the quiet queue."""
    import django

    django.setup()
    from beanstalk_dispatch.consumers.poller.in_flight import Ack
    from beanstalk_dispatch.consumers.poller.options import WorkerOptions
    from beanstalk_dispatch.consumers.poller.runners import TaskStarts
    from beanstalk_dispatch.consumers.poller.worker import Worker
    from beanstalk_dispatch.sqs.opening import open_queue
    from beanstalk_dispatch.sqs.queue import Received

    waits: dict[str, list[float]] = {name: [] for name in QUEUES}
    random.seed(1)

    def run(received: Received, on_start: TaskStarts) -> Ack:
        waits[received.queue.name].append(time.monotonic() - float(received.body))
        if received.queue.name == "flooded":
            time.sleep(random.uniform(0.75, 1.25) * task)
        return Ack()

    def send() -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(random.uniform(0.5, 1.5) * task)
            open_queue("quiet").send(str(time.monotonic()), {})
        worker.stop()

    for _ in range(int(seconds / task * THREADS) + 50):
        open_queue("flooded").send(str(time.monotonic()), {})
    worker = Worker(QUEUES, run, WorkerOptions(threads=THREADS, grace=0))
    threading.Thread(target=send, daemon=True).start()
    worker.run()
    print(json.dumps(waits))


def measure(run: Run, *, seconds: float, task: float = 3.0) -> dict[str, list[float]]:
    """Return the waits of each queue's messages, in seconds."""
    side = Side(name="worker", module="ours", env={
        "BEANSTALK_DISPATCH_QUEUES": " ".join(
            f"{name}={run.control.endpoint}/000000000000/{name}" for name in QUEUES
        ),
    })  # fmt: skip
    run.control.ask("Use", names=list(QUEUES))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.turns", "--consume",
         "--seconds", str(seconds), "--task", str(task)],
        env=run.environment(side), cwd=os.getcwd(), stdout=subprocess.PIPE, text=True,
        check=True, timeout=seconds + 120,
    )  # fmt: skip
    waits: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--task", type=float, default=3)
    parser.add_argument("--consume", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        consume(arguments.seconds, arguments.task)
        return
    with started(is_quick=True) as run:
        found = measure(run, seconds=arguments.seconds, task=arguments.task)
    waits = sorted(found["quiet"])
    print(
        f"{len(waits)} messages of the quiet queue waited {statistics.median(waits):.2f} s in the "
        f"median, {waits[-1]:.2f} s at most, beside {len(found['flooded'])} of the flooded one"
    )


if __name__ == "__main__":
    main()
