"""The hot paths, each against its baseline, the two taking turns in the same run.

``python -m benchmarks.hot_paths`` measures CPU time and requests per second, in about a minute;
with ``--instructions`` the instructions that callgrind counts, which noise does not reach.
Everything is on loopback. SQS is a stub in a process of its own, whose work is not counted.
Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from example_settings.demo import free_port, wait_for

Work = Callable[[], object]
SCHEDULE = "schedule_function, one call"
ROUNDS, CALLS = 150, 40
BATCH_ROUNDS, BATCH = 30, 500
LOAD_ROUNDS, LOAD_SECONDS = 15, 1.0
COUNTED = (100, 500)  # calls of the two runs whose difference is counted


@contextmanager
def running(*command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def environment(endpoint: str, home: str) -> dict[str, str]:
    """All there is to configure; nothing of this machine's AWS configuration gets in."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "PYTHONHASHSEED": "0",
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "SECRET_KEY": "for-benchmarks-only",
        "DATABASE_URL": "sqlite://:memory:",
        "LOG_LEVEL": "WARNING",
        "NO_PROXY": "127.0.0.1",
        "BEANSTALK_WORKER": "True",
        "BEANSTALK_DISPATCH_TABLE": "f=benchmarks.urls.no_op",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": endpoint,
        "BEANSTALK_DISPATCH_SQS_REGION": "eu-west-1",
        "BEANSTALK_DISPATCH_SQS_KEY": "benchmark",
        "BEANSTALK_DISPATCH_SQS_SECRET": "benchmark",
    }


# --- the output ------------------------------------------------------------------------------


def report(name: str, ratios: list[float], target: str, *, unit: str) -> bool:
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    limit = float(target[1:])
    met = median <= limit if target[0] == "≤" else median >= limit
    spread = f"quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds" if len(ratios) > 1 else ""
    mark = "PASS" if met else "FALLS SHORT"
    print(f"{mark:<12}{name}: {median:.3f} × {unit}, target {target}  {spread}", flush=True)
    return met


def cpu_ratios(ours: Work, baseline: Work, rounds: int, calls: int) -> list[float]:
    """CPU time of ``ours`` by that of ``baseline``, round by round; who begins alternates."""
    sides, ratios, used = (ours, baseline), [], [0.0, 0.0]
    for number in range(-2, rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            for _ in range(calls):
                sides[side]()
            used[side] = time.process_time() - started
        if number >= 0:
            ratios.append(used[0] / used[1])
    print(f"{'':<12}last round: {used[0] / calls * 1e6:.0f} µs of {used[1] / calls * 1e6:.0f} µs")
    return ratios


# --- the client ------------------------------------------------------------------------------


def setup() -> tuple[Any, str]:
    """Django, a normally built client and the URL of queue ``q``."""
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
    bodies = [body(number, "two") for number in range(BATCH)]

    def baseline() -> None:
        for start in range(0, BATCH, 10):
            entries = [
                {"Id": str(number), "MessageBody": text}
                for number, text in enumerate(bodies[start : start + 10])
            ]
            client.send_message_batch(QueueUrl=url, Entries=entries)

    def ours() -> None:
        schedule_many("q", [Call("f", (number, "two"), {"x": 3}) for number in range(BATCH)])

    return {"ours": ours, "baseline": baseline}


def count_instructions(side: str, calls: int, directory: str) -> int:
    """What callgrind counts in a process that makes so many calls; start-up included."""
    command = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/{side}.{calls}",
               sys.executable, "-m", "benchmarks.hot_paths", f"--run={side}", str(calls))  # noqa: E501 # fmt: skip
    done = subprocess.run(command, text=True, capture_output=True, timeout=600, check=True)
    (collected,) = re.findall(r"Collected : (\d+)", done.stderr)
    return int(collected)


