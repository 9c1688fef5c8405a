"""End the process of a long task again and again. No item may be missed.

    python -m benchmarks.long_tasks --ministack PATH [--items N] [scene …]

A scene is ``consumer-database-end-lease``, such as ``endpoint-postgres-kill-lease``. The endpoint
is gunicorn with one worker and 15 threads behind nginx and ``beanstalk_daemon``, the poller is
``beanstalk_worker``. A kill is SIGKILL after a second of work, a stop is SIGTERM after three. With
a lease, which is in the database too, at most EVERY items may run twice a kill, and none after a
stop. Without one, a stop may repeat none either. Kills are not tried without one: each repeats its
leg, and the third makes a dead letter.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from beanstalk_dispatch.resuming import resume
from tests.services import free_port, nginx, postgres, until

from .processes import VARIABLES, process, wait_for
from .storm import children

EVERY: Final = 100
SCENES: Final = tuple(
    f"{consumer}-{database}-{end}"
    for consumer in ("endpoint", "poller")
    for database in ("postgres", "sqlite")
    for end in ("kill-lease", "stop-lease", "stop-none")
)


def work(path: str, pause: float) -> None:
    """Write the key of each row to a file."""
    from beanstalk_dispatch.contrib.outbox.models import OutboxMessage

    with Path(path).open("ab", buffering=0) as file:
        for row in resume(OutboxMessage.objects.order_by("pk"), every=EVERY):
            time.sleep(pause)
            file.write(f"{row.pk}\n".encode())


class Scene:
    """One consumer, its database, and the file of finished items."""

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.consumer, _, self.end, self.lease = name.split("-")
        self.items, self.log = folder / "items", folder / "log"
        self.items.touch()
        self._stack = stack
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def written(self) -> int:
        return self.items.read_bytes().count(b"\n")

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", *command], stderr=log, stdout=log)

    def begin(self) -> None:
        """Start the processes that are not ended by the scene, and then the one that is."""
        if self.consumer == "endpoint":
            port = self._stack.enter_context(nginx(self._port, proxy_read_timeout="100s"))
            url = f"http://127.0.0.1:{port}/beanstalk_dispatch/dispatcher"
            daemon = self.start(
                "django", "beanstalk_daemon", "long", url, "--wait=1", "--visibility-timeout=100",
                "--inactivity-timeout=95", "--error-visibility-timeout=5",
            )  # fmt: skip
            self._stack.callback(_end, daemon)
        self.restart()
        self._stack.callback(lambda: _end(self._process))

    def restart(self) -> None:
        if self.consumer == "poller":
            self._process = self.start("django", "beanstalk_worker", "long", "--wait=1",
                                       "--visibility-timeout=3")  # fmt: skip
            return
        self._process = self.start("gunicorn", "--workers=1", "--threads=15",
                                   f"--bind=127.0.0.1:{self._port}",
                                   "django.core.wsgi:get_wsgi_application()")  # fmt: skip
        wait_for(self._port)

    def interrupt(self) -> None:
        """End the process that works: gunicorn starts a killed worker again by itself."""
        assert self._process
        if self.end == "kill" and self.consumer == "endpoint":
            for pid in children(self._process.pid):
                os.kill(pid, signal.SIGKILL)
            return
        self._process.send_signal(signal.SIGKILL if self.end == "kill" else signal.SIGTERM)
        self._process.wait(60)
        self.restart()

    def run(self, items: int) -> int:
        """Interrupt the work until all is done. Return how often."""
        ends, seconds = 0, 1.0 if self.end == "kill" else 3.0
        while True:
            before = self.written()
            until(lambda: self.written() > before or self.is_done(items), 100)  # noqa: B023
            time.sleep(seconds)
            if self.is_done(items):
                return ends
            self.interrupt()
            ends += 1

    def is_done(self, items: int) -> bool:
        return f"\n{items}\n".encode() in self.items.read_bytes()[-20000:]


def _end(child: subprocess.Popen[bytes] | None) -> None:
    assert child
    child.terminate()
    child.wait(60)


def run_scene(name: str, items: int, endpoint_url: str, pause: float) -> bool:
    """Run one scene in this process, and print its line."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/db.sqlite3"
        if "postgres" in name:
            url = stack.enter_context(postgres())
        queue = f"long-{os.getpid()}"
        os.environ.update(VARIABLES | {
            "DJANGO_SETTINGS_MODULE": "benchmarks.long_tasks_settings", "DATABASE_URL": url,
            "LOG_LEVEL": "INFO",
            "BEANSTALK_DISPATCH_TABLE": "work=benchmarks.long_tasks.work",
            "BEANSTALK_DISPATCH_QUEUES": f"long={queue}",
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": endpoint_url,
            "BEANSTALK_DISPATCH_TASK_TIMEOUT": "90s",
            "BEANSTALK_DISPATCH_CRASH_LEDGER": f"{folder}/ledger",
        })  # fmt: skip
        if name.endswith("-lease"):
            os.environ["BEANSTALK_DISPATCH_LEASE_CACHE"] = "leases"
        import django

        django.setup()
        _fill(items)
        from beanstalk_dispatch.client import schedule_function

        scene = Scene(name, folder, stack)
        schedule_function("long", "work", str(scene.items), pause)
        began = time.monotonic()
        scene.begin()
        try:
            ends = scene.run(items)
        except AssertionError:
            print(f"{name}: {scene.written()} items, no more\n{scene.log.read_text()[-3000:]}")
            return False
        return _report(name, scene, items, ends, time.monotonic() - began)


def _fill(items: int) -> None:
    from django.core.management import call_command

    from beanstalk_dispatch.contrib.outbox.models import OutboxMessage

    call_command("migrate", verbosity=0)
    call_command("createcachetable")
    rows = (OutboxMessage(id=n, task_id=str(n), function="f", queue="q", body="{}")
            for n in range(1, items + 1))  # fmt: skip
    OutboxMessage.objects.bulk_create(rows, batch_size=500)


def _report(name: str, scene: Scene, items: int, ends: int, seconds: float) -> bool:
    counts = Counter(map(int, scene.items.read_text().split()))
    missed = set(range(1, items + 1)) - counts.keys()
    twice = counts.total() - len(counts)
    allowed = EVERY * ends if scene.end == "kill" else 0
    log = scene.log.read_text()
    print(
        f"{name}: {items} items, {ends} {scene.end}s in {seconds:.0f} s; missed {len(missed)}, "
        f"twice {twice} (at most {allowed}); legs {log.count('outcome=retry')}, "
        f"done {log.count('outcome=done')}",
        flush=True,
    )
    return not missed and twice <= allowed and log.count("outcome=done") == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--pause", type=float, default=0.0001, help="seconds of an item")
    parser.add_argument("--endpoint", help="SQS's, of a scene")
    parser.add_argument("scenes", nargs="*", default=SCENES)
    arguments = parser.parse_args()
    if arguments.endpoint:
        (name,) = arguments.scenes
        return 0 if run_scene(name, arguments.items, arguments.endpoint, arguments.pause) else 1
    port = free_port()
    with process(arguments.ministack, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1"):
        wait_for(port)
        command = [sys.executable, "-m", "benchmarks.long_tasks", f"--items={arguments.items}",
                   f"--pause={arguments.pause}", f"--endpoint=http://127.0.0.1:{port}"]  # fmt: skip
        # A process each: Django is set up once.
        codes = [subprocess.run([*command, each], check=False).returncode
                 for each in arguments.scenes]  # fmt: skip
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
