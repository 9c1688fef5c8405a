"""MariaDB, for as long as a block lasts. It is a package of the system, not a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from .processes import free_port


@contextmanager
def mariadb() -> Iterator[int | None]:
    """A server with the database "tasks", which trusts everyone who can reach 127.0.0.1.

    The block gets its port, or None if the machine has no MariaDB.
    """
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        yield None
        return
    port = free_port()
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
            yield port
        finally:
            server.terminate()
            server.wait(30)
