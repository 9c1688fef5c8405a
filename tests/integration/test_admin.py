"""Runs the tests of the admin's pages, in a project that has Django's admin."""

from __future__ import annotations

import subprocess
import sys

from tests.services import ROOT


def test_the_pages_of_the_admin() -> None:
    options = ["-q", "-p", "no:cacheprovider", "--ds=tests.admin.settings"]
    command = [sys.executable, "-m", "pytest", *options, "tests/admin"]
    run = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout
