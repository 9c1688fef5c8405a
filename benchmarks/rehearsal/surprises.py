"""What surprises people on a worker machine, each provoked, and who says so or handles it.

A row is one surprise, who caught it, and the line that said so. A row without such a line has
failed. A message that was sent once must be done at the end, whatever happened in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import shorten
from typing import Any

import boto3

from beanstalk_dispatch import conf
from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.consumers.endpoint.sqsd import HEADER
from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
from beanstalk_dispatch.deploying.eb_files import HOOKS
from beanstalk_dispatch.deploying.existing import CRON
from beanstalk_dispatch.deploying.sqsd_options import options_file
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.scheduling.destination import resolve
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from tests.services import until

from .environment_file import delivered, environment_file
from .machine import PYTHON, Bundle, Gunicorn, Machine, post

PROJECT = "rehearsal"
QUEUE = f"{PROJECT}-mail"
HERE = Path(__file__).resolve().parent
REGION, ACCOUNT = "eu-west-1", "123456789012"
LOCAL = {
    "BEANSTALK_DISPATCH_SQS_KEY": "key",
    "BEANSTALK_DISPATCH_SQS_SECRET": "a-secret-key",
    # Every address here is a loopback address; the outside peer comes from 127.0.0.2.
    "BEANSTALK_DISPATCH_TRUSTED_PEERS": "127.0.0.1",
}
"""What differs from AWS, besides the address of the SQS server."""

WAREHOUSES = 38
ALIASES = ("mail", "work", "reports", "images", "imports")
TASKS = "nap=shop.tasks.Nap long_nap=shop.tasks.LongNap clean_up=shop.tasks.CleanUp"
KEY = r"a-key-with\a-backslash"
PATH = "shop.tasks.reconcile_the_stock_of_one_warehouse"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One surprise."""

    surprise: str
    caught_by: str
    line: str = ""
    problem: str = ""
    """Why nobody has caught it. Empty if somebody has."""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.surprise} → NOT CAUGHT: {self.problem}"
        return f"{self.surprise} → {self.caught_by} → {shorten(self.line, 300, placeholder=' …')}"


class Console:
    """A shell in the project's folder, in which commands are typed one after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "console.py")], cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=PYTHON | dict(environment),
        )  # fmt: skip

    def run(self, *words: str, **changes: str | None) -> tuple[int, str]:
        """The exit code of a command, and what it has written."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([words, changes]) + "\n")
        self._process.stdin.flush()
        code, output = json.loads(self._process.stdout.readline())
        return code, output

    def close(self) -> None:
        self._process.communicate()


