"""Run the poller under faults of the queue. No task may be lost, and none may run twice.

    python -m benchmarks.faults --ministack PATH [SCENE…]

Each scene runs ``beanstalk_worker`` in its own process. It prints how many tasks were scheduled,
run, repeated and lost, and whether that is correct. The exit code is 1 if a scene is not correct.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch.safe_task import SafeTask
from tests.proxy import Answer, Proxy, error

from .processes import VARIABLES, free_port, process, wait_for

TABLE = "mark=benchmarks.faults.mark fails=benchmarks.faults.FailsOnce"


def mark(path: str, label: str, seconds: float) -> None:
    """Wait, then write a line. This is the task."""
    time.sleep(seconds)
    with Path(path).open("a") as file:
        file.write(f"{label}\n")


class FailsOnce(SafeTask):
    """Fail the first time, and write a line the second time."""

    retry_backoff = timedelta(seconds=2)
    verbose = False

    def run(self, path: str, label: str) -> None:
        time.sleep(0.05)
        failed = Path(f"{path}.{label}")
        if not failed.exists():
            failed.touch()
            raise RuntimeError("this task fails the first time")
        mark(path, label, 0)


class Scene:
    """One queue, one file in which each run writes a line, and a proxy that can refuse requests."""

    def __init__(self, name: str, proxy: Proxy, path: Path):
        self.name, self.proxy = name, proxy
        self.marks, self.log = path / name, path / f"{name}.log"
        self.marks.touch()
        self.tasks = 0
        self.began = time.monotonic()
        self.proxy.counts.clear()
        self.configure()

    def configure(self, suffix: str = "", **variables: str) -> None:
        """Set the environment for this scene, with its own queue and with ``variables``."""
        os.environ |= VARIABLES | {
            "BEANSTALK_DISPATCH_TABLE": TABLE,
            "BEANSTALK_DISPATCH_QUEUES": f"faults=faults-{self.name}{suffix}",
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": self.proxy.url,
            "BEANSTALK_DISPATCH_TASK_TIMEOUT": "2m",
            **variables,
        }
        from beanstalk_dispatch.conf import clear_caches

        clear_caches()

    @property
    def queue(self) -> Any:
        from beanstalk_dispatch.sqs.opening import open_queue

        return open_queue("faults")

    def schedule(self, tasks: int, seconds: float) -> None:
        self.send(("mark", [str(self.tasks + i), seconds]) for i in range(tasks))

    def send(self, calls: Any, **options: Any) -> None:
        from beanstalk_dispatch.client import Call, schedule_many

        made = [Call(name, [str(self.marks), *args], **options) for name, args in calls]
        schedule_many("faults", made)
        self.tasks += len(made)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "django", "beanstalk_worker", "faults", *options]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stderr=log, env=os.environ | {"LOG_LEVEL": "INFO"})

    @contextmanager
    def worker(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker until the block ends, stop it, and expect exit code 0."""
        child = self.start(*options)
        try:
            yield child
            child.send_signal(signal.SIGTERM)
            code = child.wait(60)
            assert code == 0, f"exit code {code}"
        finally:
            child.kill()

    def runs(self) -> list[str]:
        return self.marks.read_text().split()

    def logged(self, text: str) -> int:
        return self.log.read_text().count(text)

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Wait until ``condition`` holds. If it never does, the report shows that."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)

    def until_run(self, tasks: int | None = None, seconds: float = 120) -> None:
        """Wait until ``tasks`` different tasks, or all of them, have written their line."""
        needed = self.tasks if tasks is None else tasks
        self.until(lambda: len(set(self.runs())) >= needed, seconds)

    def report(self, note: str, *, is_well: bool = True) -> bool:
        runs = self.runs()
        lost, repeated = self.tasks - len(set(runs)), len(runs) - len(set(runs))
        is_well = is_well and lost == repeated == 0
        took = time.monotonic() - self.began
        print(
            f"{'ok' if is_well else 'NOT OK':<7}{self.name:<8}{took:5.0f} s  scheduled "
            f"{self.tasks}, run {len(runs)}, repeated {repeated}, lost {lost}; {note}",
            flush=True,
        )
        return is_well


TROUBLE: Final = [
    error(500, "InternalFailure"),
    error(503, "ServiceUnavailable"),
    error(400, "ThrottlingException", "Rate exceeded"),
    error(403, "RequestThrottled"),
    error(403, "ExpiredTokenException", "The security token included in the request is expired"),
]


