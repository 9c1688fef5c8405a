"""Write the tables of variables, findings, stages and scenes, and ``.env.example``, from the code.

    python -m docs.generate

``make tables`` runs it. A test compares the files with what it would write.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SettingsGroup
from beanstalk_dispatch.contrib.sentry.variables import SENTRY
from beanstalk_dispatch.problems.findings import catalogue
from beanstalk_dispatch.running.pipeline import STAGES

ROOT: Final = Path(__file__).resolve().parents[1]

COMMANDS: Final = {
    "doctor": "beanstalk_doctor",
    "aws": "beanstalk_doctor --aws",
    "machine": "beanstalk_doctor --machine",
    "eb": "beanstalk_eb --check",
    "lambda": "beanstalk_lambda --check",
}
"""The origin of findings in the catalogue → the command that shows them."""
TABLES: Final = {
    "docs/configuration.md": ("Variable", conf.CORE),
    "docs/sentry.md": ("Sentry variable", SENTRY),
}
"""Page → the heading of its table's first column, and the settings in the table."""

RESULTS: Final = ROOT / "benchmarks" / "containment" / "results.json"
"""The figures of the last plays of each scene, which ``make faults`` writes."""
COLUMNS: Final = {
    "gunicorn, threads": ("thread endpoint",),
    "gunicorn, children": ("process endpoint", "fresh endpoint"),
    "poller, threads": ("thread poller",),
    "poller, children": ("process poller", "fresh poller"),
}
"""Heading → the isolation and the consumer of the plays below it."""

_JOBS: Final = ("send_welcome", "resize_image", "charge_card", "clean_up")
ON_A_LAPTOP: Final = {
    "BEANSTALK_WORKER": "True",
    "BEANSTALK_DISPATCH_TABLE": " ".join(f"{job}=example_settings.jobs.{job}" for job in _JOBS),
    "BEANSTALK_DISPATCH_QUEUES": "mail=local-mail work=local-work",
    "BEANSTALK_DISPATCH_SQS_KEY": "local",
    "BEANSTALK_DISPATCH_SQS_SECRET": "local",
    "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": "http://127.0.0.1:5000",
    "BEANSTALK_DISPATCH_CREATE_QUEUES": "True",
    "BEANSTALK_DISPATCH_PERIODIC_TASKS": "clean_up",
}
"""What ``.env.example`` sets, for the example project. The other variables are commented out."""

_HEADER: Final = """\
# For the example project on a laptop, with the SQS server of docs/local.md:
#   cp .env.example .env
#   set -a; . ./.env; set +a
# Every variable of beanstalk_dispatch is here; those that a laptop needs are set.
# docs/configuration.md says more. On Elastic Beanstalk set them with `eb setenv`.
# `make tables` writes this file.

# The example project's own: Django's secret key.
SECRET_KEY=for-this-laptop-only
"""
_SENTRY_HEADER: Final = """\
# Sentry: docs/sentry.md. These variables have an effect if BEANSTALK_DISPATCH_SAFE_TASK is
# beanstalk_dispatch.contrib.sentry.SentrySafeTask.
"""


def table(heading: str, group: SettingsGroup) -> str:
    """The Markdown table of a group."""
    rows = [
        f"| `{each.variable}` | {each.form} | {each.default_text} | {each.meaning} |\n"
        for each in group.settings
    ]
    return f"| {heading} | Form | Default | Meaning |\n|---|---|---|---|\n{''.join(rows)}"


def checks_table() -> str:
    """Return the Markdown table of the system checks."""
    return f"| Id | What it means |\n|---|---|\n{_meanings('check')}"


def findings_table() -> str:
    """Return the Markdown table of the findings of the commands, besides the system checks."""
    rows = [f"| **`{command}`** | |\n{_meanings(origin)}" for origin, command in COMMANDS.items()]
    return f"| Finding | Meaning |\n|---|---|\n{''.join(rows)}"


def _meanings(origin: str) -> str:
    found = catalogue()[origin]
    return "".join(f"| {number} | {found[number]['meaning']} |\n" for number in found)


