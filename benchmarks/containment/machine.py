"""A worker machine for one scene: its queue, its consumer, and what became of each task.

``Servers`` are what all scenes share. ``Machine`` is one consumer of one queue. Nothing here runs
tasks itself, so nothing that a task does can touch the figures.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import boto3
import psycopg
import pymysql

from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome
from tests.services import NO_COVERAGE, PATH, ROOT, Gunicorn, free_port, nginx, until

TABLE: Final = " ".join(
    f"{name}=benchmarks.containment.tasks.{path}"
    for name, path in {
        "blameless": "Blameless", "limit-in-commit": "LimitInCommit", "begin": "begin",
        "enter-atomic": "enter_atomic", "panic": "panic", "generator-exit": "generator_exit",
        "keyboard-interrupt": "keyboard_interrupt", "system-exit": "system_exit",
        "swallows": "Swallows", "endless": "Endless", "gil": "keep_interpreter_lock",
        "exit": "exit_process", "fork-ten": "fork_ten", "memory": "exhaust_memory",
        "log-locks": "keep_log_locks", "activate": "activate", "patch-time": "patch_time",
        "stuck-once": "StuckOnce", "hangs-in-init": "HangsInInit", "hangs-in-str": "HangsInStr",
        "hangs-in-backoff": "HangsInBackoff", "leave-threads": "leave_threads",
        "nap": "nap", "compute": "compute", "fail": "fail",
    }.items()
) + " hostile=benchmarks.containment.hostile.hostile"  # fmt: skip
THREADS: Final = 15
_OUTCOME: Final = re.compile(r"task id=blameless-(\d+) function=blameless outcome=(\S+) ")
_CULPRIT: Final = re.compile(r"task id=culprit-\S+ function=(\S+) outcome=(\S+) ")
_TABLES: Final = "CREATE TABLE IF NOT EXISTS {} (run text, number integer)"

Consumer = Callable[["Machine"], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What all scenes use."""

    sqs: str
    """The URL of an SQS server."""
    postgres: str
    """The URL of a database."""
    valkey: int
    """The port of a cache."""
    mariadb: int | None = None
    """The port of another database, where there is one."""

    def client(self) -> Any:
        """A client of the SQS server."""
        return boto3.client(
            "sqs", endpoint_url=self.sqs, region_name="us-east-1", aws_access_key_id="key",
            aws_secret_access_key="secret",
        )  # fmt: skip

    def connect(self, driver: str) -> Any:
        """A connection to the database that tasks reach by this driver."""
        if driver != "pymysql":
            return psycopg.connect(self.postgres)
        assert self.mariadb
        return pymysql.connect(host="127.0.0.1", port=self.mariadb, user="root", database="tasks")

    def make_tables(self) -> None:
        for driver in ("psycopg", *(["pymysql"] if self.mariadb else [])):
            with self.connect(driver) as connection, connection.cursor() as cursor:
                for table in ("starts", "work", "spoiled"):
                    cursor.execute(_TABLES.format(table))
                connection.commit()


@dataclass(slots=True, kw_only=True)
class Figures:
    """What became of the blameless tasks of one scene."""

    tasks: int
    lost: int
    """Without their row at the end, and not a dead letter."""
    done_twice: int
    """With more than one row."""
    dead_lettered: int
    failed: int
    """Deliveries whose outcome was a failure. The task may have run well afterwards."""
    restarted: int
    """That began more than once, because their process ended or they failed."""
    culprits: Counter[str]
    """The outcomes of the culprits, by task and outcome."""
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def harmed(self) -> int:
        """The figure of the scene: blameless tasks that something happened to."""
        return self.lost + self.done_twice + self.dead_lettered + self.failed

    def __str__(self) -> str:
        return (
            f"{self.tasks} blameless: lost {self.lost}, done twice {self.done_twice}, "
            f"dead-lettered {self.dead_lettered}, failed deliveries {self.failed}, "
            f"restarted {self.restarted}; "
            f"culprits {dict(sorted(self.culprits.items()))}; {self.seconds:.0f} s"
            + "".join(f"; {note}" for note in self.notes)
        )


