"""The targets of the Makefile, and who names them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.services import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
PHONY = set(
    re.findall(r"[a-z-]+", re.findall(r"^\.PHONY:((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)[0])
)


def test_make_help_has_a_line_for_each_target() -> None:
    assert set(re.findall(r"^## ([a-z-]+): [a-z0-9]", MAKEFILE, re.MULTILINE)) == PHONY
    assert set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)) == PHONY


WORKFLOWS = ROOT / ".github" / "workflows"


def targets_of_the_workflow() -> set[str]:
    jobs = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())["jobs"]
    return set(jobs["checks"]["strategy"]["matrix"]["target"])


def targets_of_the_release() -> set[str]:
    return set(re.findall(r"run: make ([a-z-]+)", (WORKFLOWS / "release.yml").read_text()))


def targets_of(file: Path) -> set[str]:
    lines = re.findall(r"(?:^make |`make |^ *step )([a-z -]+)", file.read_text(), re.MULTILINE)
    return {target for line in lines for target in line.split()}


@pytest.mark.parametrize(
    "named",
    [
        targets_of_the_workflow(),
        targets_of_the_release(),
        targets_of(ROOT / ".ci" / "run"),
        *map(targets_of, [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]),
    ],
    ids=["workflow", "release", "gate", "README", "CONTRIBUTING"],
)
def test_every_target_that_is_named_exists(named: set[str]) -> None:
    assert named
    assert named <= PHONY
