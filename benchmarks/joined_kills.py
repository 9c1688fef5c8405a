"""Processes that are killed while their threads share requests, at each step of the sharing.

    python -m benchmarks.joined_kills [--kills N]

Each process sends from 12 threads to one standard queue and is killed at the first line, at the
second and so on, of the module that joins the sends. A call that has returned an id must have its
message in the queue with that id, and no call may have two ids there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections import defaultdict
from types import FrameType
from typing import Any, Final

from .compare import Side, started
from .sqs_server import Control

THREADS: Final = 12
SECONDS: Final = 0.003
"""The time in which SQS answers. So requests are open when others come."""
NO_KILL: Final = 0


def send_from_threads(step: int, output: int) -> None:
    """Send from threads and write each id that is returned. End at a step of the joined sends."""
    from beanstalk_dispatch import client
    from beanstalk_dispatch.sqs import joined_sends

    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != joined_sends.__file__:
            return None
        if event == "line":
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    def send(number: int) -> None:
        task_id = client.schedule_function("joined", "noop", number)
        os.write(output, f"{number} {task_id}\n".encode())

    client.warm()
    threading.settrace(count)
    threads = [threading.Thread(target=send, args=(number,)) for number in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    os.write(output, f"steps {steps}\n".encode())


def run_and_kill(step: int) -> dict[str, str]:
    """Return the ids that a process has written before it was killed at a step."""
    output, written = os.pipe()
    process = os.fork()
    if not process:
        os.close(output)
        try:
            send_from_threads(step, written)
        finally:
            os._exit(0)
    os.close(written)
    with os.fdopen(output) as lines:
        found = dict(line.split() for line in lines)
    os.waitpid(process, 0)
    return found


def judge(found: dict[str, str], sent: list[dict[str, Any]]) -> list[str]:
    """Return a line for each call that is lost, or that is in the queue with two ids."""
    ids = defaultdict(set)
    for message in sent:
        ids[str(message["args"][0])].add(message["id"])
    found.pop("steps", None)
    lost = [f"lost {each}" for each, task_id in found.items() if task_id not in ids[each]]
    return lost + [f"twice {each}" for each, known in ids.items() if len(known) > 1]


def kill_often(kills: int, control: Control) -> None:
    steps = int(run_and_kill(NO_KILL)["steps"])
    returned = joined = faults = 0
    for number in range(kills):
        control.ask("Hold", names=["joined"])
        found = run_and_kill(1 + number % steps)
        sent = [json.loads(each) for each in control.ask("Bodies", names=["joined"])["bodies"]]
        returned, joined = returned + len(found), joined + len(sent)
        for fault in judge(found, sent):
            faults += 1
            print(f"step {1 + number % steps}: {fault}")
    print(
        f"{kills} processes killed at {min(kills, steps)} of {steps} steps: {returned} calls had "
        f"returned, {joined} messages were sent, {faults} calls lost or sent with two ids"
    )
    sys.exit(bool(faults))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    arguments = parser.parse_args()
    with started(is_quick=True) as run:
        side = Side(name="sender", module="ours", env={
            "BEANSTALK_DISPATCH_QUEUES": f"joined={run.control.endpoint}/000000000000/joined",
        })  # fmt: skip
        os.environ.update(run.environment(side))
        import django

        django.setup()
        run.control.ask("Latency", seconds=SECONDS)
        kill_often(arguments.kills, run.control)


if __name__ == "__main__":
    main()
