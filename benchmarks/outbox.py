"""Kill processes that use the outbox at every step, and take SQS away. Nothing may be lost.

    python -m benchmarks.outbox [--kills N] [--outage SECONDS] [--claims ROWS] [sqlite] [postgres]

Each killed process has a row of its own in the table ``orders``, in the transaction that schedules
its task. In the end SQS must have a message for each of these rows and for no other, in order
within each FIFO group. A message that SQS has twice must have one task id. Then eight threads
schedule while SQS does not answer for a time; their longest call is printed. At last, claims are
timed beside as many rows of a queue that nobody sends. The exit code is 1 if something is not as it
must be.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NoReturn

from tests.services import postgres

KEY: Final = "a-key-of-this-benchmark"
GROUPS: Final = 5
THREADS: Final = 8
PAUSE: Final = 0.02
"""Between two transactions of a thread while SQS does not answer."""


# --- SQS, in a process of its own ------------------------------------------------------------


class Sqs:
    """Appends what it takes to a file. While another file exists, it answers nothing useful."""

    def __init__(self, folder: Path) -> None:
        self.taken, self.down = folder / "taken", folder / "down"
        self.taken.touch()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def messages(self) -> list[dict[str, Any]]:
        """What was taken, in order."""
        return [json.loads(line) for line in self.taken.read_text().splitlines()]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sqs, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet for each answer; a second one could wait 40 ms

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                operation = self.headers["X-Amz-Target"].partition(".")[2]
                if sqs.down.exists():
                    self.close_connection = True
                    time.sleep(float(sqs.down.read_text() or 0))
                    return
                if operation == "GetQueueUrl":
                    self._answer({"QueueUrl": f"{sqs.url}/0/{asked['QueueName']}"})
                    return
                lines = "".join(f"{json.dumps(each)}\n" for each in asked["Entries"])
                with lock, sqs.taken.open("a") as file:
                    file.write(lines)
                sent = [{"Id": each["Id"], "MessageId": each["Id"]} for each in asked["Entries"]]
                self._answer({"Successful": sent})

            def _answer(self, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        return Handler


@contextmanager
def child(run: Callable[[], object]) -> Iterator[int]:
    """Run a function in a forked process, which is killed at the end of the block."""
    pid = os.fork()
    if not pid:
        run()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# --- the project -----------------------------------------------------------------------------


def set_up(database_url: str, sqs: Sqs) -> None:
    os.environ.update({
        "DJANGO_SETTINGS_MODULE": "benchmarks.outbox_settings",
        "SECRET_KEY": "for-benchmarks-only",
        "DATABASE_URL": database_url,
        "LOG_LEVEL": "CRITICAL",
        "BEANSTALK_DISPATCH_TABLE": "f=benchmarks.urls.no_op",
        "BEANSTALK_DISPATCH_QUEUES": "standard=standard fifo=orders.fifo",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": sqs.url,
        "BEANSTALK_DISPATCH_SQS_REGION": "eu-west-1",
        "BEANSTALK_DISPATCH_SQS_KEY": "benchmark",
        "BEANSTALK_DISPATCH_SQS_SECRET": "benchmark",
        "BEANSTALK_DISPATCH_SIGNING_KEYS": KEY,
        "BEANSTALK_DISPATCH_SEND_TIMEOUT": "1s",
        "BEANSTALK_DISPATCH_OUTBOX": "always",
    })  # fmt: skip
    import boto3  # noqa: F401 - before the forks, so that no child has to
    import django
    from django.core.management import call_command
    from django.db import connection, connections

    django.setup()
    from beanstalk_dispatch.contrib.outbox import relay

    relay.POLL_SECONDS = 0.1  # type: ignore[misc]
    relay.CLAIM_MARGIN_SECONDS = 0.0  # type: ignore[misc]
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (label VARCHAR(50))")
    connections.close_all()


def order(label: str, group: str | None) -> None:
    """Write a row of the project's own, and schedule its task."""
    from django.db import connection

    from beanstalk_dispatch.client import Call, schedule

    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (%s)", [label])
    queue = "fifo" if group else "standard"
    schedule(queue, Call("f", [label], {"group": group}, group_id=group))


def orders() -> set[str]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT label FROM orders")
        return {label for (label,) in cursor.fetchall()}


# --- kills -----------------------------------------------------------------------------------


