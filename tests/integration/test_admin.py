"""Runs the tests of the admin's pages, in a project that has Django's admin."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.browser import find_browser
from tests.services import ROOT, installed


def run_tests(*arguments: str) -> None:
    options = ["-q", "-p", "no:cacheprovider", "--ds=tests.admin.settings"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    run = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.timeout(600)  # fifty tests in one process, each with a limit of its own
def test_the_pages_of_the_admin() -> None:
    run_tests("tests/admin", "--ignore=tests/admin/test_browser.py")


@pytest.mark.slow
def test_the_pages_of_the_admin_in_a_browser() -> None:
    assert find_browser() or installed("chromium")
    run_tests("tests/admin/test_browser.py")  # pragma: no cover - not on every machine
