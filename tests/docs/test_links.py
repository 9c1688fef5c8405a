"""Every link of every page leads somewhere, and those of the README do so on PyPI too.

PyPI shows README.md without the repository around it, so its links are absolute. A link to a page
of this repository is held to the file that it names.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README: Final = ROOT / "README.md"
INDEX: Final = ROOT / "docs" / "index.md"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY: Final[str] = PROJECT["urls"]["Source"]
# Pages that GitHub makes, which are no files of the repository.
GITHUB: Final = frozenset({"issues", "security/advisories/new", "compare/v1.1.0...HEAD"})

_INLINE: Final = re.compile(r"\]\(([^)\s]+)\)")
_DEFINITION: Final = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
_REFERENCE: Final = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]*)\]")
_CODE: Final = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return _CODE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    text = page.read_text()
    return [*_INLINE.findall(text), *(target for _, target in _DEFINITION.findall(text))]


@functools.cache
def anchors(page: Path) -> set[str]:
    """The ids that GitHub gives to headings; a picture has none."""
    if page.suffix == ".png":
        return set()
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def destination(page: Path, target: str) -> Path | None:
    """The file of this repository that a link names; None for a page elsewhere."""
    path = urlsplit(target).path
    if not urlsplit(target).scheme:
        return (page.parent / unquote(path)).resolve() if path else page
    if target.partition("#")[0] == REPOSITORY:
        return README
    name = urlsplit(REPOSITORY).path
    for prefix in (f"{name}/blob/main/", f"{name}/main/"):  # the second is that of a picture
        if path.startswith(prefix):
            return ROOT / path.removeprefix(prefix)
    return None


def what_is_wrong(page: Path, target: str) -> str:
    """Why a link of a page leads nowhere; empty if it leads somewhere."""
    if urlsplit(target).scheme not in {"", "https"}:
        return "its scheme is not https"
    found = destination(page, target)
    if found is None:
        rest = target.removeprefix(f"{REPOSITORY}/")
        is_known = rest in GITHUB or re.fullmatch(r"releases/tag/v\d+\.\d+\.\d+", rest)
        is_ours = target.startswith(REPOSITORY)
        return "GitHub makes no such page" if is_ours and not is_known else ""
    if not found.is_file():
        return "there is no such file"
    is_heading = {urlsplit(target).fragment} - {""} <= anchors(found)
    return "" if is_heading else "there is no such heading"


def test_a_link_leads_to_a_file_and_its_heading() -> None:
    found = {
        (page, target): what_is_wrong(page, target) for page in PAGES for target in links(page)
    }
    assert {target: wrong for target, wrong in found.items() if wrong} == {}


def test_the_links_of_the_package_on_pypi_lead_somewhere() -> None:
    urls = PROJECT["urls"].values()
    assert [what_is_wrong(ROOT / "pyproject.toml", url) for url in urls] == [""] * len(urls)


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("http://example.com", "its scheme is not https"),
        ("docs/nowhere.md", "there is no such file"),
        ("CHANGELOG.md#nowhere", "there is no such heading"),
        (f"{REPOSITORY}/blob/main/nowhere.md", "there is no such file"),
        (f"{REPOSITORY}/nowhere", "GitHub makes no such page"),
    ],
)
def test_a_link_that_leads_nowhere_is_found(target: str, wrong: str) -> None:
    assert what_is_wrong(README, target) == wrong


def test_each_reference_has_its_definition() -> None:
    for page in PAGES:
        text = prose(page)
        defined = {name for name, _ in _DEFINITION.findall(text)}
        body = _DEFINITION.sub("", text)
        used = {name or words for words, name in _REFERENCE.findall(body)}
        used |= set(re.findall(r"\[([^\[\]]+)\](?![\[(:])", body)) & defined
        assert used == defined, page


def test_the_readme_is_short_and_leads_to_the_documentation() -> None:
    assert len(README.read_text().splitlines()) <= 120
    assert INDEX in {destination(README, target) for target in links(README)}


def test_the_menu_of_the_site_has_every_page_once() -> None:
    decisions = INDEX.parent / "decisions" / "README.md"
    listed = [*menu(INDEX), *menu(decisions)]
    assert sorted(listed) == sorted({*PAGES, INDEX.parent / "api.rst"} - {INDEX})


def menu(page: Path) -> list[Path]:
    """Return the pages that the page's toctrees name, from which the site makes its menu."""
    lists = re.findall(
        r"^:::\{toctree\}\n(?::.*\n)*\n((?:.+\n)+):::$", page.read_text(), re.MULTILINE
    )
    return [
        found.resolve()
        for name in "".join(lists).split()
        for ending in (".md", ".rst")
        for found in page.parent.glob(name + ending)
    ]


def test_each_claim_about_another_library_has_its_source() -> None:
    page = (INDEX.parent / "benchmarks.md").read_text()
    _, _, section = page.partition("\n## Beside other libraries\n")
    rows = re.findall(r"^\| .+ \|$", section.partition("\n## ")[0], re.MULTILINE)
    wide = [row for row in rows if row.count(" | ") == 4]
    assert wide
    for row in wide:
        for cell in row.strip("| ").split(" | ")[2:]:
            assert cell == "Not verified" or "](https://" in cell or row.startswith("| | "), cell
