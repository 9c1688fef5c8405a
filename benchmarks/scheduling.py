"""Measure how long scheduling keeps its caller waiting, at 5 ms of latency to SQS.

``python -m benchmarks.scheduling`` takes half a minute. Each row and its baseline take turns in the
same run, and a row that compares the baseline with itself shows the noise. The exit code is 1 if a
target is missed. SQS is a stub in another process, on loopback.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Final

from .hot_paths import Work, body, report, setup
from .processes import environment, running

LATENCY_MS: Final = 5
ROUNDS: Final = 9
CALLS: Final = 50
MANY: Final = 1_000


def wall_ratios(ours: Work, baseline: Work, *, after: Work = lambda: None) -> list[float]:
    """Return elapsed time of ``ours`` divided by that of ``baseline``, for each round.

    ``after`` is called after each of them, and its time is not counted.
    """
    used: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, ROUNDS):  # the first warms up
        for side in (0, 1) if number % 2 else (1, 0):
            started = time.perf_counter()
            (ours, baseline)[side]()
            used[side].append(time.perf_counter() - started)
            after()
    best = [min(each[1:]) * 1e3 for each in used]
    print(f"{'':<12}fastest round: {best[0]:,.1f} ms of {best[1]:,.1f} ms")
    return [mine / theirs for mine, theirs in zip(*used, strict=True)][1:]


def raw_sends() -> Work:
    """CALLS requests, one after the other."""
    client, url = setup()
    text = body(1, "two")

    def send() -> None:
        for _ in range(CALLS):
            client.send_message(QueueUrl=url, MessageBody=text)

    return send


def raw_batches() -> Work:
    """MANY messages in batches of ten, one after the other."""
    client, url = setup()
    entries = [{"Id": str(n), "MessageBody": body(n, "two")} for n in range(10)]

    def send() -> None:
        for _ in range(MANY // 10):
            client.send_message_batch(QueueUrl=url, Entries=entries)

    return send


def on_commit() -> None:
    from django.db import transaction

    from beanstalk_dispatch.client import Call, schedule

    with transaction.atomic():
        for n in range(CALLS):
            schedule("q", Call("f", (n, "two"), {"x": 3}), on_commit=True)


def block() -> None:
    from beanstalk_dispatch.client import Call, batching, schedule

    with batching():
        for n in range(CALLS):
            schedule("q", Call("f", (n, "two"), {"x": 3}))


def outbox_one_by_one() -> None:
    from django.db import transaction

    from beanstalk_dispatch.client import Call, schedule

    with transaction.atomic():
        for n in range(CALLS):
            schedule("q", Call("f", (n, "two"), {"x": 3}))


def outbox_many() -> None:
    from django.db import transaction

    from beanstalk_dispatch.client import Call, schedule_many

    with transaction.atomic():
        schedule_many("q", [Call("f", (n, "two"), {"x": 3}) for n in range(CALLS)])


def turn_outbox_on() -> Work:
    """Have every further call stored. Returns what waits until all of them are sent."""
    from django.core.management import call_command

    from beanstalk_dispatch.conf import clear_caches
    from beanstalk_dispatch.contrib.outbox.sender import SENDER

    call_command("migrate", verbosity=0)
    os.environ["BEANSTALK_DISPATCH_OUTBOX"] = "always"
    clear_caches()
    return lambda: SENDER.flush(30)


def many() -> None:
    from beanstalk_dispatch.client import Call, schedule_many

    schedule_many("q", [Call("f", (n, "two"), {"x": 3}) for n in range(MANY)])


def gather() -> None:
    from beanstalk_dispatch.client import aschedule_function

    async def schedule_all() -> None:
        await asyncio.gather(*(aschedule_function("q", "f", n, "two", x=3) for n in range(CALLS)))

    asyncio.run(schedule_all())


def main() -> int:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        stub = stack.enter_context(running("benchmarks.processes", "sqs", str(LATENCY_MS)))
        assert stub.stdout
        env = environment(f"http://127.0.0.1:{stub.stdout.readline().strip()}", directory)
        env["DJANGO_SETTINGS_MODULE"] = "benchmarks.outbox_settings"
        env["DATABASE_URL"] = f"sqlite:///{directory}/db"
        os.environ.clear()
        os.environ.update(env)
        sends, batches = raw_sends(), raw_batches()
        unit = f"{CALLS} × send_message"
        met = [
            report("the baseline against itself", wall_ratios(sends, sends), "≤1.1", unit=unit),
            report(f"{CALLS} with on_commit", wall_ratios(on_commit, sends), "≤0.10", unit=unit),
            report(f"{CALLS} with batching", wall_ratios(block, sends), "≤0.06", unit=unit),
            report(f"gather of {CALLS}", wall_ratios(gather, sends), "≤0.2", unit=unit),
            report(
                f"schedule_many of {MANY:,}", wall_ratios(many, batches), "≤0.2",
                unit="the same batches one by one",
            ),
        ]  # fmt: skip
        sent = turn_outbox_on()
        for name, work, target in (
            ("schedule_many", outbox_many, "≤0.03"),
            ("one INSERT for each", outbox_one_by_one, "≤0.10"),
        ):
            ratios = wall_ratios(work, sends, after=sent)
            met.append(report(f"{CALLS} with the outbox, {name}", ratios, target, unit=unit))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
