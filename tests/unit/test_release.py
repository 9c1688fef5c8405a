"""The rehearsal of a release, without its builds: what must agree, and what the workflow may do."""

from __future__ import annotations

import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import beanstalk_dispatch
from tests.services import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
METADATA = b"Metadata-Version: 2.4\nName: django-beanstalk-dispatch\nVersion: 1.2.0\n"
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-12-02

[The guide](docs/guide.md) has more.

- A new door.

## [1.1.0] - 2026-11-30

[1.2.0]: https://example.com/v1.2.0
"""


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module .ci/release.py, which is no part of a package."""
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    for name in ("release", "projects"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import release  # type: ignore[import-not-found, unused-ignore]

    return release


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of version 1.2.0 that can be released."""
    (tmp_path / "beanstalk_dispatch").mkdir()
    (tmp_path / "beanstalk_dispatch" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def change(checkout: Path, old: str, new: str) -> None:
    text = (checkout / "CHANGELOG.md").read_text()
    assert old in text
    (checkout / "CHANGELOG.md").write_text(text.replace(old, new))


def test_tag_version_and_changelog_agree(release: Any, checkout: Path) -> None:
    assert list(release.disagreements(checkout, "v1.2.0")) == []
    assert release.sections_of(checkout)["1.2.0"] == (
        "2026-12-02",
        "[The guide](docs/guide.md) has more.\n\n- A new door.",
    )


def test_the_notes_of_a_release_link_pages_of_its_tag(release: Any, checkout: Path) -> None:
    assert release.notes_of(checkout).splitlines()[0] == (
        f"[The guide]({release.REPOSITORY}/blob/v1.2.0/docs/guide.md) has more."
    )


def test_an_upgrade_starts_at_the_release_before(release: Any) -> None:
    upgrade = (ROOT / ".ci" / "upgrade.py").read_text()
    dated = [name for name, (day, _) in release.sections_of(ROOT).items() if day]
    assert re.findall(r'^BEFORE: Final = "(.+)"$', upgrade, re.MULTILINE) == [dated[1]]


def test_another_tag_is_reported(release: Any, checkout: Path) -> None:
    [problem] = release.disagreements(checkout, "v1.3.0")
    assert problem.startswith("the tag is v1.3.0, the version 1.2.0; tag v1.2.0, or")


def test_a_version_without_a_dated_section_is_reported(release: Any, checkout: Path) -> None:
    change(checkout, "## [1.2.0] - 2026-12-02", "## [1.2.0]")
    [problem] = release.disagreements(checkout)
    assert problem == (
        "the version is 1.2.0, the newest dated section of CHANGELOG.md 1.1.0; "
        "write ## [1.2.0] - YYYY-MM-DD"
    )


def test_a_version_without_a_link_is_reported(release: Any, checkout: Path) -> None:
    change(checkout, "[1.2.0]: https", "[1.0.0]: https")
    assert list(release.disagreements(checkout)) == [
        "CHANGELOG.md has no link for [1.2.0]; add it to those at its end"
    ]


def test_what_is_not_released_stops_a_tag_and_no_dry_run(release: Any, checkout: Path) -> None:
    change(checkout, "## [Unreleased]\n", "## [Unreleased]\n\n- Something.\n")
    assert list(release.disagreements(checkout)) == []
    assert list(release.disagreements(checkout, "v1.2.0")) == [
        "CHANGELOG.md has 1 entries under Unreleased; move them below [1.2.0]"
    ]


def test_this_checkout_agrees(release: Any) -> None:
    assert list(release.disagreements(ROOT)) == []
    assert release.version_of(ROOT) == beanstalk_dispatch.__version__
    assert release.sections_of(ROOT)[beanstalk_dispatch.__version__][1]


def distribute(folder: Path, *, wheel: dict[str, bytes], sdist: dict[str, bytes]) -> None:
    """Write the two distributions of version 1.2.0 with these files."""
    name = "django_beanstalk_dispatch-1.2.0"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for path, content in wheel.items():
            archive.writestr(path, content)
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
        for path, content in sdist.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


INFORMATION = "django_beanstalk_dispatch-1.2.0.dist-info/METADATA"
WHEEL = {"beanstalk_dispatch/a.py": b"", INFORMATION: METADATA}
SDIST = {"beanstalk_dispatch/a.py": b"", "docs/a.md": b"", "PKG-INFO": METADATA}
TRACKED = {"beanstalk_dispatch/a.py", "docs/a.md"}


def test_the_distributions_are_the_committed_files(release: Any, tmp_path: Path) -> None:
    distribute(tmp_path, wheel=WHEEL, sdist=SDIST)
    assert list(release.differences(tmp_path, "1.2.0", TRACKED)) == []


@pytest.mark.parametrize(
    ("wheel", "sdist", "tracked", "problem"),
    [
        (WHEEL, SDIST, TRACKED | {"beanstalk_dispatch/b.html"}, "lacks beanstalk_dispatch/b.html"),
        (WHEEL | {"docs/a.md": b""}, SDIST, TRACKED, "whl has docs/a.md, which"),
        (WHEEL, SDIST | {".env": b""}, TRACKED, "tar.gz has .env, which"),
        (WHEEL | {"notes.txt": b""}, SDIST, TRACKED, "whl has notes.txt, which"),
        (
            WHEEL | {INFORMATION: METADATA.replace(b"1.2.0", b"1.1.0")},
            SDIST,
            TRACKED,
            "whl says that its version is 1.1.0",
        ),
    ],
    ids=["missing", "too much", "secret", "unknown", "version"],
)
def test_a_difference_is_reported(
    release: Any, tmp_path: Path, wheel: dict[str, bytes], sdist: dict[str, bytes],
    tracked: set[str], problem: str,
) -> None:  # fmt: skip
    distribute(tmp_path, wheel=wheel, sdist=sdist)
    assert problem in "\n".join(release.differences(tmp_path, "1.2.0", tracked))


def test_files_of_another_release_are_refused(release: Any, tmp_path: Path) -> None:
    distribute(tmp_path, wheel=WHEEL, sdist=SDIST)
    with pytest.raises(SystemExit, match=r"in place of the wheel and the sdist of 1\.3\.0"):
        release.distributions(tmp_path, "1.3.0")


# --- the workflows ---------------------------------------------------------------------------


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_action_is_pinned_by_its_commit(file: Path) -> None:
    actions = re.findall(r"uses: (.+)", file.read_text())
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_an_action_has_one_version_in_all_workflows() -> None:
    used = {
        tuple(action.split("@"))
        for file in WORKFLOWS
        for action in re.findall(r"uses: (\S+)", file.read_text())
    }
    assert len({name for name, _ in used}) == len(used)


def test_each_job_of_the_release_has_the_rights_that_it_needs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "rehearse": {"contents": "read"},
        "pypi": {"id-token": "write"},
        "github": {"contents": "write"},
    }


def test_only_a_tag_publishes() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["pypi"]["if"] == "github.event_name == 'push' && github.ref_type == 'tag'"
    assert jobs["pypi"]["needs"] == "rehearse"
    assert jobs["github"]["needs"] == "pypi"
    assert jobs["pypi"]["environment"]["name"] == "pypi"


def test_no_value_of_an_event_is_part_of_a_script() -> None:
    for file in WORKFLOWS:
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            scripts = [step["run"] for step in job["steps"] if "run" in step]
            assert not [each for each in scripts if "${{ github" in each]
