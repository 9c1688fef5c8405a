"""The admin's pages of results show them and change nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_results_are_listed_and_shown_and_not_changed() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.admin_project"], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["200 True", "200 True", "200 True", "403 False", "403"]
