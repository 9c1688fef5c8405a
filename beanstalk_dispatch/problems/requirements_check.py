"""Comparison of requirements.txt with the packages that a deployment of the plan needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.deploying.procfile import WebServer

from .findings import problem

REQUIREMENTS: Final = "requirements.txt"
"""The file from which Elastic Beanstalk installs packages.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/python-configuration-requirements.html
"""
_OWN: Final = "django-beanstalk-dispatch"
_PACKAGES: Final = {
    "uvicorn": "uvicorn",
    "hypercorn": "hypercorn",
    "daphne": "daphne",
    "waitress-serve": "waitress",
    "uvicorn_worker.UvicornWorker": "uvicorn-worker",
    "uvicorn.workers.UvicornWorker": "uvicorn",
}
"""A web server or a worker class of gunicorn → its package. The platform has gunicorn itself."""
_OTHER_FILE: Final = re.compile(r"^(?:-r|--requirement)[ =]*(\S+)", re.MULTILINE)
_LOCAL: Final = re.compile(r"^(?:-e\s+)?\.", re.MULTILINE)
"""A line that installs the project itself, whose requirements are elsewhere."""


def check(server: WebServer | None, root: Path) -> Iterator[CheckMessage]:
    """Yield a finding for each package that is not named. A missing file is reported elsewhere."""
    text = "\n".join(_contents(root / REQUIREMENTS, set()))
    if not text or _LOCAL.search(text):
        return
    programs = [server.program.name, server.worker_class] if server else []
    needed = [_OWN, *(_PACKAGES[each] for each in programs if each in _PACKAGES)]
    named = re.sub(r"[-_]+", "-", text.lower())
    for package in needed:
        if not re.search(rf"(?<![a-z0-9-]){package}(?![a-z0-9-])", named):
            yield problem("W428", REQUIREMENTS, package=package)


def _contents(file: Path, seen: set[Path]) -> Iterator[str]:
    """Yield the content of a file, and of those that it names with ``-r``."""
    if file in seen or not file.exists():
        return
    seen.add(file)
    text = file.read_text(errors="replace")
    yield text
    for name in _OTHER_FILE.findall(text):
        yield from _contents((file.parent / name).resolve(), seen)
