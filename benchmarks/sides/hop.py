"""The floor of isolation: the bytes of a task, there and back, between bare Python processes.

    python -m benchmarks.sides.hop THREADS COUNT WORK

Each thread has a process of its own, as in a worker. WORK is how much Python either of them runs
for a task; with 0 threads one process runs both halves. It prints the elapsed and the CPU seconds.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
import time
from typing import NoReturn

REQUEST, ANSWER = bytes(400), bytes(90)
CONTENT = {f"field{n}": [n, str(n)] for n in range(40)}


def run(work: int) -> None:
    for _ in range(work):
        json.loads(json.dumps(CONTENT))


def answer_all(descriptor: int, work: int) -> NoReturn:
    while os.read(descriptor, 1 << 16):
        run(work)
        os.write(descriptor, ANSWER)
    os._exit(0)


def ask(connection: socket.socket, count: int, work: int) -> None:
    for _ in range(count):
        run(work)
        os.write(connection.fileno(), REQUEST)
        os.read(connection.fileno(), 1 << 16)


def cpu_seconds() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(threads: int, count: int, work: int) -> None:
    pairs = [socket.socketpair() for _ in range(threads)]
    for _, theirs in pairs:
        if not os.fork():
            for ours, _ in pairs:
                ours.close()
            answer_all(theirs.fileno(), work)
    asking = [
        threading.Thread(target=ask, args=(ours, count // threads, work)) for ours, _ in pairs
    ]
    started, before = time.monotonic(), cpu_seconds()
    if not threads:
        run(2 * count * work)
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    seconds = time.monotonic() - started
    for ours, _ in pairs:
        ours.close()
    for _ in pairs:
        os.wait()
    print(json.dumps([seconds, cpu_seconds() - before]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
