"""The parts of a worker machine: systemd's environment, gunicorn, nginx and the daemon's stand-in.

They run the files and the commands that ``beanstalk_eb`` has written, as Elastic Beanstalk would.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from beanstalk_dispatch.deploying.eb_files import HOOKS, NGINX_STAGING
from beanstalk_dispatch.deploying.existing import CRON
from beanstalk_dispatch.deploying.procfile import PROCFILE
from beanstalk_dispatch.deploying.sqsd_options import options_file
from tests.services import NO_COVERAGE, free_port, nginx, until

from .environment_file import delivered, environment_file

PYTHON = {
    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    "DJANGO_SETTINGS_MODULE": "shop.settings",
    "NO_PROXY": "127.0.0.1",
    "AWS_EC2_METADATA_DISABLED": "true",
    **NO_COVERAGE,
}
"""What a process has besides the environment properties."""

# So that nobody waits for a minute: seconds in place of those that beanstalk_eb has written.
ERROR_VISIBILITY_SECONDS = 1
VISIBILITY_SECONDS = 5

_APPLICATION = "    proxy_pass http://127.0.0.1:{port};\n"
"""The line of the platform's own ``00_application.conf`` that the hook reads."""


class Log:
    """What a process has written."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def text(self) -> str:
        return self._file.read_text()

    def line(self, *parts: str, seconds: float = 30) -> str:
        """Wait for a line that contains each part. Raises AssertionError if none comes."""
        found: list[str] = []

        def look() -> bool:
            lines = self.text().splitlines()
            found.extend(line for line in lines if all(part in line for part in parts))
            return bool(found)

        try:
            until(look, seconds)
        except AssertionError:
            end = self.text()[-1500:]
            raise AssertionError(f"no line with {' and '.join(parts)} in:\n{end}") from None
        return found[0]


@dataclass(kw_only=True)
class Bundle:
    """The project with its deployment files, and the properties of the worker environment."""

    root: Path
    properties: Mapping[str, str] = field(default_factory=dict)

    def environment(self, **changes: str) -> dict[str, str]:
        """What systemd delivers of the properties, of which some may be changed."""
        return delivered(environment_file({**self.properties, **changes}))

    def options(self) -> dict[str, str]:
        """The daemon's options, by name."""
        settings = json.loads((self.root / options_file("shop-worker")).read_text())
        return {each["OptionName"]: each["Value"] for each in settings}

    def web_command(self) -> list[str]:
        """The words of the Procfile's line."""
        name, _, command = (self.root / PROCFILE).read_text().partition(":")
        assert name == "web"
        return shlex.split(command)


class Gunicorn:
    """The project's server, on a port that stays the same through deployments."""

    def __init__(self, bundle: Bundle, folder: Path, port: int, changes: Mapping[str, str]) -> None:
        """``changes`` are properties that differ from those of the bundle."""
        folder.mkdir(exist_ok=True)
        file = folder / "web.log"
        self.log = Log(file)
        command = bundle.web_command()
        command[command.index("127.0.0.1:8000")] = f"127.0.0.1:{port}"
        with file.open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=bundle.root, env=PYTHON | bundle.environment(**changes),
                stderr=log, stdout=log,
            )  # fmt: skip
        self.log.line("Listening at")

    def kill(self) -> None:
        """End it as the end of an instance does: at once, with its children."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        for pid in (self._process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self._process.wait(20)

    def terminate(self) -> None:
        """Send what systemd sends at a deployment, and return at once."""
        self._process.terminate()

    def stop(self) -> None:
        """Wait until it has ended."""
        self._process.terminate()
        self._process.wait(40)


class Daemon:
    """``beanstalk_daemon`` with the options of the file, and two shorter times."""

    def __init__(self, bundle: Bundle, folder: Path, port: int) -> None:
        options = bundle.options()
        self.path = options["HttpPath"]
        file = folder / "daemon.log"
        self.log = Log(file)
        alias = next(
            alias
            for alias, _, url in (
                pair.partition("=")
                for pair in bundle.properties["BEANSTALK_DISPATCH_QUEUES"].split()
            )
            if url == options["WorkerQueueURL"]
        )
        with file.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "django", "beanstalk_daemon", "--skip-checks",
                 alias, f"http://127.0.0.1:{port}{self.path}",
                 f"--http-connections={options['HttpConnections']}",
                 f"--inactivity-timeout={options['InactivityTimeout']}",
                 f"--visibility-timeout={VISIBILITY_SECONDS}",
                 f"--error-visibility-timeout={ERROR_VISIBILITY_SECONDS}",
                 f"--mime-type={options['MimeType']}",
                 f"--cron={CRON}", "--wait=1"],
                cwd=bundle.root, env=PYTHON | bundle.environment(), stderr=log, stdout=log,
            )  # fmt: skip

    def kill(self) -> None:
        """End it at once, as the end of an instance does."""
        self._process.kill()
        self._process.wait(20)


def nginx_location(bundle: Bundle, folder: Path, port: int) -> Path:
    """Run the hook as a deployment does; the file that it gives nginx."""
    staging = folder / "nginx"
    conf = staging / "conf.d" / "elasticbeanstalk"
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "00_application.conf").write_text(_APPLICATION.format(port=port))
    script = (bundle.root / HOOKS[0]).read_text().replace(NGINX_STAGING, str(staging))
    subprocess.run(
        ["/bin/sh"], input=script, text=True, check=True,
        env={"PATH": "/usr/bin:/bin"} | bundle.environment(),
    )  # fmt: skip
    return conf / "beanstalk_dispatch.conf"


class Machine:
    """One worker instance: nginx, its daemon, and a gunicorn that deployments replace."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self._bundle, self._folder = bundle, folder
        folder.mkdir()
        folder.chmod(0o755)
        self._upstream = free_port()
        self._stack = ExitStack()
        location = nginx_location(bundle, folder, self._upstream)
        self.port = self._stack.enter_context(nginx(self._upstream, include=str(location)))
        self.daemon = Daemon(bundle, folder, self.port)
        self._stack.callback(self.daemon.kill)

    @contextmanager
    def serving(self, name: str, **changes: str) -> Iterator[Gunicorn]:
        """A gunicorn, with properties that differ; it is stopped at the end of the block."""
        ledger = {"BEANSTALK_DISPATCH_CRASH_LEDGER": str(self._folder / "ledger")}
        server = Gunicorn(self._bundle, self._folder / name, self._upstream, ledger | changes)
        try:
            yield server
        finally:
            server.stop()

    @contextmanager
    def with_nginx_of(self, **settings: str) -> Iterator[int]:
        """Another nginx in front of the same gunicorn; the block gets its port."""
        with nginx(self._upstream, **settings) as port:
            yield port

    def close(self) -> None:
        self._stack.close()


def post(port: int, path: str, body: str = "", *, source: str = "127.0.0.1", **headers: str) -> int:
    """POST as the daemon does, and return the status."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=30, source_address=(source, 0)
    )
    try:
        connection.request("POST", path, body, {"Host": "localhost"} | headers)
        return connection.getresponse().status
    finally:
        connection.close()
