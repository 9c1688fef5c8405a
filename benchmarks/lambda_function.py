"""Run 10,000 messages on a Lambda function that is killed again and again, and count their runs.

    python -m benchmarks.lambda_function [--records N] [--batch N]

AWS's own runtime client, awslambdaric, runs the handler. A stand-in for Lambda's Runtime API sends
batches, as an event source mapping does: what is reported, or was in a batch whose process was
killed, comes again with the receive count increased. Every tenth message fails once. A hundred
messages have a time limit that they exceed once. A lease in Valkey keeps what is done from running
again. It prints how many messages were lost or done twice, the time of a cold start, the time of a
record, and the peak of the memory. The exit code is 1 if a message was lost or done twice.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import psutil

from beanstalk_dispatch.safe_task import SafeTask
from tests.lambda_events import event, task
from tests.runtime_api import Function
from tests.services import valkey

TIMEOUT: Final = 60
FAILS_EVERY, EXCEEDS_EVERY, KILL_EVERY = 10, 100, 20


class Work(SafeTask):
    """Write a line. Some messages fail once, and some exceed their limit once, before that."""

    timeout_timedelta = 1
    verbose = False

    def run(self, path: str, number: int) -> None:
        tried = Path(f"{path}.{number}")
        if number % FAILS_EVERY == 0 and not tried.exists():
            tried.touch()
            if number % EXCEEDS_EVERY == 0:
                time.sleep(5)
            raise ValueError("this message fails once")
        with Path(path).open("a") as file:
            file.write(f"{number}\n")


class Mapping:
    """The event source mapping: hands out what is not done, in batches."""

    def __init__(self, function: Function, records: list[dict[str, Any]], size: int) -> None:
        self.function = function
        self.waiting = records
        self.size = size
        self.kills = 0
        self.invocations = 0
        self.peak = 0
        self.seconds = 0.0

    def run(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[: self.size], self.waiting[self.size :]
            self.waiting += self._again(self._invoke(batch))

    def _invoke(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records of a batch that are to be delivered again."""
        self.invocations += 1
        if self.invocations % KILL_EVERY == 0:
            self.function.begin(event(*batch))
            time.sleep(random.uniform(0.01, 0.2))
            self.function.kill()
            self.kills += 1
            self.function.start()
            return batch
        began = time.monotonic()
        kind, answer = self.function.invoke(event(*batch), seconds=TIMEOUT)
        self.seconds += time.monotonic() - began
        assert kind == "response", answer
        memory = psutil.Process(self.function.process.pid).memory_info().rss
        self.peak = max(self.peak, memory)
        failed = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
        return [each for each in batch if each["messageId"] in failed]

    @staticmethod
    def _again(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for each in records:
            count = int(each["attributes"]["ApproximateReceiveCount"]) + 1
            each["attributes"]["ApproximateReceiveCount"] = str(count)
        return records


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=100)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "done"
        path.touch()
        variables = {
            "DJANGO_SETTINGS_MODULE": "benchmarks.storm_settings",
            "LEASES_PORT": str(stack.enter_context(valkey())),
            "SECRET_KEY": "benchmark", "DATABASE_URL": "sqlite://:memory:", "LOG_LEVEL": "ERROR",
            "BEANSTALK_DISPATCH_TABLE": "work=benchmarks.lambda_function.Work",
            "BEANSTALK_DISPATCH_LEASE_CACHE": "leases",
            "BEANSTALK_DISPATCH_CRASH_LEDGER": str(folder / "ledger"),
        }  # fmt: skip
        records = [task("work", str(path), number) for number in range(arguments.records)]
        began = time.monotonic()
        function = stack.enter_context(Function(folder / "log", **variables))
        function.invoke(event())
        cold = time.monotonic() - began
        mapping = Mapping(function, records, arguments.batch)
        mapping.run()
        done = Counter(path.read_text().split())
    lost = arguments.records - len(done)
    twice = sum(count > 1 for count in done.values())
    print(
        f"{arguments.records} records in {mapping.invocations} invocations, {mapping.kills} kills: "
        f"lost {lost}, done twice {twice}; cold start {cold:.2f} s, "
        f"{mapping.seconds / arguments.records * 1000:.2f} ms a record, "
        f"peak {mapping.peak / 2**20:.0f} MiB"
    )
    return 1 if lost or twice else 0


if __name__ == "__main__":
    sys.exit(main())
