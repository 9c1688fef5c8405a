"""Rehearse a release from a clean clone, and publish nothing.

    python .ci/release.py [--tag v1.2.3]
    python .ci/release.py --notes

It clones what is committed, and compares tag, version and changelog. Then it builds the
distributions into dist/release, compares their contents with the clone, lets ``twine check
--strict`` read them, and installs the wheel into three new projects, each of which schedules and
runs tasks on an SQS server of its own (projects.py). ``--notes`` prints the changelog's section of
this version. It needs a network, the tools build and twine, and the Pythons of the projects. The
exit code is 1 if something does not agree.
"""

from __future__ import annotations

import argparse
import email
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import projects

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "dist" / "release"
NAME: Final = "django_beanstalk_dispatch"
PACKAGE: Final = "beanstalk_dispatch"
REPOSITORY: Final = "https://github.com/django-beanstalk-dispatch/django-beanstalk-dispatch"

_SECTION = re.compile(
    r"^## \[(?P<name>[^\]]+)\](?: - (?P<day>\S+))?\n"
    r"(?P<text>.*?)(?=^## \[|^\[[^\]]+\]: |\Z)",
    re.MULTILINE | re.DOTALL,
)
_PAGE = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
"""A link to a page of the repository."""


def version_of(root: Path) -> str:
    """Return the version that the package has in a checkout."""
    text = (root / PACKAGE / "__init__.py").read_text()
    (version,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return str(version)


def sections_of(root: Path) -> dict[str, tuple[str, str]]:
    """Return day and text of each section of the changelog, the newest first."""
    text = (root / "CHANGELOG.md").read_text()
    return {
        match["name"]: (match["day"] or "", match["text"].strip())
        for match in _SECTION.finditer(text)
    }


def notes_of(root: Path) -> str:
    """Return the changelog of this version, with links that work outside the repository."""
    version = version_of(root)
    pages = f"{REPOSITORY}/blob/v{version}/"
    return _PAGE.sub(rf"]({pages}\1)", sections_of(root)[version][1])


def disagreements(root: Path, tag: str = "") -> Iterator[str]:
    """Yield each way in which tag, version and changelog differ.

    Without a tag, entries may still be under Unreleased.
    """
    version, sections = version_of(root), sections_of(root)
    released = [name for name, (day, _) in sections.items() if day]
    if tag and tag != f"v{version}":
        yield f"the tag is {tag}, the version {version}; tag v{version}, or change __version__"
    if released[:1] != [version]:
        newest = "".join(released[:1]) or "nothing"
        yield (
            f"the version is {version}, the newest dated section of CHANGELOG.md {newest}; "
            f"write ## [{version}] - YYYY-MM-DD"
        )
    entries = len(re.findall(r"^- ", sections.get("Unreleased", ("", ""))[1], re.MULTILINE))
    if tag and entries:
        yield f"CHANGELOG.md has {entries} entries under Unreleased; move them below [{version}]"
    if f"\n[{version}]: " not in (root / "CHANGELOG.md").read_text():
        yield f"CHANGELOG.md has no link for [{version}]; add it to those at its end"


def contents_of(file: Path) -> dict[str, bytes]:
    """Return the files of a wheel or sdist, those of the sdist without its folder."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(file) as sdist:
        return {
            member.name.partition("/")[2]: extracted.read()
            for member in sdist.getmembers()
            if (extracted := sdist.extractfile(member))
        }


def distributions(folder: Path, version: str) -> tuple[Path, Path]:
    """Return the wheel and the sdist. Raise SystemExit if the folder does not hold these two."""
    expected = (folder / f"{NAME}-{version}-py3-none-any.whl", folder / f"{NAME}-{version}.tar.gz")
    if set(folder.iterdir()) != set(expected):
        found = ", ".join(sorted(each.name for each in folder.iterdir()))
        raise SystemExit(f"built {found} in place of the wheel and the sdist of {version}")
    return expected


def differences(folder: Path, version: str, tracked: set[str]) -> Iterator[str]:
    """Yield each way in which the distributions differ from the files of the clone."""
    ours = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
    for file in distributions(folder, version):
        contents = contents_of(file)
        is_wheel = file.suffix == ".whl"
        information = f"{NAME}-{version}.dist-info/METADATA" if is_wheel else "PKG-INFO"
        written = email.message_from_bytes(contents[information])["Version"]
        if written != version:
            yield f"{file.name} says that its version is {written}"
        if missing := ours - contents.keys():
            yield f"{file.name} lacks {', '.join(sorted(missing))}"
        known = tracked | {"PKG-INFO"}
        strange = {
            name
            for name in contents
            if name not in known and not (is_wheel and ".dist-info/" in name)
        }
        if is_wheel:
            strange |= {name for name in contents.keys() & tracked if name not in ours}
        if strange:
            yield f"{file.name} has {', '.join(sorted(strange))}, which it should not have"


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def build(clone: Path) -> None:
    """Build both distributions of a clone into an empty folder."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    run(sys.executable, "-m", "build", "--outdir", FOLDER, cwd=clone)


def stop_at(problems: Iterator[str], title: str) -> None:
    found = list(problems)
    for problem in found:
        print(f"NOT OK: {problem}", file=sys.stderr)
    if found:
        raise SystemExit(1)
    print(f"ok: {title}", flush=True)


def rehearse(clone: Path, tag: str) -> None:
    """Check, build, and run what is in a clone."""
    version = version_of(clone)
    stop_at(disagreements(clone, tag), f"{tag or 'no tag'}, {version} and CHANGELOG.md agree")
    build(clone)
    listed = subprocess.run(
        ["git", "ls-files"], cwd=clone, stdout=subprocess.PIPE, text=True, check=True
    )
    tracked = set(listed.stdout.split("\n"))
    stop_at(differences(FOLDER, version, tracked), "the distributions are the committed files")
    wheel, sdist = distributions(FOLDER, version)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    projects.try_all(wheel, contents_of(sdist))


def main() -> None:
    parser = argparse.ArgumentParser(description="Rehearse a release from a clean clone.")
    parser.add_argument("--tag", default="", help="the tag that is to be released, such as v1.2.3")
    parser.add_argument("--notes", action="store_true", help="print the changelog of this version")
    options = parser.parse_args()
    if options.notes:
        print(notes_of(ROOT))
        return
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "clone"
        run("git", "clone", "--quiet", "--no-local", ROOT, clone)
        rehearse(clone, options.tag)


if __name__ == "__main__":
    main()
