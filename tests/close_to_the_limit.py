"""A thousand blocks that end within a millisecond of their limit; prints what came of them."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter

from beanstalk_dispatch.exceptions import TaskTimeout
from beanstalk_dispatch.running.limits import time_limit as timeouts
from beanstalk_dispatch.running.limits.time_limit import TimeLimitExceeded, time_limit

LIMIT = 0.002


def spin(until: float) -> None:
    while time.monotonic() < until:
        sum(range(20))


def one(limit: time_limit, until: float) -> str:
    try:
        with limit:
            spin(until)
    except TaskTimeout:
        return "timeout"
    except TimeLimitExceeded:
        limit.end()
        return "instant"
    return "done"


def many(seed: int, counts: Counter[str]) -> None:
    generator = random.Random(seed)
    for _ in range(200):
        until = time.monotonic() + LIMIT + generator.uniform(-0.001, 0.001)
        try:
            outcome = one(time_limit(LIMIT), until)
            spin(time.monotonic() + 0.0002)  # the thread's next task
        except BaseException:
            outcome = "leaked"
        counts[outcome] += 1


def main() -> None:
    sys.setswitchinterval(1e-5)  # so that the watchdog strikes on time
    counts: Counter[str] = Counter()
    threads = [threading.Thread(target=many, args=(seed, counts)) for seed in range(4)]
    for thread in threads:
        thread.start()
    many(4, counts)
    for thread in threads:
        thread.join()
    assert not timeouts._watchdog._limits
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
