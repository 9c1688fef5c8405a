"""What the linters cannot see of how the package hangs together.

Who imports whom is in import-linter's contracts and ruff's rules, both in pyproject.toml.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import beanstalk_dispatch

PACKAGE = Path(beanstalk_dispatch.__file__).parent
MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}
PREFIXES = ("BEANSTALK_", "SENTRY_")
_ROOMS_WITH_MODELS = ("outbox", "results", "workbench")
NEEDS_DJANGO = tuple(f"beanstalk_dispatch.contrib.{room}." for room in _ROOMS_WITH_MODELS)
"""What cannot be imported before Django is set up: models."""


def reads(code: str) -> Iterator[str]:
    """Where code reads the environment, or one of our variables from Django's settings."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Attribute(attr=name) if name in ENVIRONMENT or name.startswith(PREFIXES):
                yield ast.unparse(node)
            case ast.ImportFrom(module="os", names=names):
                yield from (each.name for each in names if each.name in ENVIRONMENT)
            case ast.Call(func=ast.Name("getattr"), args=[_, ast.Constant(str(name)), *_]):
                if name.startswith(PREFIXES):
                    yield ast.unparse(node)


def test_nobody_but_one_module_reads_our_settings() -> None:
    found = {name: list(reads(file.read_text())) for name, file in MODULES.items()}
    assert [name for name, reading in found.items() if reading] == [
        "beanstalk_dispatch.conf.environment"
    ]


@pytest.mark.parametrize(
    "code",
    [
        'os.environ["HOME"]',
        'os.environ.get("HOME")',
        'os.getenv("HOME")',
        "system.environ",
        "from os import environ",
        "from os import getenv as get",
        "settings.BEANSTALK_WORKER",
        "conf.settings.SENTRY_DSN",
        'getattr(settings, "BEANSTALK_WORKER", False)',
    ],
)
def test_a_second_reader_would_be_found(code: str) -> None:
    assert len(list(reads(code))) == 1


@pytest.mark.parametrize(
    "code", ["os.path", "from os import path", "settings.CACHES", 'getattr(settings, "BASE_DIR")']
)
def test_other_code_is_no_reader(code: str) -> None:
    assert list(reads(code)) == []


def test_one_module_owns_what_happens_at_a_fork() -> None:
    found = [name for name, file in MODULES.items() if "register_at_fork" in file.read_text()]
    assert found == ["beanstalk_dispatch.process.state"]


def test_there_is_no_grab_bag_and_no_tasks_module() -> None:
    names = {
        name.rpartition(".")[2] for name in MODULES if name != "beanstalk_dispatch.contrib.tasks"
    }
    assert not names & {"utils", "helpers", "common", "base", "tasks"}


NAMED_BY_DJANGO = {"Command", "Meta", "Migration"}
"""Django looks for classes of these names, one in each command, model and migration."""


def test_no_two_classes_share_a_name() -> None:
    modules: dict[str, list[str]] = {}
    for module, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in NAMED_BY_DJANGO:
                modules.setdefault(node.name, []).append(module)
    assert {name: where for name, where in modules.items() if len(where) > 1} == {}


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_importing_everything_reads_no_setting_and_starts_nothing() -> None:
    code = "\n".join(
        [
            "import signal, sys, threading",
            "before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM)",
            "import beanstalk_dispatch.client",
            "assert 'sentry_sdk' not in sys.modules",
            *[f"import {name}" for name in sorted(MODULES) if not name.startswith(NEEDS_DJANGO)],
            "from django.conf import settings",
            "assert not settings.configured",
            "assert threading.active_count() == 1",
            "assert before == (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM))",
            "assert not any(name.startswith('boto') for name in sys.modules)",
        ]
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_a_project_that_only_lists_the_app_imports_little_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = """
import sys
import django
from django.conf import settings
from django.core.checks import run_checks
settings.configure(INSTALLED_APPS=["beanstalk_dispatch"], LOGGING_CONFIG=None)
django.setup()
run_checks()
assert "environ" not in sys.modules
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("beanstalk_dispatch.")}
print(*sorted(rooms))
"""
    monkeypatch.delenv("BEANSTALK_DISPATCH_CRASH_LEDGER")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "apps", "conf", "exceptions", "logging", "problems", "process", "running", "signals",
    ]  # fmt: skip
