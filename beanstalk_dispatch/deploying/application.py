"""The shape of a project: its name, and how a web server loads it from the root of a bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.conf import settings

from .procfile import read_web_command
from .settings_module import file_of, server_settings_module

_UNSPECIFIC: Final = frozenset(
    {"app", "backend", "conf", "config", "core", "django_project", "project", "server", "src"}
)
"""Names of packages that many projects have. Such a project goes by the name of its folder."""
_WORKER_CLASSES: Final = ("uvicorn_worker", "uvicorn.workers")
"""The modules of gunicorn's worker class for ASGI.

uvicorn 0.30 has moved it to a package of its own.
"""
_TARGET: Final = re.compile(r"(?:^|\s)(?P<module>[\w.]+\.[aw]sgi)(?::(?P<name>\w+))?(?=\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One of the two interfaces between a web server and a Python project."""

    setting: str
    """Django's setting that names the application."""
    suffix: str
    """The last part of the module in a new project."""
    gunicorn: str
    """The options with which gunicorn serves it."""


WSGI: Final = Interface(
    setting="WSGI_APPLICATION", suffix="wsgi", gunicorn="--workers={processes} --threads={threads}"
)
ASGI: Final = Interface(
    setting="ASGI_APPLICATION",
    suffix="asgi",
    gunicorn="--workers={processes} --worker-class={worker_class}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The module that a web server loads, and the settings module that it loads with it."""

    module: str = ""
    name: str = "application"
    interface: Interface = WSGI
    directory: str = ""
    """The folder of the bundle in which Python finds the module; empty for the root."""
    settings: str | None = None
    """The settings module of the servers; None if it is not known."""

    @property
    def gunicorn(self) -> str:
        """The application in a command line of gunicorn, with the folder to change to."""
        chdir = f"--chdir {self.directory} " if self.directory else ""
        return chdir + self.module + (f":{self.name}" if self.name != "application" else "")

    @property
    def worker_class(self) -> str:
        """The worker class of gunicorn for ASGI, of the package that is installed."""
        module = next(filter(_is_installed, _WORKER_CLASSES), _WORKER_CLASSES[0])
        return f"{module}.UvicornWorker"


def find_application(root: Path) -> Application:
    """Return the application that the Procfile of the bundle names, or Django's settings."""
    if match := _TARGET.search(read_web_command(root) or ""):
        module, name = match["module"], match["name"] or "application"
    else:
        module, _, name = _named_in_settings().rpartition(".")
    return Application(
        module=module,
        name=name,
        interface=ASGI if module.endswith(ASGI.suffix) else WSGI,
        directory=_directory_of(module, root),
        settings=server_settings_module(module),
    )


def _named_in_settings() -> str:
    """Return the dotted path of the application. A project with both has a WSGI server."""
    for interface in (WSGI, ASGI):
        if path := getattr(settings, interface.setting, None):
            return str(path)
    package = _package() or "project"
    found = [each for each in (WSGI, ASGI) if file_of(f"{package}.{each.suffix}")]
    return f"{package}.{[*found, WSGI][0].suffix}.application"


def _directory_of(module: str, root: Path) -> str:
    """Return the folder of the module's first package, relative to the root of the bundle."""
    if (file := file_of(module)) is None:
        return ""
    folder = file.resolve().parents[module.count(".")]
    if not folder.is_relative_to(root.resolve()) or "site-packages" in folder.parts:
        return ""
    relative = folder.relative_to(root.resolve()).as_posix()
    return "" if relative == "." else relative


def _is_installed(module: str) -> bool:
    return file_of(module) is not None


def _package() -> str:
    """Return the first package of the root urls.py."""
    return str(getattr(settings, "ROOT_URLCONF", None) or "").partition(".")[0]


def project_name(root: Path) -> str:
    """Return the project's name: of its package, or of its folder if the package's is a common one.

    It has letters, digits and hyphens, as the names of environments.
    """
    package = _package()
    name = root.resolve().name if package in {*_UNSPECIFIC, ""} else package
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "project"