def kill(*args: object, **kwargs: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def before_commit() -> None:
    from django.db import connection

    connection.ensure_connection()
    setattr(connection, "_commit", kill)  # noqa: B010 - Django's own, which mypy does not know


def after_commit() -> None:
    from beanstalk_dispatch.contrib.outbox.sender import SENDER

    setattr(SENDER, "wake", kill)  # noqa: B010


def before_send() -> None:
    from beanstalk_dispatch.contrib.outbox import relay

    setattr(relay, "send_batches", kill)  # noqa: B010 - mypy knows another type


def between_send_and_delete() -> None:
    from beanstalk_dispatch.contrib.outbox import relay

    setattr(relay, "_delete_rows", kill)  # noqa: B010


def at_any_moment() -> None:
    """The parent kills."""


STEPS: Final = (before_commit, after_commit, before_send, between_send_and_delete, at_any_moment)


def one_process(step: Callable[[], None], number: int) -> None:
    """Schedule, one transaction for each task, until the step that kills this process."""
    from django.db import transaction

    from beanstalk_dispatch.contrib.outbox.sender import SENDER

    step()
    for attempt in range(1000):
        with transaction.atomic():
            label = f"{number:05}-{attempt:03}"
            order(label, f"g{number % GROUPS}" if number % 2 else None)
        if step is not at_any_moment:
            SENDER.flush(20)
    os._exit(1)


def kills(step: Callable[[], None], count: int, first_number: int) -> int:
    """Kill ``count`` processes at one step; how many ended in another way."""
    from django.db import connections

    connections.close_all()  # two processes must not use one
    survived = 0
    for number in range(first_number, first_number + count):
        pid = os.fork()
        if not pid:
            one_process(step, number)
        if step is at_any_moment:
            time.sleep(random.uniform(0.01, 0.3))
            os.kill(pid, signal.SIGKILL)
        survived += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL
    return survived


def send_what_is_left(seconds: float) -> int:
    """Run a relay until nothing waits, and return how many messages still do."""
    from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
    from beanstalk_dispatch.contrib.outbox.relay import Relay

    relay, deadline = Relay(), time.monotonic() + seconds
    relay.run(lambda: time.monotonic() > deadline or not OutboxMessage.objects.exists())
    return OutboxMessage.objects.count()


# --- the report ------------------------------------------------------------------------------


def report(name: str, sqs: Sqs, *, left: int, note: str, is_well: bool = True) -> bool:
    """Compare the orders with what SQS has taken, and print that."""
    ids: dict[str, list[str]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    for entry in sqs.messages():
        body = json.JSONDecoder().raw_decode(entry["MessageBody"])[0]
        label = body["args"][0]
        if label not in ids and "MessageGroupId" in entry:
            groups[entry["MessageGroupId"]].append(label)
        ids[label].append(body["id"])
    committed = orders()
    lost, unwanted = committed - ids.keys(), ids.keys() - committed
    twice = sum(len(each) - 1 for each in ids.values())
    several_ids = sum(len(set(each)) > 1 for each in ids.values())
    unordered = sum(labels != sorted(labels) for labels in groups.values())
    is_well = is_well and not (lost or unwanted or several_ids or unordered or left)
    print(
        f"{'ok' if is_well else 'NOT OK':<7}{name:<28} committed {len(committed)}, lost "
        f"{len(lost)}, not committed but sent {len(unwanted)}, sent again {twice} (with another "
        f"id {several_ids}), groups out of order {unordered} of {len(groups)}, left {left}; {note}",
        flush=True,
    )
    return is_well


def kill_at_every_step(name: str, sqs: Sqs, count: int) -> bool:
    results = []
    for position, step in enumerate(STEPS):
        started = time.monotonic()
        survived = kills(step, count, position * count)
        left = send_what_is_left(300)
        note = f"{count} kills in {time.monotonic() - started:.0f} s, {survived} survived"
        step_name = f"{name} {step.__name__.replace('_', ' ')}"
        results.append(report(step_name, sqs, left=left, note=note, is_well=not survived))
    return all(results)


def schedule_under_load(number: int, until: float, longest: list[float]) -> None:
    """Schedule in a group of this thread's own; note how long the calls with their commit take."""
    from django.db import connection, transaction

    attempt = 0
    while time.monotonic() < until:
        started = time.monotonic()
        with transaction.atomic():
            order(f"load-{number}-{attempt:06}", f"load-{number}" if number % 2 else None)
        longest.append(time.monotonic() - started)
        attempt += 1
        time.sleep(PAUSE)
    connection.close()


def sqs_away(name: str, sqs: Sqs, seconds: float) -> bool:
    """SQS hangs for half of the time, and closes connections for the other half."""
    from django.db import connections

    from beanstalk_dispatch.contrib.outbox.relay import Relay

    connections.close_all()
    took: list[float] = []
    until = time.monotonic() + 2 * seconds
    with child(lambda: Relay().run(lambda: False)):
        arguments = [(number, until, took) for number in range(THREADS)]
        threads = [threading.Thread(target=schedule_under_load, args=each) for each in arguments]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        sqs.down.write_text("30")
        time.sleep(seconds / 2)
        sqs.down.write_text("")
        time.sleep(seconds / 2)
        sqs.down.unlink()
        for thread in threads:
            thread.join()
        ended = time.monotonic()
        left = send_what_is_left(300)
    took.sort()
    middle, high = (took[len(took) * percent // 100] * 1e3 for percent in (50, 99))
    note = (
        f"{len(took)} calls, {seconds:g} s without SQS: median {middle:.1f} ms, 99 % {high:.1f} "
        f"ms, longest {took[-1] * 1e3:.0f} ms; all sent {time.monotonic() - ended:.1f} s after the "
        "load"
    )
    return report(f"{name} SQS away", sqs, left=left, note=note)


# --- claims ----------------------------------------------------------------------------------


def fill(queue: str, groups: int, count: int) -> None:
    from beanstalk_dispatch.contrib.outbox.models import OutboxMessage

    names = [f"g{n}" for n in range(groups)] or [""]
    rows = (
        OutboxMessage(task_id=str(n), function="f", queue=queue, fifo_group=name)
        for n, name in zip(range(count), itertools.cycle(names), strict=False)
    )
    OutboxMessage.objects.bulk_create(rows, batch_size=5000)


def time_claims(name: str, count: int) -> None:
    """Print how long a claim takes, from the look for a queue's messages to their rows."""
    from django.db import connection

    from beanstalk_dispatch.contrib.outbox.claims import Heads, claim, database_now
    from beanstalk_dispatch.contrib.outbox.models import OutboxMessage

    for groups in (0, 1, 10, 1000):
        OutboxMessage.objects.all().delete()
        with connection.cursor() as cursor:
            cursor.execute("VACUUM")  # or what the last round has deleted is passed over
        fill("dead", groups, count)
        fill("live", groups, count)
        heads, took = Heads(), []
        for _ in range(50):
            started = time.perf_counter()
            now = database_now("default")
            ids = heads.find("default", "live", now, 80)
            claimed = claim("default", "live", ids, now=now, seconds=60)
            took.append(time.perf_counter() - started)
            assert claimed
            OutboxMessage.objects.filter(id__in=[row.id for row in claimed.rows]).delete()
        took.sort()
        print(
            f"{'':<7}{f'{name} claims':<28} {count} rows in {groups} groups beside {count} of a "
            f"dead queue: shortest {took[0] * 1e3:.1f} ms, median {took[25] * 1e3:.1f} ms, longest "
            f"{took[-1] * 1e3:.1f} ms",
            flush=True,
        )


def run(name: str, kills_per_step: int, outage: float, claims: int) -> NoReturn:
    """Everything with one database, in a process of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgres()) if name == "postgres" else f"sqlite:///{folder}/db"
        sqs = Sqs(folder)
        stack.enter_context(child(sqs.server.serve_forever))
        set_up(url, sqs)
        is_well = kill_at_every_step(name, sqs, kills_per_step) if kills_per_step else True
        is_well = (sqs_away(name, sqs, outage) if outage else True) and is_well
        if claims:
            time_claims(name, claims)
    sys.exit(0 if is_well else 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("databases", nargs="*", metavar="DATABASE", help="sqlite, postgres")
    parser.add_argument("--kills", type=int, default=200, help="at each of five steps")
    parser.add_argument("--outage", type=float, default=60, help="in seconds")
    parser.add_argument("--claims", type=int, default=100_000, help="rows for the claims; 0: none")
    arguments = parser.parse_args()
    codes = []
    for name in arguments.databases or ("sqlite", "postgres"):
        pid = os.fork()
        if not pid:
            run(name, arguments.kills, arguments.outage, arguments.claims)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
