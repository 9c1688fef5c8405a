"""The types of a call: a type checker finds each planted mistake, and refuses nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISTAKES = ROOT / "tests" / "typed_mistakes.py"


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.timeout(600)
def test_mypy_finds_every_planted_mistake_and_no_other() -> None:
    pytest.importorskip("mypy")
    lines = MISTAKES.read_text().splitlines()
    planted = [number for number, line in enumerate(lines, 1) if line.endswith("# wrong")]
    command = [sys.executable, "-m", "mypy", str(MISTAKES.relative_to(ROOT))]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^tests/typed_mistakes\.py:(\d+): error: ", output, flags=re.MULTILINE)
    assert sorted(set(map(int, found))) == planted, output
    assert len(planted) >= 25
