"""Install a wheel into three new projects, and let each schedule and run tasks.

Two are the example project, with the oldest and the newest pair of Python and Django. The third is
a project of beanstalk-dispatch 0.1.5, unchanged: what 0.1.5 has sent runs with the new wheel too.
Every environment and folder is new, so nothing of the repository can be imported by accident.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
OLD_RELEASE: Final = "beanstalk-dispatch==0.1.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project that a wheel is tried in."""

    python: str
    django: str
    is_old: bool = False
    """True for a project of beanstalk-dispatch 0.1.5."""

    def __str__(self) -> str:
        kind = "a project of 0.1.5" if self.is_old else "the example project"
        return f"{kind}, Python {self.python}, Django {self.django}"


PROJECTS: Final = (
    Project(python="3.11", django="5.2"),
    Project(python="3.13", django="6.1"),
    Project(python="3.11", django="5.2", is_old=True),
)


def interpreter(version: str) -> str:
    """Return the path of a Python. Raise SystemExit if this machine has none of that version."""
    name = f"python{version}"
    for candidate in (shutil.which(name), f"/usr/bin/{name}"):
        if (
            candidate
            and subprocess.run([candidate, "-c", "import ensurepip"], check=False).returncode == 0
        ):
            return candidate
    raise SystemExit(f"{name} is not on this machine; install it, with its venv module")


def environment() -> dict[str, str]:
    """Return this process's variables without those that would configure a project."""
    ours = ("AWS_", "BEANSTALK_", "DJANGO_", "PYTHON", "SENTRY_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def make_venv(folder: Path, python: str, *requirements: str) -> Path:
    """Make an environment with these packages. Return the path of its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    path = folder / "bin" / "python"
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    subprocess.run([path, *install], env=environment(), check=True)
    return path


def check_origin(python: Path, folder: Path, version: str) -> None:
    """Raise SystemExit if the project would import another package than that of the wheel."""
    code = "import beanstalk_dispatch as found; print(found.__version__, found.__file__)"
    run = subprocess.run(
        [python, "-c", code],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found, file = run.stdout.strip().split(" ", 1)
    if found != version or not Path(file).is_relative_to(python.parents[1]):
        raise SystemExit(f"{folder} imports {found} from {file} in place of {version}")


def unpack(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the example project, as the sdist has it."""
    for name, content in files.items():
        if name.startswith("example_settings/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def try_one(project: Project, wheel: Path, files: Mapping[str, bytes], folder: Path) -> None:
    """Install the wheel, and run the project's tasks. Raise CalledProcessError if one fails."""
    python = interpreter(project.python)
    django = f"django=={project.django}.*"
    new = make_venv(folder / "venv", python, f"{wheel}[local]", django)
    site = folder / "site"
    unpack(files, site)
    command: list[str | Path] = [new, "-m", "example_settings.demo"]
    if project.is_old:
        shutil.copytree(HERE / "project_0_1", site, dirs_exist_ok=True)
        old = make_venv(folder / "venv-0.1.5", python, OLD_RELEASE, django)
        command = [new, "run.py", old]
    check_origin(new, site, wheel.name.split("-")[1])
    subprocess.run(command, cwd=site, env=environment(), check=True)


def try_all(wheel: Path, files: Mapping[str, bytes]) -> None:
    """Try the wheel in each project; ``files`` are those of the sdist."""
    for project in PROJECTS:
        print(f"\n=== {project}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            try_one(project, wheel, files, Path(directory))
        print(f"ok: {project}", flush=True)
