"""The forms for issues, and the facts for language models."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name
from typing import Final

import pytest
import yaml

from beanstalk_dispatch.safe_task import SafeTask

ROOT: Final = Path(__file__).resolve().parents[2]
GITHUB: Final = ROOT / ".github"
SITE: Final = "https://github.com/django-beanstalk-dispatch/django-beanstalk-dispatch/blob/main/"
FORMS: Final = [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
FACTS: Final = (ROOT / "llms.txt").read_text()
VARIABLES: Final = (ROOT / ".env.example").read_text()


def test_the_facts_link_existing_pages_once() -> None:
    pages = re.findall(r"\]\(([^)]+)\)", FACTS)
    assert len(set(pages)) == len(pages) > 15
    assert [page for page in pages if not (ROOT / page).is_file()] == []


def test_the_facts_have_the_form_of_llms_txt() -> None:
    title, _, summary = FACTS.splitlines()[:3]
    assert title == "# django-beanstalk-dispatch"
    assert summary.startswith("> ")
    assert re.findall(r"^## (.+)$", FACTS, re.MULTILINE) == ["Start", "Reference", "Optional"]


def test_the_facts_name_what_exists() -> None:
    for variable in re.findall(r"`(BEANSTALK_[A-Z_]+)", FACTS):
        assert variable in VARIABLES
    for path in re.findall(r"`(beanstalk_dispatch(?:\.\w+)+)`", FACTS):
        assert callable(resolve_name(path))
    assert hasattr(SafeTask, "max_retries")
    assert hasattr(SafeTask, "retry_on")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_one_of_github(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= content.keys()
    ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids) > 0
    assert {field["type"] for field in content["body"]} <= {
        "markdown", "textarea", "input", "dropdown",
    }  # fmt: skip
    assert all(field["attributes"].get("label") for field in content["body"] if "id" in field)


def test_the_templates_link_existing_pages() -> None:
    files = [GITHUB / "PULL_REQUEST_TEMPLATE.md", *(GITHUB / "ISSUE_TEMPLATE").iterdir()]
    links = [link for file in files for link in re.findall(rf"{SITE}([\w./-]+)", file.read_text())]
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).is_file()] == []
