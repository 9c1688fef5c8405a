"""The poller under faults: nothing may be lost, and nothing repeated without need.

    python -m benchmarks.faults --ministack PATH

- kill: tasks while the worker is killed -9 about every second, until the queue is empty;
- slow: tasks that take longer than their turn, with a visibility timeout shorter than a task;
- outage: the SQS server is stopped for some seconds and started again.

Each prints what was scheduled, run, repeated and lost; the exit code is 1 if any was lost, or
repeated where it must not be.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from .drain import VARIABLES, process
from .processes import free_port, wait_for

TABLE = "mark=benchmarks.faults.mark"


def mark(path: str, number: int, seconds: float) -> None:
    """The task: wait, then leave a line."""
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write(f"{number}\n")


class Scene:
    """One queue, one file of marks, and a worker to start and to stop."""

    def __init__(self, name: str, port: int, folder: Path) -> None:
        self.name = name
        self.marks = folder / name
        self.marks.touch()
        os.environ["BEANSTALK_DISPATCH_QUEUES"] = f"faults=faults-{name}"
        os.environ["BEANSTALK_DISPATCH_SQS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        from beanstalk_dispatch.conf import get_config

        get_config.cache_clear()

    def schedule(self, tasks: int, seconds: float) -> None:
        from beanstalk_dispatch.client import Call, schedule_many

        self.tasks = tasks
        schedule_many("faults", [Call("mark", [str(self.marks), i, seconds]) for i in range(tasks)])

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "django", "beanstalk_worker", "faults", *options]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def runs(self) -> Counter[str]:
        return Counter(self.marks.read_text().split())

    def wait(self, seconds: float) -> None:
        """Until every task has left its mark, or so many seconds have passed."""
        deadline = time.monotonic() + seconds
        while len(self.runs()) < self.tasks and time.monotonic() < deadline:
            time.sleep(0.2)

    def report(self, note: str, *, may_repeat: bool) -> bool:
        runs = self.runs()
        lost, repeated = self.tasks - len(runs), runs.total() - len(runs)
        print(f"{self.name:<8} scheduled {self.tasks}, run {runs.total()}, repeated {repeated}, "
              f"lost {lost}; {note}", flush=True)  # fmt: skip
        return lost == 0 and (may_repeat or repeated == 0)


def kill(scene: Scene) -> bool:
    scene.schedule(1000, 0.01)
    kills, worker = 0, scene.worker("--visibility-timeout=3", "--wait=1", "--threads=4")
    deadline = time.monotonic() + 180
    while len(scene.runs()) < scene.tasks and time.monotonic() < deadline:
        time.sleep(random.uniform(1.2, 2.2))
        worker.kill()
        worker.wait()
        kills += 1
        worker = scene.worker("--visibility-timeout=3", "--wait=1", "--threads=4")
    time.sleep(5)  # what was held at the last kill comes back
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    from beanstalk_dispatch import sqs

    left = sqs.queue("faults").depth()
    return scene.report(f"{kills} kills, {left} left in the queue", may_repeat=True) and left == 0


def slow(scene: Scene) -> bool:
    scene.schedule(40, 3)
    worker = scene.worker("--visibility-timeout=5", "--threads=4", "--wait=1")
    scene.wait(90)
    time.sleep(7)  # a message that was to be repeated would be by now
    worker.send_signal(signal.SIGTERM)
    code = worker.wait(60)
    return scene.report(f"exit code {code}", may_repeat=False) and code == 0


def outage(scene: Scene, server: subprocess.Popen[bytes], seconds: float) -> bool:
    scene.schedule(200, 0.05)
    worker = scene.worker("--visibility-timeout=60", "--threads=4", "--wait=1")
    while len(scene.runs()) < 40:
        time.sleep(0.05)
    server.send_signal(signal.SIGSTOP)  # hangs, as a network that drops packets does
    time.sleep(seconds)
    server.send_signal(signal.SIGCONT)
    scene.wait(120)
    worker.send_signal(signal.SIGTERM)
    code = worker.wait(60)
    note = f"server away for {seconds:g} s, exit code {code}"
    return scene.report(note, may_repeat=True) and code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--outage", type=float, default=30, metavar="SECONDS")
    arguments = parser.parse_args()
    os.environ.update(VARIABLES | {"BEANSTALK_DISPATCH_TABLE": TABLE})
    import django

    django.setup()
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(
            process(arguments.ministack, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1")
        )
        wait_for(port)
        results = [
            kill(Scene("kill", port, folder)),
            slow(Scene("slow", port, folder)),
            outage(Scene("outage", port, folder), server, arguments.outage),
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
