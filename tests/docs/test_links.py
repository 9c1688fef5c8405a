"""Every link of every page leads somewhere, and those of the README do so on PyPI too.

PyPI shows README.md without the repository around it, so its links are absolute. A link to a page
of this repository is held to the file that it names.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README: Final = ROOT / "README.md"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY: Final[str] = PROJECT["urls"]["Source"]
# Pages that GitHub makes, which are no files of the repository.
GITHUB: Final = frozenset({"issues", "security/advisories/new", "compare/v1.0.0...HEAD"})

_INLINE: Final = re.compile(r"\]\(([^)\s]+)\)")
_DEFINITION: Final = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
_REFERENCE: Final = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]*)\]")
_CODE: Final = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    return _CODE.sub("", page.read_text())


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _INLINE.findall(page.read_text()):
            yield page, target
        for _, target in _DEFINITION.findall(page.read_text()):
            yield page, target
    for target in PROJECT["urls"].values():
        yield ROOT / "pyproject.toml", target


LINKS: Final = [
    pytest.param(page, target, id=f"{page.relative_to(ROOT)}-{target}") for page, target in links()
]


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


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_a_link_leads_to_a_file_and_its_heading(page: Path, target: str) -> None:
    assert urlsplit(target).scheme in {"", "https"}
    found = destination(page, target)
    if found is not None:
        assert found.is_file()
        assert {urlsplit(target).fragment} - {""} <= anchors(found)
    elif target.startswith(REPOSITORY):
        rest = target.removeprefix(f"{REPOSITORY}/")
        assert rest in GITHUB or re.fullmatch(r"releases/tag/v\d+\.\d+\.\d+", rest)


def test_the_readmes_links_work_on_pypi() -> None:
    targets = [target for page, target in links() if page == README]
    assert targets
    assert {urlsplit(target).scheme for target in targets} == {"https"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_reference_has_its_definition(page: Path) -> None:
    text = prose(page)
    defined = {name for name, _ in _DEFINITION.findall(text)}
    body = _DEFINITION.sub("", text)
    used = {name or words for words, name in _REFERENCE.findall(body)}
    used |= set(re.findall(r"\[([^\[\]]+)\](?![\[(:])", body)) & defined
    assert used == defined


def test_the_readme_links_to_every_page() -> None:
    linked = {destination(page, target) for page, target in links() if page == README}
    decisions = ROOT / "docs" / "decisions"
    wanted = {page for page in PAGES if page.parent != decisions} | {decisions / "README.md"}
    assert wanted - {README} <= linked