def trouble(scene: Scene) -> bool:
    """Refuse every request for a while, with one error after another."""
    scene.schedule(400, 0.05)
    current: list[Answer] = []
    scene.proxy.spoil = lambda operation, request: current[0] if current else None
    with scene.worker("--threads=4", "--wait=1"):
        for number, answer in enumerate(TROUBLE):
            scene.until_run(40 + 60 * number)
            current.append(answer)
            time.sleep(5)
            current.clear()
        scene.until_run()
        time.sleep(1)
    errors, recovered = scene.logged("ERROR"), scene.logged("recovered")
    left = scene.queue.depth()
    return scene.report(
        f"{len(TROUBLE)} kinds of trouble, 5 s each; {errors} errors and {recovered} recoveries "
        f"logged, {left} left",
        is_well=errors <= 3 and recovered >= 1 and left == 0,
    )


def deleted(scene: Scene) -> bool:
    """Delete the queue while the worker runs, and create it again half a minute later."""
    scene.schedule(20, 0.01)
    queue = scene.queue
    scene.configure(BEANSTALK_DISPATCH_CREATE_QUEUES="False")
    with scene.worker("--threads=4", "--wait=1"):
        scene.until_run()
        time.sleep(1)
        queue.client.delete_queue(QueueUrl=queue.url)
        time.sleep(30)
        scene.configure()
        made = time.monotonic()
        scene.schedule(20, 0.01)
        scene.until_run()
        took = time.monotonic() - made
    return scene.report(f"recovered {took:.0f} s after the queue was back")


def stop(scene: Scene) -> bool:
    """Send SIGTERM under load. Messages that have not started must be visible at once."""
    scene.schedule(200, 0.5)
    with scene.worker("--threads=4", "--wait=1"):
        scene.until_run(12)
        asked = time.monotonic()
    took, run, visible = time.monotonic() - asked, len(scene.runs()), scene.queue.depth()
    scene.start("--threads=40", "--burst").wait(60)
    return scene.report(
        f"stopped in {took:.1f} s, {run} run and {visible} visible then",
        is_well=run + visible == scene.tasks and took < 4,
    )


def idle(scene: Scene) -> bool:
    """Count the requests of an idle minute, and then stop the worker."""
    with scene.worker("--threads=20") as child:
        scene.until(lambda: scene.proxy.counts["ReceiveMessage"])
        scene.proxy.counts.clear()
        time.sleep(60)
        counts = dict(scene.proxy.counts)
        asked = time.monotonic()
        child.send_signal(signal.SIGTERM)
        child.wait(30)
        took = time.monotonic() - asked
    return scene.report(
        f"{counts} in a minute, stopped in {took:.1f} s",
        # One request at a time waits for five seconds, which --wait is by default.
        is_well=counts.keys() == {"ReceiveMessage"} and counts["ReceiveMessage"] <= 60 / 5 + 1,
    )


def fifo(scene: Scene) -> bool:
    """Let every fifth task of a FIFO group fail once. The order must be kept."""
    scene.configure(".fifo")
    groups = [f"g{i}" for i in range(4)]
    for group in groups:
        calls = [
            ("mark", [f"{group}-{i}", 0.02]) if i % 5 else ("fails", [f"{group}-{i}"])
            for i in range(20)
        ]
        scene.send(calls, group_id=group)
    with scene.worker("--threads=8", "--wait=1"):
        scene.until_run()
    in_order = all(
        [int(run.partition("-")[2]) for run in scene.runs() if run.startswith(f"{group}-")]
        == list(range(20))
        for group in groups
    )
    failed = len(list(scene.marks.parent.glob(f"{scene.name}.g*")))
    return scene.report(f"{failed} failures, in order: {in_order}", is_well=in_order)


SCENES: Final[dict[str, Callable[[Scene], bool]]] = {
    each.__name__: each for each in (trouble, deleted, stop, idle, fifo)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join(SCENES))
    parser.add_argument("--ministack", default="ministack")
    arguments = parser.parse_args()
    os.environ.update(VARIABLES)
    import django

    django.setup()
    results = []
    for name in arguments.scenes or SCENES:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = free_port()
            stack.enter_context(
                process(arguments.ministack, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1")
            )
            wait_for(port)
            proxy = stack.enter_context(Proxy(f"http://127.0.0.1:{port}"))
            scene = Scene(name, proxy, folder)
            try:
                results.append(SCENES[name](scene))
            except AssertionError as exc:
                results.append(scene.report(str(exc), is_well=False))
            if not results[-1]:
                print(scene.log.read_text()[-4000:])
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
