"""The tasks that every consumer runs, and the environment of every side."""

from __future__ import annotations

import os
import time

ENDPOINT = os.environ.get("BENCHMARK_ENDPOINT", "")
QUEUE = os.environ.get("BENCHMARK_QUEUE", "q")
REGION, KEY, SECRET = "eu-west-1", "benchmark", "benchmark"
URL = f"{ENDPOINT}/000000000000/{QUEUE}"
RUNS = os.environ.get("BENCHMARK_RUNS", "")


def noop(number: int, word: str, *, x: int) -> None:
    """Do nothing."""


def cpu5(number: int, word: str, *, x: int) -> None:
    """Use 5 ms of CPU time."""
    end = time.thread_time() + 0.005
    while time.thread_time() < end:
        pass


def cpu20(number: int, word: str, *, x: int) -> None:
    """Use 20 ms of CPU time."""
    end = time.thread_time() + 0.02
    while time.thread_time() < end:
        pass


def sleep50(number: int, word: str, *, x: int) -> None:
    """Wait for 50 ms, as for another service."""
    time.sleep(0.05)


def counted50(number: int, word: str, *, x: int) -> None:
    """Wait for 50 ms, then add a byte to a file, so that the runs can be counted."""
    time.sleep(0.05)
    with open(RUNS, "ab") as file:
        file.write(b".")


TASKS = {"noop": noop, "cpu5": cpu5, "cpu20": cpu20, "sleep50": sleep50, "counted50": counted50}
