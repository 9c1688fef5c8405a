"""The rehearsal: each surprise of a worker machine is caught or handled, and is on its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.rehearsal.environment_file import delivered
from benchmarks.rehearsal.surprises import Rehearsal
from tests.services import ROOT


def test_every_surprise_is_caught(moto: str, tmp_path: Path) -> None:
    rows = Rehearsal(moto, tmp_path).run()
    assert [str(row) for row in rows if row.problem] == []
    page = (ROOT / "docs" / "rehearsal.md").read_text()
    table = page.partition("| What surprises |")[2].partition("\n\n")[0].splitlines()[2:]
    on_page = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table]
    assert [(row.surprise, row.caught_by) for row in rows] == on_page


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("A=one two ", {"A": "one two", "B": "2"}),
        ('A=it\'s {"a": $B, 50%}', {"A": 'it\'s {"a": $B, 50%}', "B": "2"}),
        ("A='one' \"two\"", {"A": "onetwo", "B": "2"}),
        (r"A=one\ two\\", {"A": "one two\\", "B": "2"}),
        (r"A=\"a\"\\b", {"A": '"a"\\b', "B": "2"}),
        ('A="a\\"b\\c"', {"A": 'a"b\\c', "B": "2"}),
        ("A=one\\", {"A": "oneB=2"}),
        ("A='one", {"A": "one\nB=2\n"}),
        ("A=", {"A": "", "B": "2"}),
        ("# A=one", {"B": "2"}),
        ("one", {"B": "2"}),
    ],
)
def test_what_systemd_delivers_of_a_property(line: str, variables: dict[str, str]) -> None:
    assert delivered(f"{line}\nB=2\n") == variables
