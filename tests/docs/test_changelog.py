"""The changelog keeps the form of https://keepachangelog.com/en/1.1.0/."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Final

import beanstalk_dispatch

ROOT: Final = Path(__file__).resolve().parents[2]
CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text()
RELEASES: Final = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", CHANGELOG, re.MULTILINE)


def test_changes_that_are_not_released_come_first() -> None:
    assert re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)[0] == "[Unreleased]"


def test_the_newest_release_is_this_version() -> None:
    assert RELEASES[0][0] == beanstalk_dispatch.__version__


def test_releases_are_dated_and_the_newest_comes_first() -> None:
    days = [date.fromisoformat(day) for _, day in RELEASES]
    assert days == sorted(days, reverse=True)
    assert len(RELEASES) == CHANGELOG.count("\n## ") - 1  # all but Unreleased


def test_changes_are_grouped_by_the_six_kinds() -> None:
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= kinds
