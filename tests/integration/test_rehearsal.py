"""The rehearsal: each surprise of a worker machine is caught or handled, and is on its page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rehearsal.surprises import Rehearsal
from tests.services import ROOT


def test_every_surprise_is_caught(moto: str, tmp_path: Path) -> None:
    rows = Rehearsal(moto, tmp_path).run()
    assert [str(row) for row in rows if row.problem] == []
    page = (ROOT / "docs" / "rehearsal.md").read_text()
    table = page.partition("| What surprises |")[2].splitlines()[2:]
    on_page = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table]
    assert [(row.surprise, row.caught_by) for row in rows] == on_page
