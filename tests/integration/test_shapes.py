"""Each shape of project, from an empty folder to a task that nginx, gunicorn and it have run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.deploying.eb_files import HOOKS, NGINX_STAGING
from beanstalk_dispatch.deploying.procfile import PROCFILE
from tests.conftest import Environment, create_queue
from tests.services import NO_COVERAGE, free_port, nginx, postgres, until
from tests.shapes import SHAPES, Shape
from tests.workers import restored_signal_handlers

WRITE = ("beanstalk_eb", "--region=eu-west-1", "--account=123456789012")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres() as url:
        yield url


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project in its folder, with the Python that has its packages."""

    shape: Shape
    root: Path
    variables: Mapping[str, str]
    """What the processes have besides the properties."""
    python: Path = Path(sys.executable)

    def environment(self, properties: Mapping[str, str]) -> dict[str, str]:
        path = f"{self.python.parent}:/usr/bin:/bin"
        return {"PATH": path, **NO_COVERAGE, **self.variables, **properties}

    def manage(
        self, properties: Mapping[str, str], *words: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, self.shape.manage, *words], cwd=self.root, text=True,
            env=self.environment(properties), capture_output=True, check=False,
        )  # fmt: skip

    def properties_of(self, commands: str, environment: str) -> dict[str, str]:
        """What ``eb setenv`` sets on an environment, of the commands that were printed."""
        joined = commands.replace("\\\n", "")
        (line,) = [each for each in joined.splitlines() if f"setenv -e {environment} " in each]
        return dict(word.split("=", 1) for word in shlex.split(line)[4:])


def deploy(project: Project, queue: str) -> tuple[dict[str, str], dict[str, str]]:
    """Write the files, and return the properties of the web and of the worker environment."""
    shape = project.shape
    own = {**shape.properties, "DJANGO_SETTINGS_MODULE": shape.settings}
    first = {
        "BEANSTALK_DISPATCH_TABLE": f"send_welcome={shape.package}.tasks.send_welcome",
        "BEANSTALK_DISPATCH_QUEUES": f"mail={queue}",
    }
    written = project.manage(own | first, *WRITE, *["--overwrite"] * shape.overwrites)
    assert written.returncode == 0, written.stderr + written.stdout
    web, worker = (
        {**shape.properties, **project.properties_of(written.stdout, f"shop-{tier}")}
        for tier in ("web", "worker")
    )
    assert worker["DJANGO_SETTINGS_MODULE"] == shape.settings
    assert errors_of_the_doctor(project, worker) == shape.walls
    if shape.walls:
        assert errors_of_the_doctor(project, {**worker, **shape.remedies}) == set()
    return {**web, **shape.remedies}, {**worker, **shape.remedies}


def errors_of_the_doctor(project: Project, properties: Mapping[str, str]) -> set[str]:
    findings = json.loads(project.manage(properties, "beanstalk_doctor", "--json").stdout)
    return {
        each["id"].partition(".")[2] for each in findings["findings"] if each["level"] == "error"
    }


