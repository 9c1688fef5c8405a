"""The matrix of Pythons and Djangos, each in an environment of its own.

``nox`` runs every pair whose Python is installed, ``nox --list`` shows them, and the GitHub
workflow takes its jobs from ``nox --list --json``. The versions are those of the classifiers in
pyproject.toml; the commands are those of the Makefile.
"""

from __future__ import annotations

import re

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
DJANGOS = re.findall(
    r"Framework :: Django :: (\d+\.\d+)", "\n".join(PROJECT["project"]["classifiers"])
)
OLDEST_PYTHON = {"5": "3.10", "6": "3.12"}
"""By major version of Django. https://docs.djangoproject.com/en/stable/faq/install/"""


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


NEXT_PYTHONS = ["3.15", "3.14t"]
"""Not supported yet: the next Python, and one without the interpreter's lock."""

PAIRS = [
    nox.param(python, django, id=f"python{python}-django{django}")
    for python in PYTHONS
    for django in DJANGOS
    if _version(python) >= _version(OLDEST_PYTHON[django.partition(".")[0]])
]


@nox.session
@nox.parametrize("python,django", PAIRS)
def tests(session: nox.Session, django: str) -> None:
    """Run every test with one pair, as ``make test`` does."""
    folder = session.virtualenv.location
    session.run(
        "make", "--no-print-directory", "test", f"VENV={folder}", f"PYTHON={folder}/bin/python",
        f"DJANGO={django}", external=True,
    )  # fmt: skip


@nox.session(python=NEXT_PYTHONS, default=False)
def next_python(session: nox.Session) -> None:
    """Run the demo with the newest Django: every part in real processes, with 15 threads.

    Not the tests, whose database drivers have no wheels for these Pythons yet. It runs by name,
    ``nox --session next_python``, and is skipped where the interpreter is not there.
    """
    session.install(".[local]")
    session.run("python", "-m", "example_settings.demo")
