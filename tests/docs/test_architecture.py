"""The pages for people who change the code, held to it: modules, layers, names, pictures."""

from __future__ import annotations

import functools
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.docs.test_language import faults

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "beanstalk_dispatch"
ARCHITECTURE: Final = (ROOT / "docs" / "architecture.md").read_text()
WORDS: Final = ARCHITECTURE.partition("\n## The words\n")[2].partition("\n## ")[0]
PICTURES: Final = sorted((ROOT / "docs" / "images").glob("*.svg"))
DECISIONS: Final = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))

_CODE: Final = re.compile(r"`([^`\n]+)`")


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of each row of the tables of architecture.md whose first column is ``heading``."""
    in_table = False
    for line in ARCHITECTURE.splitlines():
        in_table = line.startswith(f"| {heading} |") or (in_table and line.startswith("|"))
        if in_table and not line.startswith((f"| {heading} |", "|---")):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@functools.cache
def modules() -> set[str]:
    paths = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    return {path for path in paths if not path.endswith("__init__.py")}


def resolve(dotted: str) -> object:
    """What a name below the package stands for: a module, or what is in one."""
    parts = dotted.split(".")
    lengths = range(1, len(parts) + 1)
    length = max(n for n in lengths if f"{'/'.join(parts[:n])}.py" in modules())
    found: object = importlib.import_module(".".join(["beanstalk_dispatch", *parts[:length]]))
    for name in parts[length:]:
        found = attribute(found, name)
    return found


def attribute(owner: object, name: str) -> object:
    fields = getattr(owner, "__dataclass_fields__", {})
    return fields[name] if name in fields else getattr(owner, name)


# --- docs/architecture.md --------------------------------------------------------------------


def test_each_module_has_one_row() -> None:
    listed = [row[0].strip("`") for row in rows("Module")]
    assert modules() - set(listed) == set(), "write a row for each in docs/architecture.md"
    assert sorted(listed) == sorted(modules())


def test_what_a_module_is_for_is_one_sentence_or_two() -> None:
    assert all(row[1].endswith(".") and row[1].count(". ") < 2 for row in rows("Module"))


def test_the_layers_are_those_of_the_linter() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = [each for each in settings["contracts"] if each["type"] == "layers"]
    layers = [re.sub(r"\(\w+\)", "", layer) for layer in contract["layers"]]  # may be missing
    linted = [set(re.findall(r"\w+", layer)) for layer in layers]
    assert [set(_CODE.findall(row[1])) for row in rows("Layer")] == linted


def test_what_is_looked_for_is_where_the_table_says() -> None:
    for row in rows("What"):
        module, name, *others = _CODE.findall(row[1])
        for path, inside in zip([module, *others[::2]], [name, *others[1::2]], strict=True):
            assert resolve(f"{path.removesuffix('.py').replace('/', '.')}.{inside}") is not None


# --- its words -------------------------------------------------------------------------------


def entries() -> Iterator[str]:
    for paragraph in WORDS.split("\n\n"):
        if paragraph.startswith("**"):
            yield " ".join(paragraph.split())


def test_a_word_names_what_it_is_in_the_code() -> None:
    for entry in entries():
        explanation, _, names = entry.partition("In the code: ")
        assert explanation.rstrip().endswith(".")
        found = _CODE.findall(names)
        assert found, entry
        for name in found:
            assert resolve(name) is not None


# --- docs/images/ ----------------------------------------------------------------------------


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_says_in_words_what_it_shows(picture: Path) -> None:
    root = ET.fromstring(picture.read_text())
    ids = {each.get("id"): (each.text or "").strip() for each in root.iter()}
    assert all(ids[name] for name in str(root.get("aria-labelledby")).split())
    pages = picture.parents[1].glob("*.md")
    assert any(f"images/{picture.name})" in page.read_text() for page in pages)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_written_in_plain_words(picture: Path) -> None:
    for element in ET.fromstring(picture.read_text()).iter():
        assert list(faults("".join(element.itertext()))) == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_has_a_dark_colour_for_each_light_one(picture: Path) -> None:
    light, _, dark = picture.read_text().partition("@media (prefers-color-scheme: dark)")
    coloured = r"^ *([.\w-]+) \{[^}]*(fill|stroke): #"
    assert set(re.findall(coloured, light, re.MULTILINE)) == set(
        re.findall(coloured, dark, re.MULTILINE)
    )


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_names_modules_that_exist(picture: Path) -> None:
    words = "".join(ET.fromstring(picture.read_text()).itertext())
    files = set(re.findall(r"[\w/]+\.py\b", words))
    names = {path.rpartition("/")[2] for path in modules()}
    assert {file for file in files if file not in modules() | names} == set()
    rooms = set(re.findall(r"\b([a-z_]+)/(?=\s|$|[^\w/])", words))
    assert all((PACKAGE / room).is_dir() for room in rooms)


# --- docs/decisions/ -------------------------------------------------------------------------

HEADINGS: Final = [
    "The question", "What we do", "Why", "What it costs", "When to think again",
]  # fmt: skip


def test_a_decision_has_the_five_headings() -> None:
    for page in DECISIONS:
        assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == HEADINGS, page


def test_a_figure_names_a_benchmark_that_exists() -> None:
    text = "".join(page.read_text() for page in DECISIONS)
    named = set(re.findall(r"`python -m ([\w.]+)`", text))
    assert named
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in named)


def test_decisions_are_numbered_and_listed_in_order() -> None:
    titles = [re.match(r"# (\d+)\. ", page.read_text()) for page in DECISIONS]
    numbers = [int(title[1]) for title in titles if title]
    assert numbers == [int(page.name[:2]) for page in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    listed = re.findall(r"^\| \[(\d+)\. [^\]]+\]\(([\w-]+\.md)\)", index, re.MULTILINE)
    assert listed == [(str(n), page.name) for n, page in zip(numbers, DECISIONS, strict=True)]
