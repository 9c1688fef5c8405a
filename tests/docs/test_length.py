"""The pages in front of a user are short enough to be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"

FOR_CONTRIBUTORS: Final = frozenset(
    {"architecture.md", "beliefs.md", "benchmarks.md", "decisions", "rehearsal.md"}
)
"""Pages, and one folder, that a user of the package never needs. All others count."""

MOST_WORDS: Final = 26_000
"""Words of prose, tables, links and code. The bars of a table and other signs are none."""


def words_in(text: str) -> int:
    """Return the number of parts between white space that have a letter or a digit."""
    return sum(1 for part in text.split() if re.search(r"\w", part))


def words_of(docs: Path) -> dict[str, int]:
    """Return the number of words of each page for users, by its path below ``docs``."""
    pages = sorted([*docs.rglob("*.md"), *docs.rglob("*.rst")])
    paths = {page: page.relative_to(docs) for page in pages}
    return {
        str(path): words_in(page.read_text())
        for page, path in paths.items()
        if path.parts[0] not in FOR_CONTRIBUTORS
    }


def test_the_pages_of_a_user_are_short() -> None:
    found = words_of(DOCS)
    longest = sorted(found.items(), key=lambda item: -item[1])[:5]
    assert sum(found.values()) <= MOST_WORDS, f"shorten a page; the longest are {longest}"


def test_the_pages_for_contributors_exist() -> None:
    assert {name for name in FOR_CONTRIBUTORS if not (DOCS / name).exists()} == set()


def test_all_other_pages_count(tmp_path: Path) -> None:
    for name in ("decisions/README.md", "architecture.md", "api.rst", "new.md", "more/deep.md"):
        page = tmp_path / name
        page.parent.mkdir(exist_ok=True)
        page.write_text("| `two` | words |\n|---|---|\n")
    assert words_of(tmp_path) == {"api.rst": 2, "more/deep.md": 2, "new.md": 2}
