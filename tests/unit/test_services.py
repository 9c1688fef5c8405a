from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.services import installed


def test_a_program_of_the_system_is_found() -> None:
    assert os.access(installed("sh"), os.X_OK)


def test_a_missing_program_skips_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="^no-such-program is not installed; apt-get"):
        installed("no-such-program")


def test_in_ci_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-program$"):
        installed("no-such-program")


def test_a_fast_test_cannot_start_python() -> None:
    with pytest.raises(pytest.fail.Exception, match="mark a test that starts a Python process"):
        subprocess.Popen([sys.executable, "-c", ""])
