"""Fuzz the dispatcher with atheris, which follows coverage, and then with Hypothesis.

Each input is the body of a POST or its headers. It goes through the view, the decoder and the
execution of functions that record their calls. tests/fuzzing.py says what must be true for every
input. The last line prints the number of inputs. After a failure the input is in a file named
crash-…. To repeat it, run ``python -m benchmarks.fuzz atheris plain crash-…``.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "signed": {"keys": True},
    "dead-letters": {"dead_letter_queue": True},
    "signed-dead-letters": {"keys": True, "dead_letter_queue": True},
    "lease": {"DISPATCH_LEASE_CACHE": "default"},
}
HEADERS = [
    "HTTP_X_AWS_SQSD_TASKNAME", "HTTP_X_AWS_SQSD_QUEUE", "HTTP_X_AWS_SQSD_RECEIVE_COUNT",
    "HTTP_X_AWS_SQSD_FIRST_RECEIVED_AT", "HTTP_X_AWS_SQSD_SCHEDULED_AT", "HTTP_X_REAL_IP",
    "HTTP_X_FORWARDED_FOR", "HTTP_X_AWS_SQSD_MSGID",
]  # fmt: skip
SEEDS = [
    {"v": 1, "id": "i", "function": "record", "args": [1, "a", None], "kwargs": {"a": 1.5}},
    {"function": "fail", "args": [], "kwargs": {}, "attempt": 2, "options": {"max_retries": 1}},
    {"function": "retry", "args": [], "kwargs": {}, "not_before": 9e9, "headers": {"a": "b"}},
    {"function": "record", "args": [], "kwargs": {}, "options": {"timeout": "5m"}, "sent_at": 1},
    {"v": 1, "dead_letter": {"attempts": 1, "id": "i"}, "body": '{"function":"record"}'},
]
WORDS = [
    "function", "args", "kwargs", "options", "timeout", "max_retries", "retry_backoff", "verbose",
    "dead_letter", "attempts", "body", "attempt", "not_before", "sent_at", "headers", "record",
    "recorder", "\\\\ud800", "NaN", "1e999", "antigravity",
]  # fmt: skip


def fuzz_atheris(kind: str, arguments: list[str]) -> None:
    """Fuzz one configuration in this process. libFuzzer ends the process."""
    atheris = importlib.import_module("atheris")
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    with atheris.instrument_imports(include=["beanstalk_dispatch"]):
        importlib.import_module("django").setup()
        fuzzing = importlib.import_module("tests.fuzzing")
    message = importlib.import_module("beanstalk_dispatch.messages.message")
    signatures = importlib.import_module("beanstalk_dispatch.messages.signatures")
    keys = fuzzing.KEYS

    def signed(data: bytes) -> bytes:
        text = data.decode("utf-8", "ignore")
        return bytes(signatures.signer("q", tuple(keys)).sign(text).encode())

    def dead_letter(data: bytes) -> bytes:
        reason = {"attempts": 1, "id": "i"}
        return bytes(message.wrap(data, reason, queue="q", keys=keys).encode())

    shapes: list[Callable[[bytes], bytes]] = [bytes, signed, dead_letter, base64.b64encode]
    shapes.append(lambda data: dead_letter(signed(data)))

    def one_input(data: bytes) -> None:
        shape, data = data[0] if data else 0, data[1:]
        if shape < 32:
            values = data.decode("latin-1").split("\n")
            is_allowed = [value.isprintable() for value in values]
            meta = {name: v for name, v, ok in zip(HEADERS, values, is_allowed, strict=False) if ok}
            worker.post(b"", meta)
            return
        worker.post(shapes[shape % len(shapes)](data))
        for body in list(worker.client.bodies):
            worker.post(body.encode())

    with fuzzing.worker(**CONFIGURATIONS[kind]) as worker:
        atheris.Setup([sys.argv[0], *arguments], one_input)
        atheris.Fuzz()


def run_atheris(kind: str, python: str, *, runs: int, seconds: int) -> int:
    """Fuzz one configuration in another process. Return the number of inputs."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(SEEDS):
            for shape in range(35, 40):
                Path(corpus, f"{number}-{shape}").write_bytes(
                    bytes([shape]) + json.dumps(seed).encode()
                )
        words = Path(folder, "words")
        words.write_text("".join(f'"{word}"\n' for word in WORDS))
        limits = [f"-runs={runs}", f"-max_total_time={seconds}", "-max_len=2048", "-timeout=60"]
        command = [python, "-m", "benchmarks.fuzz", "atheris", kind, *limits, f"-dict={words}"]
        done = subprocess.run([*command, str(corpus)], capture_output=True, text=True, check=False)
    found = re.search(r"^Done (\d+) runs in (\d+) second", done.stderr, re.MULTILINE)
    if done.returncode or not found:
        sys.exit(f"atheris {kind}: exit code {done.returncode}\n{done.stderr[-5000:]}")
    count = int(found[1])
    covered = re.findall(r"cov: (\d+)", done.stderr)
    print(f"atheris     {kind:20} {count:>10,} inputs in {found[2]:>4} s, {covered[-1]} branches")
    return count


def run_hypothesis(examples: int) -> int:
    """Run tests/unit/test_fuzz.py with ``examples`` for each test. Return the number of inputs."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "--show-capture=no",
        "tests/unit/test_fuzz.py",
    ]
    environment = os.environ | {"FUZZ_EXAMPLES": str(examples)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = re.search(r"inputs tried: ([\d,]+)", done.stdout)
    if done.returncode or not found:
        sys.exit(f"hypothesis: exit code {done.returncode}\n{done.stdout[-5000:]}")
    count = int(found[1].replace(",", ""))
    print(f"hypothesis  {examples:,} examples a test   {count:>7,} inputs")
    return count


def main() -> None:
    if sys.argv[1:2] == ["atheris"]:
        fuzz_atheris(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.fuzz")
    add = parser.add_argument
    add("--python", required=True, help="a Python that has atheris and this package")
    add(
        "--runs",
        type=int,
        default=1_000_000,
        help="number of inputs for atheris, over all configurations",
    )
    add("--seconds", type=int, default=600, help="time limit of atheris for each configuration")
    add("--examples", type=int, default=5000, help="number of examples for each test of Hypothesis")
    options = parser.parse_args()
    each = -(-options.runs // len(CONFIGURATIONS))
    limits = {"runs": each, "seconds": options.seconds}
    counts = [run_atheris(kind, options.python, **limits) for kind in CONFIGURATIONS]
    tried = run_hypothesis(options.examples)
    print(f"all hold: atheris {sum(counts):,} inputs, Hypothesis {tried:,} inputs")


if __name__ == "__main__":
    main()
