"""How long a quiet queue waits beside a flooded one, in one worker of four threads.

The tasks of the flooded queue take about three seconds. The quiet queue gets a message now and
then, whose task takes no time. The figures are the times from its sending to the start of its task.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from .compare import ROOT, Line, Quartiles, Run, Side, Target
from .peers import Peer

THREADS: Final = 4
TASK_SECONDS: Final = 3.0
QUEUES: Final = ("flooded", "quiet")


def consume(seconds: float) -> None:
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
            time.sleep(random.uniform(0.75, 1.25) * TASK_SECONDS)
        return Ack()

    def send() -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(random.uniform(0.5, 1.5) * TASK_SECONDS)
            open_queue("quiet").send(str(time.monotonic()), {})
        worker.stop()

    for _ in range(int(seconds / TASK_SECONDS * THREADS) + 50):
        open_queue("flooded").send(str(time.monotonic()), {})
    worker = Worker(QUEUES, run, WorkerOptions(threads=THREADS, grace=0))
    threading.Thread(target=send, daemon=True).start()
    worker.run()
    print(json.dumps(waits))


def turns(run: Run, peers: Sequence[Peer]) -> None:
    """The waits of the quiet queue's messages, over the seconds of the flooded queue's tasks."""
    side = Side(name="worker", module="ours", env={
        "BEANSTALK_DISPATCH_QUEUES": " ".join(
            f"{name}={run.control.endpoint}/000000000000/{name}" for name in QUEUES
        ),
    })  # fmt: skip
    run.control.ask("Use", names=list(QUEUES))
    seconds = run.rounds(45, 180)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.turns", str(seconds)],
        env=run.environment(side), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        timeout=seconds + 120,
    )  # fmt: skip
    waits: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    quiet = waits["quiet"]
    run.add(Line(
        row="a quiet queue beside a flooded one", side="beanstalk_worker, 4 threads",
        unit="message", wall=statistics.median(quiet), target=Target(0.4),
        wall_ratio=Quartiles.of([each / TASK_SECONDS for each in quiet]),
        note=f"over a task of 3 s; {len(quiet)} messages waited {max(quiet):.2f} s at most",
    ))  # fmt: skip


if __name__ == "__main__":
    consume(float(sys.argv[1]))