def stages_table() -> str:
    """Return the Markdown table of a run's stages, in their order, from their docstrings."""
    rows = []
    handed_over = [step.name for step in STAGES].index("hand over") + 1
    for number, step in enumerate(STAGES, 1):
        _, _, sentence = str(sys.modules[step.stage.__module__].__doc__).partition(": ")
        sides = ["parent"] if number <= handed_over else []
        where = ", ".join([*sides, *(["child"] if step.in_child else [])])
        rows.append(
            f"| {number} {step.name} | {sentence.split(chr(10))[0].rstrip('.')} | {where} |\n"
        )
    return f"| Stage | What it does | Runs in |\n|---|---|---|\n{''.join(rows)}"


def scenes_table(page: str) -> str:
    """Return the table of the scenes of ``make faults``: the page's rows with the latest figures.

    A cell has the range of the last plays with all drivers and SQS servers, and their number.
    """
    results = json.loads(RESULTS.read_text())
    headings = ["Scene", "What the culprits do", *COLUMNS, "Played", "n/a because"]
    lines = [" | ".join(headings), "|".join(["---"] * len(headings))]
    for names, what in re.findall(r"^\| (`[\w-]+`(?:, `[\w-]+`)*) \| (.*?) \|", page, re.MULTILINE):
        found = [
            results.get(name, {"no meaning": {}}) for name in names.replace("`", "").split(", ")
        ]
        reasons = {name: reason for scene in found for name, reason in scene["no meaning"].items()}
        figures, days = [], []
        for column in COLUMNS.values():
            plays = _plays(found, column)
            figures.append(_range(plays) or _unplayed(reasons, column))
            days += [max(day for day, _ in plays)] if plays else []
        lines.append(
            " | ".join([names, what, *figures, min(days, default=""), " ".join(reasons.values())])
        )
    return "".join(f"| {line} |\n".replace("|  |", "| |") for line in lines)


def _plays(found: Sequence[Mapping[str, Any]], column: Sequence[str]) -> list[tuple[str, int]]:
    """Return the day and the figure of each play of a cell."""
    plays = [
        play.partition("=")
        for scene in found
        for key, plays in scene.items()
        if any(key.startswith(f"{each} ") for each in column)
        for play in plays.split()
    ]
    return [(day, int(figure)) for day, _, figure in plays]


def _range(plays: Sequence[tuple[str, int]]) -> str:
    if not plays:
        return ""
    low, high = min(figures := [figure for _, figure in plays]), max(figures)
    return f"{low if low == high else f'{low} to {high}'} ({len(plays)})"


def _unplayed(reasons: Mapping[str, str], column: Sequence[str]) -> str:
    """Return "n/a" if the scene has a reason not to be played with this isolation or consumer."""
    return "n/a" if reasons.keys() & set(column[0].split()) else "not played"


def with_table(page: str, heading: str, new: str) -> str:
    """The page with its table replaced."""
    old = re.compile(rf"^\| {heading} \|.*\n(?:\|.*\n)+", re.MULTILINE)
    page, count = old.subn(lambda _: new, page)
    if count != 1:
        raise ValueError(f"{count} tables start with the heading {heading!r}; expected one")
    return page


def env_example() -> str:
    """The content of ``.env.example``."""
    blocks = [_HEADER, *_assignments(conf.CORE), _SENTRY_HEADER, *_assignments(SENTRY)]
    return "\n".join(blocks)


def _assignments(group: SettingsGroup) -> Iterator[str]:
    for setting in group.settings:
        is_set = setting.variable in ON_A_LAPTOP
        value = shlex.quote(ON_A_LAPTOP.get(setting.variable, setting.example))
        yield f"# {setting.meaning}\n{'' if is_set else '# '}{setting.variable}={value}\n"


def contents() -> dict[Path, str]:
    """Each file that is written, and what it should contain."""
    files = {
        ROOT / page: with_table((ROOT / page).read_text(), heading, table(heading, group))
        for page, (heading, group) in TABLES.items()
    }
    architecture = ROOT / "docs" / "architecture.md"
    page = with_table(architecture.read_text(), "Finding", findings_table())
    files[architecture] = with_table(page, "Stage", stages_table())
    checks = ROOT / "docs" / "checks.md"
    files[checks] = with_table(checks.read_text(), "Id", checks_table())
    rehearsal = ROOT / "docs" / "rehearsal.md"
    page = rehearsal.read_text()
    files[rehearsal] = with_table(page, "Scene", scenes_table(page))
    return files | {ROOT / ".env.example": env_example()}


def main() -> None:
    """Write each file that has changed, and name it."""
    for path, content in contents().items():
        if path.read_text() != content:
            path.write_text(content)
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
