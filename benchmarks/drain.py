"""Drain a queue of tasks that do nothing, with our poller and with a hand-written loop.

    python -m benchmarks.drain --ministack PATH [--tasks N] [--latency MS] [--rounds N]
                               [--threads N] [--hand-threads N]

Both run in turns in the same run, and their medians are compared. PATH is the ``ministack``
command in its own virtual environment, which ``make benchmark-drain`` creates. The SQS server
runs in another process, so that only the consumer's CPU is counted. Requests are counted with
botocore's events. ``--latency`` puts a proxy that delays each request in between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beanstalk_dispatch.sqs.queue import Queue
from beanstalk_dispatch.worker.options import WorkerOptions

from .processes import free_port, wait_for

VARIABLES = {
    "BEANSTALK_WORKER": "True",
    "BEANSTALK_DISPATCH_TABLE": "noop=benchmarks.drain.noop",
    "BEANSTALK_DISPATCH_CREATE_QUEUES": "True",
    "BEANSTALK_DISPATCH_SQS_KEY": "key",
    "BEANSTALK_DISPATCH_SQS_SECRET": "secret",
    "BEANSTALK_DISPATCH_SQS_REGION": "us-east-1",
    "DJANGO_SETTINGS_MODULE": "example_settings.settings",
    "SECRET_KEY": "benchmark",
    "DATABASE_URL": "sqlite://:memory:",
    "LOG_LEVEL": "WARNING",  # the log has no line for each task
}


def noop(number: int) -> None:
    """Do nothing. This is the task."""


@contextmanager
def process(*command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(10)


# --- the delaying proxy ----------------------------------------------------------------------


async def delay_proxy(port: int, upstream: int, seconds: float) -> None:
    """Forward bytes between client and server. Delay those of the client by ``seconds``."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(late)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        await asyncio.gather(
            pump(reader, up_writer, seconds), pump(up_reader, writer, 0), return_exceptions=True
        )

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


# --- the two consumers, each in its own process ----------------------------------------------


def count_requests(queue: Queue) -> Counter[str]:
    """Count the requests that the queue's clients send from now on, by operation."""
    counts: Counter[str] = Counter()

    def sent(event_name: str, **kwargs: Any) -> None:
        counts[event_name.rpartition(".")[2]] += 1

    for client in (queue.client, queue._long_poll_client(1), queue._short_timeout_client):
        client.meta.events.register("before-send.sqs", sent)
    return counts


def drain_ours(threads: int) -> Counter[str]:
    from beanstalk_dispatch.sqs.opening import open_queue
    from beanstalk_dispatch.worker.runners import run_here
    from beanstalk_dispatch.worker.worker import Worker

    counts = count_requests(open_queue("bench"))
    Worker(["bench"], run_here, WorkerOptions(threads=threads, burst=True)).run()
    return counts


def drain_by_hand(threads: int) -> Counter[str]:
    """Receive ten messages, call the task for each, and delete them, in ``threads`` loops."""
    import threading

    from beanstalk_dispatch.sqs.opening import open_queue

    queue = open_queue("bench")
    client, url = queue.client, queue.url
    counts = count_requests(queue)

    def loop() -> None:
        while messages := client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1
        ).get("Messages"):
            for message in messages:
                noop(*json.loads(message["Body"])["args"])
            client.delete_message_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]}
                    for i, m in enumerate(messages)
                ],
            )

    others = [threading.Thread(target=loop) for _ in range(threads)]
    for each in others:
        each.start()
    for each in others:
        each.join()
    return counts


def consume(side: str, tasks: int, threads: int) -> None:
    """Schedule the tasks, drain the queue, and print the figures. Runs in its own process."""
    import django

    django.setup()
    from beanstalk_dispatch.client import Call, schedule_many
    from beanstalk_dispatch.sqs.opening import open_queue

    queue = open_queue("bench")
    sending = count_requests(queue)
    schedule_many("bench", [Call("noop", [i]) for i in range(tasks)])
    sends = sending.total()
    began, cpu = time.monotonic(), time.process_time()
    counts = (drain_ours if side == "ours" else drain_by_hand)(threads)
    counts["SendMessageBatch"] = sends
    # Both sides end with an empty long poll of one second.
    wall, cpu = time.monotonic() - began - 1.0, time.process_time() - cpu
    left = queue.depth()
    print(json.dumps({"wall": wall, "cpu": cpu, "requests": counts, "left": left}))


def measure(side: str, arguments: argparse.Namespace, threads: int, port: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.drain", "--consume", side,
         "--tasks", str(arguments.tasks), "--threads", str(threads)],
        env=os.environ | VARIABLES | {
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "BEANSTALK_DISPATCH_QUEUES": f"bench=bench-{side}-{time.monotonic_ns()}",
        },
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(label: str, tasks: int, results: list[dict[str, Any]]) -> float:
    cpu = statistics.median(r["cpu"] / tasks * 1000 for r in results)
    rate = statistics.median(tasks / r["wall"] for r in results)
    requests = statistics.median(sum(r["requests"].values()) / tasks for r in results)
    left = max(r["left"] for r in results)
    print(f"{label:<28}{cpu:>10.3f} ms{rate:>12.0f}/s{requests:>12.3f}{left:>8}", flush=True)
    return float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0, metavar="MS")
    parser.add_argument(
        "--threads", type=int, default=WorkerOptions().threads, help="of our worker"
    )
    parser.add_argument("--hand-threads", type=int, default=4, help="of the hand-written loop")
    parser.add_argument("--consume", choices=("ours", "hand"), help=argparse.SUPPRESS)
    parser.add_argument("--proxy", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        consume(arguments.consume, arguments.tasks, arguments.threads)
        return
    if arguments.proxy:
        asyncio.run(delay_proxy(arguments.proxy[0], arguments.proxy[1], arguments.latency / 1000))
        return
    server, port = free_port(), free_port()
    with process(arguments.ministack, GATEWAY_PORT=str(server), BIND_HOST="127.0.0.1"):
        wait_for(server)
        proxy = (sys.executable, "-m", "benchmarks.drain", f"--latency={arguments.latency}",
                 "--proxy", str(port), str(server))  # fmt: skip
        with process(*proxy):
            wait_for(port)
            if not arguments.latency:
                port = server
            one, hand, ours = [], [], []
            for _ in range(arguments.rounds):
                hand.append(measure("hand", arguments, arguments.hand_threads, port))
                ours.append(measure("ours", arguments, arguments.threads, port))
                if not arguments.latency:
                    one.append(measure("hand", arguments, 1, port))
    tasks = arguments.tasks
    print(f"{tasks} tasks, {arguments.latency:g} ms added to each request, medians of "
          f"{arguments.rounds} interleaved rounds\n"
          f"{'':<28}{'CPU/task':>13}{'tasks':>14}{'requests/task':>12}{'left':>8}")  # fmt: skip
    if one:
        by_one = show("hand-written, 1 thread", tasks, one)
    by_hand = show(f"hand-written, {arguments.hand_threads} threads", tasks, hand)
    by_us = show(f"beanstalk_worker, {arguments.threads} threads", tasks, ours)
    if one:
        print(f"CPU against 1 thread by hand: {by_us / by_one:.2f} (target: at most 1.3)")
    print(f"CPU against {arguments.hand_threads} threads by hand: {by_us / by_hand:.2f}")


if __name__ == "__main__":
    main()
