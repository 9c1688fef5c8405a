"""How the package hangs together: who imports whom, and what an import does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import beanstalk_dispatch

PACKAGE = Path(beanstalk_dispatch.__file__).parent
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in PACKAGE.rglob("*.py")
    if file.stem != "__init__"
}


def imports(file: Path) -> set[str]:
    """Absolute names of what a file imports anywhere, but for type checking."""
    tree = ast.parse(file.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "beanstalk_dispatch." * bool(node.level) + (node.module or "")
            names |= {f"{base.rstrip('.')}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("library", "modules"),
    [
        ("boto3", {"sqs.clients"}),
        ("botocore", {"sqs.clients", "sqs.errors"}),
        ("environ", {"conf"}),
        ("sentry_sdk", set()),
        ("yaml", {"cron"}),
        ("cronsim", {"cron", "worker.cron_scheduler"}),
    ],
)
def test_a_library_has_one_place(library: str, modules: set[str]) -> None:
    found = {
        name
        for name, file in MODULES.items()
        if any(full.partition(".")[0] == library for full in imports(file))
    }
    assert {name for name in found if not name.startswith("contrib")} == modules


def test_nobody_else_reads_our_settings() -> None:
    for name in MODULES.keys() - {"conf"}:
        text = MODULES[name].read_text()
        assert "settings.BEANSTALK" not in text, name
        assert "environ[" not in text, name


def test_there_is_no_grab_bag_and_no_tasks_module() -> None:
    names = {name.rpartition(".")[2] for name in MODULES}
    assert not names & {"utils", "helpers", "common", "base", "tasks"}


@pytest.mark.slow
def test_importing_everything_reads_no_setting_and_starts_nothing() -> None:
    code = "\n".join(
        [
            "import signal, sys, threading",
            "before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM)",
            *[f"import beanstalk_dispatch.{name}" for name in sorted(MODULES)
              if name not in {"apps", "contrib"}],
            "from django.conf import settings",
            "assert not settings.configured",
            "assert threading.active_count() == 1",
            "assert before == (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM))",
            "assert 'boto3' not in sys.modules",
        ]
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
