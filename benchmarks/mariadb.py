"""Time limits and open transactions on MariaDB, with a driver that is written in Python.

    python -m benchmarks.mariadb

An interrupt can strike anywhere in PyMySQL. Eight threads run tasks that exceed their time limit in
the middle of small transactions, tasks that leave a transaction open, and blameless tasks, which
insert a row each. It needs ``mariadbd`` (apt-get install mariadb-server) and PyMySQL, and says so
if one is missing. The exit code is 1 if a blameless task failed or its row is missing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch.safe_task import SafeTask

from .processes import free_port

BLAMELESS: Final = 600
TABLE: Final = " ".join(
    f"{name}=benchmarks.mariadb.{path}"
    for name, path in {
        "limit-in-commit": "LimitInCommit", "begin": "begin", "enter-atomic": "enter_atomic",
        "blameless": "blameless",
    }.items()
)  # fmt: skip


def insert(table: str, number: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} VALUES (%s)", [number])


class LimitInCommit(SafeTask):
    """Commit one small transaction after the other, and end as if all were done when one fails."""

    timeout_timedelta = 0.2
    verbose = False

    def run(self) -> None:
        from django.db import transaction

        with contextlib.suppress(Exception):
            while True:
                with transaction.atomic():
                    insert("spoiled", 0)


def begin() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    insert("spoiled", 0)


def enter_atomic() -> None:
    from django.db import transaction

    transaction.atomic().__enter__()
    insert("spoiled", 0)


def blameless(number: int) -> None:
    from django.db import transaction

    with transaction.atomic():
        insert("work", number)


@contextmanager
def mariadb(program: str, port: int) -> Iterator[None]:
    """A server with empty tables, which trusts everyone who can reach 127.0.0.1."""
    import pymysql

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        data = f"{folder}/data"
        user = ["--user=nobody"] if os.geteuid() == 0 else []
        subprocess.run(
            ["mariadb-install-db", *user, f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            check=True, capture_output=True,
        )  # fmt: skip
        server = subprocess.Popen(
            [program, "--no-defaults", *user, f"--datadir={data}", f"--port={port}",
             "--bind-address=127.0.0.1", f"--socket={data}/socket"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    connection = pymysql.connect(host="127.0.0.1", port=port, user="root")
                    break
                except pymysql.Error:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
            with connection, connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE tasks")
                for table in ("work", "spoiled"):
                    cursor.execute(f"CREATE TABLE tasks.{table} (number int)")
            yield
        finally:
            server.terminate()
            server.wait(30)


def start_django(port: int) -> None:
    import django
    import pymysql
    from django.conf import settings

    pymysql.install_as_MySQLdb()
    pymysql.version_info = (2, 2, 7, "final", 0)  # Django asks for that of mysqlclient
    os.environ |= {
        "BEANSTALK_WORKER": "True",
        "BEANSTALK_DISPATCH_TABLE": TABLE,
        "BEANSTALK_DISPATCH_CRASH_LEDGER": "off",
    }
    database = {
        "ENGINE": "django.db.backends.mysql", "NAME": "tasks", "USER": "root",
        "HOST": "127.0.0.1", "PORT": port, "CONN_MAX_AGE": 600,
    }  # fmt: skip
    settings.configure(
        INSTALLED_APPS=["beanstalk_dispatch"],
        SECRET_KEY="benchmark",
        DATABASES={"default": database},
    )
    django.setup()
    logging.disable(logging.CRITICAL)


def run_all() -> Counter[str]:
    """The outcomes of all tasks, by function."""
    from beanstalk_dispatch.delivery import Delivery
    from beanstalk_dispatch.execution import executor
    from beanstalk_dispatch.message import Message

    calls: list[tuple[str, list[Any]]] = [("blameless", [i]) for i in range(BLAMELESS)]
    calls += [("limit-in-commit", [])] * 150 + [("begin", []), ("enter-atomic", [])] * 20
    random.Random(1).shuffle(calls)
    waiting: queue.SimpleQueue[tuple[str, list[Any]]] = queue.SimpleQueue()
    for call in calls:
        waiting.put(call)
    outcomes: Counter[str] = Counter()

    def loop() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                name, args = waiting.get_nowait()
                body = Message(function=name, args=args).encode(queue="q")
                outcomes[f"{name} {executor.run(body, Delivery(queue='q')).outcome}"] += 1

    threads = [threading.Thread(target=loop) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return outcomes


def main() -> int:
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    try:
        import pymysql
    except ImportError:
        pymysql = None
    if program is None or pymysql is None:
        print("not run  mariadb: apt-get install mariadb-server; pip install pymysql")
        return 0
    port = free_port()
    with mariadb(program, port):
        start_django(port)
        outcomes = run_all()
        with pymysql.connect(host="127.0.0.1", port=port, user="root", database="tasks") as found:
            cursor = found.cursor()
            cursor.execute("SELECT count(*), count(DISTINCT number) FROM work")
            rows, numbers = cursor.fetchone()
    harmed = BLAMELESS - outcomes["blameless done"] + BLAMELESS - numbers + rows - numbers
    is_well = not harmed and not outcomes["limit-in-commit done"]
    print(
        f"{'ok' if is_well else 'NOT OK':<7}{harmed:>4}  mariadb pymysql: {BLAMELESS} blameless: "
        f"{rows} rows of {numbers}; {dict(sorted(outcomes.items()))}"
    )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