class Machine:
    """One queue with its dead-letter queue, and one consumer in processes of its own."""

    def __init__(
        self, name: str, servers: Servers, folder: Path, *, driver: str = "psycopg",
        isolation: str = "thread", visibility: int = 30, max_receives: int = 3,
        fifo: bool = False, variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.run = f"{name}-{isolation}-{time.monotonic_ns()}"
        self.folder = folder / self.run
        self.folder.mkdir()
        self.servers = servers
        self.driver = driver
        self.visibility = visibility
        self.client = servers.client()
        suffix = ".fifo" if fifo else ""
        self.queue = f"{self.run}{suffix}"
        self.dead = f"{self.run}-dead{suffix}"
        self.is_fifo = fifo
        self.log_file = self.folder / "gunicorn.log"  # where tests.services has it
        self.log_file.touch()
        self.blameless = 0
        self.health_port = free_port()
        self.variables = os.environ | {
            "BEANSTALK_WORKER": "True",
            "BEANSTALK_DISPATCH_TABLE": TABLE,
            "BEANSTALK_DISPATCH_QUEUES": f"jobs={self.queue} dead={self.dead}",
            "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": servers.sqs,
            "BEANSTALK_DISPATCH_SQS_KEY": "key",
            "BEANSTALK_DISPATCH_SQS_SECRET": "secret",
            "BEANSTALK_DISPATCH_SQS_REGION": "us-east-1",
            "BEANSTALK_DISPATCH_CRASH_LEDGER": str(self.folder / "ledger"),
            "BEANSTALK_DISPATCH_ISOLATION": isolation,
            "DJANGO_SETTINGS_MODULE": "benchmarks.containment.settings",
            "DRIVER": driver,
            "POSTGRES": servers.postgres,
            "VALKEY_PORT": str(servers.valkey),
            "MARIADB_PORT": str(servers.mariadb),
            **NO_COVERAGE,
            **(variables or {}),
        }
        self._made_at = time.monotonic()
        self._make_queues(max_receives)

    def _make_queues(self, max_receives: int) -> None:
        fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if self.is_fifo else {}
        self._dead_url = self.client.create_queue(QueueName=self.dead, Attributes=fifo)["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=self._dead_url, AttributeNames=["QueueArn"])
        policy = {
            "deadLetterTargetArn": arn["Attributes"]["QueueArn"],
            "maxReceiveCount": str(max_receives),
        }
        attributes = {
            "RedrivePolicy": json.dumps(policy), "VisibilityTimeout": str(self.visibility),
        }  # fmt: skip
        self.url = self.client.create_queue(QueueName=self.queue, Attributes=attributes | fifo)[
            "QueueUrl"
        ]

    # --- what is scheduled -------------------------------------------------------------------

    def send(
        self, culprits: Sequence[tuple[str, Sequence[Any]]], *, blameless: int,
        seconds: Sequence[float] = (0.05,), seed: int | None = 1,
    ) -> None:  # fmt: skip
        """Send the culprits, and blameless tasks that take ``seconds`` in turn.

        They are mixed, or with ``seed=None`` the culprits come first.
        """
        first, self.blameless = self.blameless, self.blameless + blameless
        messages = [
            Message(
                function="blameless",
                id=f"blameless-{number}",
                args=[self.run, number, seconds[number % len(seconds)]],
            )
            for number in range(first, self.blameless)
        ]
        bad = [
            Message(function=name, id=f"culprit-{number}", args=[self.run, *arguments])
            for number, (name, arguments) in enumerate(culprits)
        ]
        messages = [*bad, *messages]
        if seed is not None:
            random.Random(seed).shuffle(messages)
        for start in range(0, len(messages), 10):
            self._send_batch(messages[start : start + 10])

    def _send_batch(self, messages: Sequence[Message]) -> None:
        group = {"MessageGroupId": "one"} if self.is_fifo else {}
        answer = self.client.send_message_batch(
            QueueUrl=self.url,
            Entries=[
                {"Id": str(i), "MessageBody": each.encode(queue=self.queue), **group}
                for i, each in enumerate(messages)
            ],
        )
        assert not answer.get("Failed"), answer["Failed"]

    # --- what became of it -------------------------------------------------------------------

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def rows(self, table: str) -> Counter[int]:
        """How many rows a table has for each blameless task."""
        with self.servers.connect(self.driver) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT number FROM {table} WHERE run = %s", [self.run])
            return Counter(number for (number,) in cursor)

    def unsettled(self) -> int:
        """How many messages the queue still has, visible or not."""
        names = [
            "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]  # fmt: skip
        answer = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def wait(self, seconds: float = 150, *, settle: float = 20) -> None:
        """Wait until the queue is empty.

        Gives up after ``seconds``, or ``settle`` seconds after every blameless task has its row: a
        culprit may be tried for longer.
        """
        self._wait_for(
            lambda: len(self.rows("work")) == self.blameless or not self.unsettled(), seconds
        )
        self._wait_for(lambda: not self.unsettled(), settle)

    @staticmethod
    def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.2)

    def dead_letters(self) -> list[str]:
        """Receive the dead letters, and return their tasks' ids."""
        ids: list[str] = []
        while found := self.client.receive_message(
            QueueUrl=self._dead_url, MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            for each in found:
                ids.append(Message.decode(each["Body"], queue=self.queue).id)
                if self.is_fifo:
                    self.client.delete_message(
                        QueueUrl=self._dead_url, ReceiptHandle=each["ReceiptHandle"]
                    )
        return ids

    def figures(self) -> Figures:
        work, starts = self.rows("work"), self.rows("starts")
        dead = {each for each in self.dead_letters() if each.startswith("blameless-")}
        log = self.log()
        return Figures(
            tasks=self.blameless,
            lost=sum(f"blameless-{n}" not in dead for n in range(self.blameless) if not work[n]),
            done_twice=sum(count > 1 for count in work.values()),
            dead_lettered=len(dead),
            failed=sum(OUTCOMES[Outcome(what)].is_failure for _, what in _OUTCOME.findall(log)),
            restarted=sum(count > 1 for count in starts.values()),
            culprits=Counter(f"{name} {outcome}" for name, outcome in _CULPRIT.findall(log)),
            seconds=time.monotonic() - self._made_at,
        )

    # --- the consumers -----------------------------------------------------------------------

    def start(
        self, *options: str, command: str = "beanstalk_worker", log: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker or a daemon of the queue."""
        arguments = [sys.executable, "-m", "django", command, "jobs", *options, "--wait=1",
                     f"--visibility-timeout={self.visibility}"]  # fmt: skip
        with (log or self.log_file).open("ab") as file:
            return subprocess.Popen(arguments, cwd=ROOT, stderr=file, env=self.variables)


class Restarted:
    """A process that is started again when it has ended, as systemd does it.

    ``is_alive`` is asked once a second. After three times no, or sixty at the start, the process is
    killed, as Kubernetes does it. With ten, it never began to work on a machine with a load of 50.
    """

    def __init__(
        self, start: Callable[[], subprocess.Popen[bytes]], is_alive: Callable[[], bool] | None
    ) -> None:
        self._start = start
        self._is_alive = is_alive
        self.starts = 0

    def __enter__(self) -> Self:
        import threading

        self._is_over = threading.Event()
        self._begin()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _begin(self) -> None:
        self.process = self._start()
        self.starts += 1
        self._may_fail = 60

    def _watch(self) -> None:
        while not self._is_over.wait(1):
            if self._is_alive and self.process.poll() is None:
                self._may_fail = 3 if self._is_alive() else self._may_fail - 1
                if not self._may_fail:
                    self.process.kill()
                    self.process.wait()
            if self.process.poll() is not None:
                self._begin()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self.process.terminate()
        try:
            self.process.wait(45)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def answers(port: int, seconds: float = 1) -> bool:
    """Whether a health port answers, whatever it says."""
    with suppress(OSError):
        with suppress(urllib.request.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=seconds).close()
        return True
    return False


@contextmanager
def poller(machine: Machine, *options: str) -> Iterator[None]:
    """``beanstalk_worker`` with 15 threads and a probe of its health."""
    port = machine.health_port
    with Restarted(
        lambda: machine.start(f"--threads={THREADS}", f"--health-port={port}", *options),
        lambda: answers(port),
    ):
        yield


@contextmanager
def endpoint(
    machine: Machine, *, timeout: int = 30, connections: int = THREADS,
    read_timeout: str = "60s", inactivity_timeout: int = 60, error_visibility: int = 1,
) -> Iterator[None]:  # fmt: skip
    """gunicorn with one process of 15 threads, nginx, and the stand-in for the daemon."""
    server = Gunicorn(
        machine.folder,
        **{
            **machine.variables,
            "GUNICORN_CMD_ARGS": f"--threads={THREADS} --timeout={timeout} --graceful-timeout=5",
        },
    )
    with ExitStack() as stack:
        stack.callback(server.stop)
        until(server.is_up)
        front = stack.enter_context(nginx(server.port, proxy_read_timeout=read_timeout))
        stack.enter_context(Restarted(
            lambda: machine.start(
                f"http://127.0.0.1:{front}{PATH}", f"--http-connections={connections}",
                f"--error-visibility-timeout={error_visibility}",
                f"--inactivity-timeout={inactivity_timeout}", "--grace=2",
                command="beanstalk_daemon", log=machine.folder / "daemon.log",
            ),
            None,
        ))  # fmt: skip
        yield