def run_hook(project: Project, properties: Mapping[str, str], port: int) -> Path:
    """Return the file that the hook gives nginx, in front of this port."""
    staging = project.root.parent / "staging"
    script = (project.root / HOOKS[0]).read_text().replace(NGINX_STAGING, str(staging))
    subprocess.run(["/bin/sh"], input=script, text=True, check=True, cwd=project.root,
                   env=project.environment(properties))  # fmt: skip
    (file,) = staging.rglob("beanstalk_dispatch.conf")
    file.write_text(file.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
    return file


def run_a_task(
    project: Project,
    web: Mapping[str, str],
    worker: Mapping[str, str],
    set_env: Environment,
    *,
    alias: str = "mail",
) -> str:
    """Let the web tier schedule, and the daemon deliver; return the log of the worker."""
    port, log = free_port(), project.root.parent / "web.log"
    command = (project.root / PROCFILE).read_text().partition("web:")[2].splitlines()[0]
    assert command.endswith(project.shape.target)
    location = run_hook(project, worker, port)
    with (
        log.open("w") as output,
        subprocess.Popen(
            shlex.split(command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")), cwd=project.root,
            env=project.environment(worker), stdout=output, stderr=output,
        ) as server,
        nginx(port, include=str(location)) as front,
    ):  # fmt: skip
        try:
            until(lambda: "Listening at" in log.read_text() or server.poll() is not None)
            set_env(**{name: each for name, each in web.items() if name.startswith("BEANSTALK_")})
            task_id = schedule_function(alias, "send_welcome", 7)
            url = f"http://127.0.0.1:{front}/beanstalk_dispatch/dispatcher"
            with restored_signal_handlers():
                call_command("beanstalk_daemon", alias, url, "--wait=1", "--burst")
            until(lambda: f"id={task_id} function=send_welcome outcome=" in log.read_text())
        finally:
            server.terminate()
    return log.read_text()


def start(shape: Shape, folder: Path, database: str = "") -> Project:
    """Make the project in a folder that nginx may read."""
    folder.chmod(0o755)
    root = folder / "shop"
    root.mkdir(mode=0o755)
    shape.build(root)
    return Project(shape=shape, root=root, variables={"DATABASE_URL": database})


def credentials(moto: str) -> dict[str, str]:
    """Return what stands for the instance profile, and for AWS."""
    return {
        "BEANSTALK_DISPATCH_SQS_KEY": "key", "BEANSTALK_DISPATCH_SQS_SECRET": "a-secret-key",
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": moto,
    }  # fmt: skip


def as_parameter(shape: Shape) -> Any:
    is_missing = shape.name == "wagtail" and find_spec("wagtail") is None
    skip = pytest.mark.skipif(is_missing, reason="wagtail is in the group task-apps")
    return pytest.param(shape, id=shape.name, marks=skip)


@pytest.mark.parametrize("shape", [as_parameter(shape) for shape in SHAPES])
def test_a_project_runs_a_task_with_the_files_and_properties_of_beanstalk_eb(
    shape: Shape, moto: str, queue_name: str, env: Environment, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    database = request.getfixturevalue("database") if shape.vendor == "postgresql" else ""
    project, local = start(shape, tmp_path, database), credentials(moto)
    create_queue(queue_name)

    web, worker = deploy(project, queue_name)
    checked = project.manage(worker, "beanstalk_eb", "--check", "--fail-level=ERROR")
    assert checked.returncode == 0, checked.stdout
    assert "web server: it starts, and GET /beanstalk_dispatch/dispatcher" in checked.stdout
    log = run_a_task(project, web | local, worker | local, env)

    assert "outcome=done" in log
    assert f"welcome, user 7 from {shape.vendor}" in log
    assert f" settings={shape.settings}\n" in log


def test_a_second_worker_environment_of_a_bundle_runs_the_tasks_of_its_queue(
    moto: str, queue_name: str, env: Environment, tmp_path: Path
) -> None:
    project, local = start(SHAPES[0], tmp_path), credentials(moto)
    create_queue(f"{queue_name}-work")
    own = {
        "BEANSTALK_DISPATCH_TABLE": "send_welcome=shop.tasks.send_welcome",
        "BEANSTALK_DISPATCH_QUEUES": f"mail={queue_name} work={queue_name}-work",
    }
    second = ("--queue=work", "--worker=shop-work")

    first = project.manage(own, *WRITE)
    written = project.manage(own, *WRITE, *second)
    assert written.returncode == 0, written.stderr
    web = project.properties_of(first.stdout, "shop-web")
    worker = project.properties_of(written.stdout, "shop-work")
    key = "BEANSTALK_DISPATCH_SIGNING_KEYS"
    worker[key] = web[key]  # as a comment says
    for properties, options in ((web, ()), (worker, second)):
        checked = project.manage(properties, *WRITE, *options, "--check")
        assert checked.returncode == 0, checked.stdout
    log = run_a_task(project, web | local, worker | local, env, alias="work")

    assert "outcome=done" in log
    assert not (project.root / "cron.yaml").exists()  # the hook leaves it to the first one
