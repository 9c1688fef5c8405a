"""The files that beanstalk_eb writes, in real programs: gunicorn, nginx, and the stand-in."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from django.core.checks import INFO
from django.core.management import call_command

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.deploying.eb_files import HOOKS, NGINX_STAGING
from beanstalk_dispatch.deploying.procfile import PROCFILE
from beanstalk_dispatch.deploying.sqsd_options import options_file
from beanstalk_dispatch.problems import machine_doctor
from beanstalk_dispatch.problems.machine_doctor import Machine
from tests.conftest import Environment
from tests.services import Gunicorn, nginx, until
from tests.workers import restored_signal_handlers


def run_hook(bundle: Path, staging: Path) -> Path:
    """What nginx gets on a machine with this process's environment."""
    script = (bundle / HOOKS[0]).read_text().replace(NGINX_STAGING, str(staging))
    subprocess.run(["/bin/sh"], input=script, text=True, env=dict(os.environ), check=True)
    (file,) = staging.rglob("*.conf")
    return file


def test_a_task_runs_with_the_files_that_are_written(
    worker_env: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, staging = tmp_path / "bundle", tmp_path / "staging"
    call_command("beanstalk_eb", "--region=eu-west-1", "--account=123456789012",
                 f"--directory={bundle}")  # fmt: skip
    settings = json.loads((bundle / options_file("tests-worker")).read_text())
    options = {each["OptionName"]: each["Value"] for each in settings}
    words = shlex.split((bundle / PROCFILE).read_text().partition(":")[2])
    arguments = " ".join(word for word in words[3:-1] if "workers" not in word)

    location = run_hook(bundle, staging)
    tmp_path.chmod(0o755)
    with closing(_Server(tmp_path, arguments)) as server:
        text = location.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        location.write_text(text)
        with nginx(server.port, include=str(location)) as port, restored_signal_handlers():
            task_id = schedule_function("jobs", "record", 7)
            call_command(
                "beanstalk_daemon", "jobs", f"http://127.0.0.1:{port}{options['HttpPath']}",
                f"--http-connections={options['HttpConnections']}",
                f"--inactivity-timeout={options['InactivityTimeout']}", "--wait=1", "--burst",
            )  # fmt: skip
            until(lambda: f"id={task_id} function=record outcome=done" in server.log())
            (tmp_path / "default.yaml").write_text(f"http_path: {options['HttpPath']}\n")
            (tmp_path / "default.log").touch()
            machine = Machine(
                daemon_options=tmp_path / "default.yaml", daemon_log=tmp_path / "default.log",
                nginx=staging, port=port,
            )  # fmt: skip
            found = list(machine_doctor.examine(machine))
    line = next(each for each in server.log().splitlines() if task_id in each)
    assert " waited_ms=" in line  # nginx has sent X-Request-Start
    assert {each.level for each in found} == {INFO}


class _Server(Gunicorn):
    """gunicorn with the arguments of a Procfile."""

    def __init__(self, directory: Path, arguments: str) -> None:
        super().__init__(directory, GUNICORN_CMD_ARGS=arguments)
        until(self.is_up)

    def close(self) -> None:
        self.stop()