class Rehearsal:
    """One run through every surprise. ``rows`` are what came of them."""

    def __init__(self, sqs: str, folder: Path, show: Callable[[Row], object] = id) -> None:
        """``sqs`` is the address of a server that speaks SQS. ``show`` gets each row at once."""
        self.rows: list[Row] = []
        self._show = show
        self._local = LOCAL | {"BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": sqs}
        self._folder = folder
        self._bundle = Bundle(root=folder / "bundle")
        self._web_properties: dict[str, str] = {}
        self._scheduled: list[str] = []
        self._status_of_short_path = 0
        self._logs: list[Gunicorn] = []
        self._client: Any = boto3.client(
            "sqs", endpoint_url=sqs, region_name=REGION,
            aws_access_key_id="key", aws_secret_access_key="a-secret-key",
        )  # fmt: skip

    def run(self) -> list[Row]:
        """Provoke everything, and return the rows."""
        with ExitStack() as stack:
            shutil.copytree(HERE / "shop", self._bundle.root / "shop")
            self._folder.chmod(0o755)
            console = Console(self._bundle.root, self._first_configuration())
            stack.callback(console.close)
            self._deployment_files(console)
            stack.enter_context(self._as_web_process())
            first = Machine(self._bundle, self._folder / "first")
            stack.callback(first.close)
            self._refused_by_django(first)
            self._changed_by_systemd()
            with self._serving(first, "web") as server:
                self._handled(first, server)
                self._waiting_and_cut(first, server)
                napping = self._deployment(first, server)
            with self._serving(first, "after-the-deployment") as server:
                self._row(
                    "a deployment in the middle of a task: the messages behind it",
                    "the next process",
                    lambda: self._done(server, napping),
                )
                cut = self._scale_in(first, server)
            second = Machine(self._bundle, self._folder / "second")
            stack.callback(second.close)
            with self._serving(second, "web") as server:
                self._row(
                    "scale-in: the instance is gone in the middle of a task",
                    "SQS, and another instance",
                    lambda: self._done(server, cut, "receive_count=2"),
                )
                self._row("all of that together", "no message is lost", self._nothing_is_lost)
            self._wrong_files(console)
        return self.rows

    # --- what all rows share ---------------------------------------------------------------------

    def _row(self, surprise: str, caught_by: str, find: Callable[[], str]) -> None:
        """Add a row with the line that ``find`` returns, or with the error that it raises."""
        try:
            row = Row(surprise=surprise, caught_by=caught_by, line=find())
        except Exception as exc:
            problem = f"{type(exc).__name__}: {exc}"
            row = Row(surprise=surprise, caught_by=caught_by, problem=problem)
        self.rows.append(row)
        self._show(row)

    @contextlib.contextmanager
    def _serving(self, machine: Machine, name: str, **changes: str) -> Iterator[Gunicorn]:
        with machine.serving(name, **changes) as server:
            self._logs.append(server)
            yield server

    @contextlib.contextmanager
    def _as_web_process(self) -> Iterator[None]:
        """Have this process the properties of the web environment."""
        before = dict(os.environ)
        ours = delivered(environment_file(self._web_properties))
        file = "BEANSTALK_DISPATCH_TABLE_FILE"
        ours[file] = str(self._bundle.root / ours[file])  # its own directory is another one
        for name in before:
            if name.startswith("BEANSTALK_"):
                del os.environ[name]
        os.environ.update(ours | {"BEANSTALK_DISPATCH_SEND_TIMEOUT": "1m"})
        conf.clear_caches()
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            conf.clear_caches()

    def _signed(self, message: Message) -> str:
        return resolve("mail", conf.get_config()).seal(message, message.write())

    def _schedule(self, function: str, *args: object, **kwargs: object) -> str:
        task_id = schedule_function("mail", function, *args, **kwargs)
        self._scheduled.append(task_id)
        return task_id

    def _done(self, server: Gunicorn, task_id: str, *parts: str) -> str:
        return server.log.line(f"id={task_id}", "outcome=done", *parts)

    # --- before anything runs --------------------------------------------------------------------

    def _first_configuration(self) -> dict[str, str]:
        """40 entries, 5 queues: as somebody would set them, and more than 4,096 bytes."""
        warehouses = " ".join(
            f"reconcile_the_stock_of_the_warehouse_in_the_region_{number:02}={PATH}"
            for number in range(WAREHOUSES)
        )
        queues = " ".join(f"{alias}={PROJECT}-{alias}" for alias in ALIASES)
        return self._local | {
            "BEANSTALK_DISPATCH_TABLE": f"{TASKS} {warehouses}",
            "BEANSTALK_DISPATCH_QUEUES": queues,
            "BEANSTALK_DISPATCH_TASK_TIMEOUT": "3s",
        }

    def _deployment_files(self, console: Console) -> None:
        """What an operator types, from the first configuration to the commands of beanstalk_eb."""
        export = ("beanstalk_config", "--format=eb", "--tier=worker", "--show-secrets")
        surprise = f"{WAREHOUSES + 3} table entries and {len(ALIASES)} queues"

        def ordinary() -> str:
            table = " ".join(f"send_mail_{n:02}=shop.tasks.reconcile" for n in range(WAREHOUSES))
            _, output = console.run("beanstalk_config", BEANSTALK_DISPATCH_TABLE=table)
            return _line(output, r"[\d,]+ of 4,096 bytes", exclude="--files")

        def too_large() -> str:
            code, output = console.run(
                *export, BEANSTALK_DISPATCH_TABLE=self._first_configuration()[
                    "BEANSTALK_DISPATCH_TABLE"
                ],
            )  # fmt: skip
            assert code == 1
            return _line(output, r"bytes.*--files DIRECTORY")

        def as_files() -> str:
            code, output = console.run(*export, "--files=config/beanstalk")
            assert code == 0, output
            return _line(output, "written: config/beanstalk")

        self._row(f"{surprise}, with ordinary names", "beanstalk_config", ordinary)
        self._row(f"{surprise}, with long names", "beanstalk_config", too_large)
        self._row(f"{surprise}, as a file of the bundle", "beanstalk_config --files", as_files)
        code, output = console.run(
            "beanstalk_eb", f"--region={REGION}", f"--account={ACCOUNT}", "--no-input",
            BEANSTALK_DISPATCH_TABLE=None,
            BEANSTALK_DISPATCH_TABLE_FILE="config/beanstalk/BEANSTALK_DISPATCH_TABLE",
        )  # fmt: skip
        assert code == 0, output
        self._follow(output)
        code, output = console.run("beanstalk_eb", f"--region={REGION}", f"--account={ACCOUNT}",
                                   "--check")  # fmt: skip
        _, warned = console.run(*export, BEANSTALK_DISPATCH_SIGNING_KEYS=KEY)
        self._row(
            "a backslash in a property: systemd eats it", "beanstalk_config",
            lambda: _line(warned, "SIGNING_KEYS contains a backslash"),
        )  # fmt: skip
        self._row(
            "the files that beanstalk_eb writes", "beanstalk_eb --check",
            lambda: _line(output, "the files do what is needed"),
        )  # fmt: skip

    def _follow(self, printed: str) -> None:
        """Do what the printed commands say: make the queues, and set each tier's properties."""
        for command in printed.replace("\\\n", "").splitlines():
            words = shlex.split(command, comments=True)
            if words[:3] == ["aws", "sqs", "create-queue"]:
                name, attributes = (
                    words[words.index(each) + 1] for each in ("--queue-name", "--attributes")
                )
                self._client.create_queue(QueueName=name, Attributes=json.loads(attributes))
            elif words[:2] == ["eb", "setenv"]:
                pairs = (word.partition("=") for word in words if "=" in word)
                found = {name: value for name, _, value in pairs} | self._local
                # Somebody types this one with quotes in the console, which systemd removes.
                timeout = found["BEANSTALK_DISPATCH_TASK_TIMEOUT"]
                found["BEANSTALK_DISPATCH_TASK_TIMEOUT"] = f'"{timeout}"'
                found["BEANSTALK_DISPATCH_SIGNING_KEYS"] += f" {KEY}"
                if "BEANSTALK_WORKER" in found:
                    self._bundle.properties = found
                else:
                    self._web_properties = found

    # --- what Django refuses, and what systemd changes -------------------------------------------

    def _refused_by_django(self, machine: Machine) -> None:
        def refused(status: int, check: str, **changes: str) -> Callable[[], str]:
            def find() -> str:
                with self._serving(machine, check, **changes) as server:
                    self._schedule("nap", 0)
                    machine.daemon.log.line(f"status={status}")
                    return server.log.line(f"check failed id=beanstalk_dispatch.{check}")

            return find

        self._row(
            "localhost is missing in ALLOWED_HOSTS: 400", "the worker's log, check E017",
            refused(400, "E017", ALLOWED_HOSTS="shop.example.com"),
        )  # fmt: skip
        self._row(
            "SECURE_SSL_REDIRECT: 301", "the worker's log, check E014",
            refused(301, "E014", SECURE_SSL_REDIRECT="True"),
        )  # fmt: skip

    def _changed_by_systemd(self) -> None:
        properties = dict(self._bundle.properties)
        queues = properties.pop("BEANSTALK_DISPATCH_QUEUES")

        def start_line(queues: str) -> Callable[[], str]:
            return lambda: self._start_line({"BEANSTALK_DISPATCH_QUEUES": queues} | properties)

        self._row(
            "a backslash at the end of a property: the next one is swallowed", "the start line",
            start_line(f"{queues}\\"),
        )  # fmt: skip
        self._row(
            "a quote that is not closed: the next properties are swallowed", "the start line",
            start_line(f'"{queues}'),
        )  # fmt: skip

    def _start_line(self, properties: Mapping[str, str]) -> str:
        """The Procfile's command with a systemd file of these properties, as far as it starts."""
        found = subprocess.run(
            [*self._bundle.web_command(), "--check-config"], cwd=self._bundle.root,
            env=PYTHON | delivered(environment_file(properties)),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        _line(found.stderr, "start worker=unknown reason=configuration")
        return _line(found.stderr, "contains the next property")

    # --- what the endpoint handles ---------------------------------------------------------------

    def _handled(self, machine: Machine, server: Gunicorn) -> None:
        self._row(
            "a value in quotes: systemd removes them", "the start line",
            lambda: server.log.line("start worker=True", "queues="),
        )  # fmt: skip
        self._row(
            "an attribute's name with an underscore: nginx drops the header", "handled",
            lambda: self._attribute(server),
        )  # fmt: skip
        self._row("a periodic task: its body is empty", "handled", lambda: self._periodic(server))
        self._row("a body of 1 MiB", "handled", lambda: self._large(server))

        def stranger() -> str:
            body = self._signed(Message(function="nap", args=[0]))
            assert post(machine.port, machine.daemon.path, body, source="127.0.0.2") == 403
            return server.log.line("status=403 reason=untrusted-peer")

        self._row("an outside peer", "the endpoint", stranger)

        def eaten() -> str:
            """As from a web tier on Docker, which keeps the backslash."""
            body = Message(function="nap", args=[0]).encode(queue=QUEUE, keys=[KEY])
            headers = {f"{HEADER}Queue": QUEUE, f"{HEADER}Msgid": "eaten"}
            assert post(machine.port, machine.daemon.path, body, **headers) == 403
            return server.log.line("id=eaten", "outcome=bad-signature")

        self._row("a key with a backslash that one tier has eaten", "the endpoint", eaten)

        short = machine.daemon.path.rpartition("/")[0]
        self._status_of_short_path = post(machine.port, short)

    def _attribute(self, server: Gunicorn) -> str:
        message = Message(function="nap", args=[0], id=str(uuid.uuid4()))
        names = {"trace_id": "lost", "origin": "kept"}
        attributes = {n: {"DataType": "String", "StringValue": v} for n, v in names.items()}
        open_queue("mail").send(self._signed(message), {"MessageAttributes": attributes})
        self._scheduled.append(message.id)
        assert server.log.line("attribute headers: ").endswith("attribute headers: ORIGIN")
        return self._done(server, message.id)

    def _periodic(self, server: Gunicorn) -> str:
        scheduler = Scheduler(cron.load(self._bundle.root / CRON), "mail")
        scheduler.send_due(datetime.now(UTC) + timedelta(days=1))
        return server.log.line("function=clean_up", "outcome=done")

    def _large(self, server: Gunicorn) -> str:
        empty = Message(function="nap", args=[0], kwargs={"note": ""}, sent_at=time.time())
        size = MAX_MESSAGE_BYTES - len(self._signed(empty)) - 16  # a longer id, or a later time
        task_id = self._schedule("nap", 0, note="x" * size)
        return self._done(server, task_id)

    # --- what takes too long ---------------------------------------------------------------------

    def _waiting_and_cut(self, machine: Machine, server: Gunicorn) -> None:
        path = machine.daemon.path

        def nap(port: int) -> int:
            body = self._signed(Message(function="nap", args=[0.7]))
            return post(port, path, body, **{f"{HEADER}Queue": QUEUE})

        def crowd() -> str:
            """As with HttpConnections 50, and an nginx that waits for two seconds."""
            text = self._folder / "first" / "nginx" / "conf.d" / "elasticbeanstalk"
            location = (text / "beanstalk_dispatch.conf").read_text()
            short = text / "short"
            short.write_text(re.sub(r"(Timeout |timeout )\d+", r"\g<1>2", location))
            with machine.with_nginx_of(include=str(short)) as port, ThreadPoolExecutor(50) as pool:
                statuses = [each.result() for each in [pool.submit(nap, port) for _ in range(50)]]
            counted = {status: statuses.count(status) for status in sorted({*statuses})}
            assert counted.keys() == {200, 503}, counted
            return server.log.line("function=nap outcome=overdue")

        self._row(
            "50 connections on 15 threads: a task that nginx would cut off does not begin",
            "the endpoint", crowd,
        )  # fmt: skip

        def longer_than_nginx() -> str:
            headers = {f"{HEADER}Msgid": "longer-than-nginx", f"{HEADER}Queue": QUEUE}
            message = Message(function="long_nap", args=[2], id="longer-than-nginx")
            body = self._signed(message)
            with machine.with_nginx_of(proxy_read_timeout="300ms") as port:
                first = post(port, path, body, **headers)
                again = post(machine.port, path, body, **headers)
            assert (first, again) == (504, 409), (first, again)
            self._done(server, message.id)
            assert post(machine.port, path, body, **headers) == 200
            server.log.line(f"id={message.id}", "outcome=duplicate")
            return server.log.line("delivered again", message.id)

        self._row(
            "a task longer than nginx waits: 504, and it is delivered again", "the endpoint",
            longer_than_nginx,
        )  # fmt: skip

    # --- the end of a process, and of an instance ------------------------------------------------

    def _deployment(self, machine: Machine, server: Gunicorn) -> str:
        """Stop the server while a task runs; the id of a task that comes after that."""
        running = self._schedule("long_nap", 2)

        def finishes() -> str:
            server.log.line(f"nap begins id={running}")
            server.terminate()
            server.log.line(f"stopping running id={running}")
            return self._done(server, running, "receive_count=1")

        self._row(
            "a deployment in the middle of a task: the task ends", "gunicorn's graceful timeout",
            finishes,
        )  # fmt: skip
        return self._schedule("nap", 0)

    def _scale_in(self, machine: Machine, server: Gunicorn) -> str:
        task_id = self._schedule("long_nap", 2)
        with contextlib.suppress(AssertionError):  # the row of the other instance says so
            server.log.line(f"nap begins id={task_id}")
        machine.daemon.kill()
        server.kill()
        return task_id

    def _nothing_is_lost(self) -> str:
        def not_done() -> set[str]:
            lines = "".join(server.log.text() for server in self._logs).splitlines()
            done = "".join(line for line in lines if "outcome=done" in line)
            return {each for each in self._scheduled if each not in done}

        with contextlib.suppress(AssertionError):  # for the message below
            until(lambda: not not_done())
        assert not (missing := not_done()), missing
        dead = self._client.get_queue_url(QueueName=f"{QUEUE}-dead-letter")["QueueUrl"]
        name = "ApproximateNumberOfMessages"
        found = self._client.get_queue_attributes(QueueUrl=dead, AttributeNames=[name])
        assert found["Attributes"][name] == "0"
        return f"{len(self._scheduled)} scheduled, {len(self._scheduled)} done, 0 dead letters"

    # --- files that somebody has changed ---------------------------------------------------------

    def _wrong_files(self, console: Console) -> None:
        """One ``beanstalk_eb --check`` says all of it."""
        options = self._bundle.root / options_file("shop-worker")
        changed = options.read_text()
        for wrong, right in (
            ('"/beanstalk_dispatch"', '"/beanstalk_dispatch/dispatcher"'), ('"50"', '"15"'),
        ):  # fmt: skip
            changed = changed.replace(right, wrong)
        options.write_text(changed)
        for hook in HOOKS:
            file = self._bundle.root / hook
            file.write_text(re.sub(r"(Timeout |timeout )\d+", r"\g<1>2", file.read_text()))
        _, checked = console.run(
            "beanstalk_eb", f"--region={REGION}", f"--account={ACCOUNT}", "--check"
        )
        _, examined = console.run("beanstalk_doctor", BEANSTALK_WORKER="True")

        def found(output: str, pattern: str) -> Callable[[], str]:
            return lambda: _line(output, pattern)

        def redirected() -> str:
            assert self._status_of_short_path == 301
            return _line(checked, "HttpPath is")

        without_last_part = "HttpPath without its last part: 301"
        for surprise, by, find in (
            (without_last_part, "beanstalk_eb --check", redirected),
            (without_last_part, "beanstalk_doctor", found(examined, "HttpPath .* is too short")),
            ("HttpConnections 50 on 15 threads", "beanstalk_eb --check",
             found(checked, "HttpConnections is 50")),
            ("nginx's limit below the longest task", "beanstalk_eb --check",
             found(checked, "nginx's proxy_read_timeout")),
        ):  # fmt: skip
            self._row(surprise, by, find)


def _line(output: str, pattern: str, exclude: str = "\0") -> str:
    """The first line in which the pattern is found. Raises AssertionError without one."""
    for line in output.splitlines():
        if re.search(pattern, line) and exclude not in line:
            return line.strip()
    raise AssertionError(f"no line with {pattern!r} in:\n{output[-1500:]}")
