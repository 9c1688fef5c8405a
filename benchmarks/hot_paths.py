"""Measure the hot paths. Each path and its baseline take turns in the same run.

``python -m benchmarks.hot_paths`` measures CPU time and requests per second. It takes about a
minute. With ``--instructions`` it counts instructions with callgrind, which takes some minutes and
does not depend on other load. The exit code is 1 if a target is missed.

All traffic is on loopback, and SQS is a stub. The stub and the load generator are other processes,
and their work is not counted. LOG_LEVEL is WARNING, so the log has no line for each task.

The targets of ``schedule_function`` were set when botocore built its User-Agent twice for each
request, and this package avoided that. Since version 1.44.6 botocore avoids it too. A call then
costs as much as a raw request, and misses these targets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from .processes import count_instructions, environment, gunicorn, post, running, worker_cpu

Work = Callable[[], object]
SCHEDULE = "schedule_function"
ROUNDS, CALLS = 300, 20
BATCH_ROUNDS, BATCH = 30, 500
SERVERS, LOAD_ROUNDS, LOAD_SECONDS = 3, 36, 0.15
COUNTED = (100, 500)  # calls in the two runs; the difference of their counts is used


def report(name: str, ratios: list[float], target: str, *, unit: str) -> bool:
    median = statistics.median(ratios)
    met = median <= float(target[1:]) if target[0] == "≤" else median >= float(target[1:])
    spread = ""
    if len(ratios) > 1:
        low, _, high = statistics.quantiles(ratios, n=4)
        spread = f"; quartiles {low:.3f} to {high:.3f} of {len(ratios)} rounds"
    mark = "PASS" if met else "FALLS SHORT"
    print(f"{mark:<12}{name}: {median:.3f} × {unit}, target {target}{spread}", flush=True)
    return met


def cpu_ratios(ours: Work, baseline: Work, rounds: int, calls: int) -> list[float]:
    """Return CPU time of ``ours`` divided by that of ``baseline``, for each round.

    The two take turns at being first.
    """
    used: tuple[list[float], list[float]] = ([], [])
    for number in range(-2, rounds):  # the first two warm up
        for side in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            for _ in range(calls):
                (ours, baseline)[side]()
            used[side].append((time.process_time() - started) / calls)
    medians = [statistics.median(each[2:]) * 1e6 for each in used]
    print(f"{'':<12}CPU: {medians[0]:,.0f} µs of {medians[1]:,.0f} µs")
    return [mine / theirs for mine, theirs in zip(*used, strict=True)][2:]


# --- the client ------------------------------------------------------------------------------


def setup() -> tuple[Any, str]:
    """Set up Django. Return a client that boto3 built, and the URL of queue ``q``."""
    import boto3
    import django

    django.setup()
    client = boto3.client(
        "sqs",
        endpoint_url=os.environ["BEANSTALK_DISPATCH_SQS_ENDPOINT_URL"],
        region_name=os.environ["BEANSTALK_DISPATCH_SQS_REGION"],
        aws_access_key_id=os.environ["BEANSTALK_DISPATCH_SQS_KEY"],
        aws_secret_access_key=os.environ["BEANSTALK_DISPATCH_SQS_SECRET"],
    )
    return client, client.get_queue_url(QueueName="q")["QueueUrl"]


def body(*args: Any) -> str:
    from beanstalk_dispatch.message import Message, now

    return Message(function="f", args=args, kwargs={"x": 3}, sent_at=now()).encode(queue="q")


def one_call() -> dict[str, Work]:
    from beanstalk_dispatch.client import schedule_function

    client, url = setup()
    text = body(1, "two")
    return {
        "ours": lambda: schedule_function("q", "f", 1, "two", x=3),
        "baseline": lambda: client.send_message(QueueUrl=url, MessageBody=text),
    }


def many_calls() -> dict[str, Work]:
    from beanstalk_dispatch.client import Call, schedule_many

    client, url = setup()
    entries = [{"Id": str(n % 10), "MessageBody": body(n, "two")} for n in range(BATCH)]

    def baseline() -> None:
        for start in range(0, BATCH, 10):
            client.send_message_batch(QueueUrl=url, Entries=entries[start : start + 10])

    def ours() -> None:
        schedule_many("q", [Call("f", (n, "two"), {"x": 3}) for n in range(BATCH)])

    return {"ours": ours, "baseline": baseline}


def instructions(directory: str) -> bool:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed; no instructions were counted")
        return False
    few, many = COUNTED
    with ThreadPoolExecutor(2) as pool:  # counts do not depend on other load
        sides = ("ours", "ours", "baseline", "baseline")
        counts = list(pool.map(count_instructions, sides, (few, many) * 2, [directory] * 4))
    ours, baseline = ((counts[i + 1] - counts[i]) / (many - few) for i in (0, 2))
    print(f"{'':<12}per call: {ours:,.0f} of {baseline:,.0f} instructions")
    return report(SCHEDULE, [ours / baseline], "≤0.82", unit="raw boto3's instructions")


# --- the dispatcher view ---------------------------------------------------------------------


def view(env: dict[str, str]) -> bool:
    """Compare the dispatcher with an empty view in the same gunicorn, in turns.

    This is repeated with several gunicorn processes, because the memory layout of one process
    favours one of the two.
    """
    rounds = [each for _ in range(SERVERS) for each in load_rounds(env)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(f"{'':<12}{medians[0]:,.0f} of {medians[2]:,.0f} requests per second; worker's CPU per "
          f"request: {medians[1] * 1e6:,.0f} µs of {medians[3] * 1e6:,.0f} µs")  # fmt: skip
    rates = [ours / baseline for ours, _, baseline, _ in rounds]
    return report("dispatcher", rates, "≥0.9", unit="an empty view's requests per second")


def load_rounds(env: dict[str, str]) -> list[list[float]]:
    """Return requests per second and CPU per request, of the dispatcher and of the empty view."""
    requests = [post(path, body(1, "two")) for path in ("beanstalk_dispatch", "empty")]
    rounds = []
    with gunicorn(env) as port, running("benchmarks.processes", "load", env=env) as load:
        assert load.stdin
        assert load.stdout
        for number in range(-2, LOAD_ROUNDS):  # the first two warm up
            figures = [0.0] * 4
            for side in (0, 1) if number % 2 else (1, 0):
                before = worker_cpu(port)
                order = {"port": port, "seconds": LOAD_SECONDS, "request": requests[side]}
                print(json.dumps(order), file=load.stdin, flush=True)
                answers, seconds = json.loads(load.stdout.readline())
                cpu = (worker_cpu(port) - before) / answers
                figures[2 * side : 2 * side + 2] = [answers / seconds, cpu]
            if number >= 0:
                rounds.append(figures)
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--run", choices=("ours", "baseline"), help=argparse.SUPPRESS)
    parser.add_argument("calls", type=int, nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:  # under callgrind
        work = one_call()[options.run]
        for _ in range(options.calls):
            work()
        return 0
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        stub = stack.enter_context(running("benchmarks.processes", "sqs"))
        assert stub.stdout
        env = environment(f"http://127.0.0.1:{stub.stdout.readline().strip()}", directory)
        os.environ.clear()
        os.environ.update(env)
        print(f"{'':<12}botocore {version('botocore')}, Django {version('django')}")
        if options.instructions:
            return 0 if instructions(directory) else 1
        one = cpu_ratios(**one_call(), rounds=ROUNDS, calls=CALLS)
        met = [report(SCHEDULE, one, "≤0.92", unit="raw send_message's CPU")]
        many = cpu_ratios(**many_calls(), rounds=BATCH_ROUNDS, calls=1)
        name = f"schedule_many of {BATCH}"
        met += [report(name, many, "≤1.2", unit="raw send_message_batch's CPU"), view(env)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