def instructions(directory: str) -> bool:
    if shutil.which("valgrind") is None:
        print("valgrind is not installed; no instructions were counted")
        return False
    with ThreadPoolExecutor(2) as pool:  # a count does not depend on what else runs
        runs = {
            side: [pool.submit(count_instructions, side, calls, directory) for calls in COUNTED]
            for side in ("ours", "baseline")
        }
    few, many = COUNTED
    per_call = {
        side: (last.result() - first.result()) / (many - few)
        for side, (first, last) in runs.items()
    }
    print(f"{'':<12}per call: {per_call['ours']:,.0f} of {per_call['baseline']:,.0f}")
    ratio = per_call["ours"] / per_call["baseline"]
    return report(SCHEDULE, [ratio], "≤0.82", unit="raw boto3's instructions")


# --- the dispatcher view ---------------------------------------------------------------------


def view(env: dict[str, str]) -> bool:
    port = free_port()
    gunicorn = (sys.executable, "-m", "gunicorn", "django.core.wsgi:get_wsgi_application()",
                "--workers=1", "--threads=15", f"--bind=127.0.0.1:{port}",
                "--log-level=warning")  # fmt: skip
    rates: dict[str, list[float]] = {"beanstalk_dispatch": [], "empty": []}
    cpu: dict[str, list[float]] = {"beanstalk_dispatch": [], "empty": []}
    with running(*gunicorn, env=env):
        wait_for(port)
        for number in range(-1, LOAD_ROUNDS):
            for path in sorted(rates, reverse=bool(number % 2)):
                before = worker_cpu(port)
                rate = requests_per_second(port, path, env)
                if number >= 0:
                    rates[path].append(rate)
                    cpu[path].append((worker_cpu(port) - before) / rate)
    rate_ratios, cpu_ratios = (
        [ours / base for ours, base in zip(each["beanstalk_dispatch"], each["empty"], strict=True)]
        for each in (rates, cpu)
    )
    medians = [statistics.median(values) for values in rates.values()]
    print(f"{'':<12}{medians[0]:,.0f} of {medians[1]:,.0f} requests per second; worker CPU per "
          f"request {statistics.median(cpu_ratios):.3f} × the empty view's")  # fmt: skip
    return report(
        "dispatcher view, no-op task", rate_ratios, "≥0.9", unit="an empty view's requests/s"
    )


def worker_cpu(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/cpu")
    seconds: float = json.load(connection.getresponse())
    connection.close()
    return seconds


def requests_per_second(port: int, path: str, env: dict[str, str]) -> float:
    """What the load generator, a process of its own, got through."""
    content = body(1, "two").encode()
    request = (
        f"POST /{path}/dispatcher HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: aws-sqsd/3\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        "X-Aws-Sqsd-Msgid: 3ab1d0ab-5f50-4c1f-8a4f-6d3e9a4d3f64\r\nX-Aws-Sqsd-Queue: q\r\n"
        "X-Aws-Sqsd-First-Received-At: 2026-01-02T03:04:05Z\r\nX-Aws-Sqsd-Receive-Count: 1\r\n\r\n"
    ).encode() + content
    command = (sys.executable, "-m", "benchmarks.processes", "load", str(port), str(LOAD_SECONDS))
    done = subprocess.run(
        command, env=env, input=request, stdout=subprocess.PIPE, timeout=60, check=True
    )
    return float(done.stdout)


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
        stub = stack.enter_context(
            running(sys.executable, "-m", "benchmarks.processes", "sqs", env=dict(os.environ))
        )
        assert stub.stdout is not None
        endpoint = f"http://127.0.0.1:{stub.stdout.readline().strip()}"
        env = environment(endpoint, directory)
        os.environ.clear()
        os.environ.update(env)
        if options.instructions:
            return 0 if instructions(directory) else 1
        one, many = one_call(), many_calls()
        met = [
            report(SCHEDULE, cpu_ratios(**one, rounds=ROUNDS, calls=CALLS), "≤0.92",
                   unit="raw boto3's CPU time"),
            report(f"schedule_many of {BATCH}",
                   cpu_ratios(**many, rounds=BATCH_ROUNDS, calls=1), "≤1.2",
                   unit="raw boto3's CPU time"),
            view(env),
        ]  # fmt: skip
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
