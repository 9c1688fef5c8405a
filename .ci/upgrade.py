"""Run the release before and this one on one queue: both send, and both run what either has sent.

    python .ci/upgrade.py

Each has an environment of its own. They do it with unsigned messages, with signed ones, and with a
lease in a cache that both share. The exit code is 1 if a task did not run to its end exactly once,
if a message is left or was moved to the dead-letter queue, or if one release ran nothing of what
the other one had sent.
"""

from __future__ import annotations

import io
import json
import logging
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import projects
from moto.server import ThreadedMotoServer

ROOT: Final = Path(__file__).resolve().parents[1]
SITE: Final = Path(__file__).resolve().parent / "project_upgrade"
BEFORE: Final = "1.0.0"
"""The release before this one."""
COMMIT: Final = "2aa2bf4ee41a98acf077b7c59ff42f923848d706"
"""The commit that dated it in CHANGELOG.md."""
NOW: Final = "this"
COUNT: Final = 20
KINDS: Final = ("plain", "delayed", "batch", "again")
DEADLINE: Final = 90.0  # seconds
ACCOUNT: Final = "123456789012"  # moto's
REGION: Final = "eu-west-1"
SIGNED: Final = {"BEANSTALK_DISPATCH_SIGNING_KEYS": "for-the-rehearsal-only"}
SETUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "unsigned": {},
    "signed": SIGNED,
    "signed, with a lease": SIGNED | {"BEANSTALK_DISPATCH_LEASE_CACHE": "default"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release in an environment of its own."""

    name: str
    python: Path

    def start(self, *arguments: str, variables: Mapping[str, str], log: Path) -> Process:
        """Start a process of the project with this release."""
        with log.open("a") as output:
            return subprocess.Popen(
                [self.python, *arguments], cwd=SITE, stdout=output, stderr=subprocess.STDOUT,
                env=projects.environment() | dict(variables) | {"RELEASE": self.name},
            )  # fmt: skip


Process = subprocess.Popen[bytes]


def install(folder: Path) -> list[Release]:
    """Install the release before and the files of this checkout."""
    archive = subprocess.run(
        ["git", "archive", COMMIT], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder / "before", filter="data")
    return [
        Release(
            name=name,
            python=projects.make_venv(folder / f"venv-{name}", sys.executable, source, "redis>=5"),
        )
        for name, source in ((BEFORE, str(folder / "before")), (NOW, str(ROOT)))
    ]


class Queues:
    """A queue and its dead-letter queue on a server of this process."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.client: Any = boto3.client(
            "sqs", endpoint_url=endpoint, region_name=REGION,
            aws_access_key_id="rehearsal", aws_secret_access_key="rehearsal",
        )  # fmt: skip
        self.dead_letters = self._create(f"{name}-dead-letter", {})
        target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}-dead-letter"
        policy = json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": 3})
        self.queue = self._create(name, {"RedrivePolicy": policy})

    def _create(self, name: str, attributes: Mapping[str, str]) -> str:
        url: str = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def left(self, url: str) -> int:
        """Return the number of messages, those that are hidden or delayed included."""
        attributes = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        return sum(
            int(attributes["Attributes"][f"ApproximateNumberOfMessages{which}"])
            for which in ("", "NotVisible", "Delayed")
        )


@contextmanager
def sqs_server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


@contextmanager
def workers(releases: list[Release], variables: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a worker of each release during the block, and stop them as a deployment does."""
    command = ("-m", "django", "beanstalk_worker", "mail", "--threads=4", "--wait=1")
    worker = {**variables, "BEANSTALK_WORKER": "True"}
    processes = [release.start(*command, variables=worker, log=log) for release in releases]
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(30) for process in processes]
    if any(codes):
        print(log.read_text()[-5_000:])
        raise SystemExit(f"NOT OK: the workers ended with {codes}")


def problems(record: Counter[str], queues: Queues) -> Iterator[str]:
    """Yield each way in which the run was not as it should be."""
    tasks = Counter[str]()
    pairs = Counter[tuple[str, str]]()
    for line, count in record.items():
        runner, sender, task = line.split(" ", 2)
        tasks[f"{sender} {task}"] += count
        pairs[sender, runner] += count
    for sender in (BEFORE, NOW):
        for kind in KINDS:
            for number in range(COUNT):
                if (count := tasks[f"{sender} {kind} {number}"]) != 1:
                    yield f"{kind} {number}, sent by {sender}, ran {count} times"
        for runner in (BEFORE, NOW):
            print(f"    sent by {sender:<6}run by {runner:<6}{pairs[sender, runner]:4}")
            if not pairs[sender, runner]:
                yield f"{runner} ran nothing that {sender} has sent"
    if left := queues.left(queues.queue):
        yield f"{left} messages are left"
    if dead := queues.left(queues.dead_letters):
        yield f"{dead} messages are in the dead-letter queue"


def recorded(file: Path) -> Counter[str]:
    return Counter(file.read_text().splitlines() if file.exists() else ())


def try_one(
    releases: list[Release], endpoint: str, folder: Path, number: int, given: Mapping[str, str]
) -> list[str]:
    """Run both releases with these variables. Return the problems."""
    name = f"upgrade-{number}"
    queues = Queues(endpoint, name)
    record, log = folder / f"{name}.txt", folder / f"{name}.log"
    variables = {
        "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(SITE), "RECORD": str(record),
        "BEANSTALK_DISPATCH_TABLE": "plain=jobs.plain again=jobs.Again",
        # An ARN has the region and the account, which this release signs too.
        "BEANSTALK_DISPATCH_QUEUES": f"mail=arn:aws:sqs:{REGION}:{ACCOUNT}:{name}",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": endpoint,
        "BEANSTALK_DISPATCH_SQS_KEY": "rehearsal", "BEANSTALK_DISPATCH_SQS_SECRET": "rehearsal",
        **given,
    }  # fmt: skip
    with workers(releases, variables, log):
        time.sleep(3)  # both receive before the first message is sent
        senders = [
            release.start("send.py", str(COUNT), variables=variables, log=log)
            for release in releases
        ]
        codes = [sender.wait(DEADLINE) for sender in senders]
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until and (
            recorded(record).total() < 2 * COUNT * len(KINDS) or queues.left(queues.queue)
        ):
            time.sleep(0.2)
    found = [f"sending ended with {codes}"] if any(codes) else []
    found += problems(recorded(record), queues)
    if found:
        print(log.read_text()[-5_000:])
    return found


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.services import valkey

    found: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        releases = install(folder)
        endpoint = stack.enter_context(sqs_server())
        cache = {"CACHE_URL": f"redis://127.0.0.1:{stack.enter_context(valkey())}/0"}
        for number, (title, variables) in enumerate(SETUPS.items()):
            print(f"=== {BEFORE} and {NOW}, {title}", flush=True)
            found += try_one(releases, endpoint, folder, number, cache | dict(variables))
    for problem in found:
        print(f"NOT OK: {problem}", file=sys.stderr)
    if not found:
        print("ok: every task ran once, and no message was moved to the dead-letter queue")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
