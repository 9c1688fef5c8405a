from __future__ import annotations

import json

import pytest

from beanstalk_dispatch.dead_letters import lines
from beanstalk_dispatch.dead_letters.lines import (
    dead_letter_as_json,
    dead_letter_lines,
    report_as_json,
    report_lines,
    sample_as_json,
    sample_lines,
    sample_size,
)
from beanstalk_dispatch.dead_letters.queue import Sample
from beanstalk_dispatch.dead_letters.sweep import SweepReport
from tests.conftest import Environment
from tests.dead_letters import KEY, Dead


def test_a_sample_shows_its_groups_and_its_newest_letters(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_SHOWN", 2)
    dead.sent_many(2)
    dead.queue.send("{", {})
    dead_letters = dead.open()
    shown = list(sample_lines(dead_letters, dead_letters.sample()))
    assert shown[0] == f"{dead.name}: sample of 3 of about 3"
    assert [line.split()[:5] for line in shown[3:5]] == [
        ["2", "of", "3", "fail", "ValueError"], ["1", "of", "3", "unknown", "moved"],
    ]  # fmt: skip
    assert shown[-1] == "… and 1 more"


def test_an_empty_sample_is_one_line(dead: Dead) -> None:
    dead_letters = dead.open()
    (line,) = sample_lines(dead_letters, dead_letters.sample())
    assert line.endswith("sample of 0 of about 0")


def test_the_size_of_a_sample_is_honest() -> None:
    sample = Sample(dead_letters=[], looked_at=1000, about=None, still_hidden=2)
    assert sample_size(sample) == (
        "0 match in a sample of 1,000 of an unknown number; 2 stay hidden for a time"
    )


def test_a_dead_letter_is_shown_in_full(dead: Dead, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    dead.sent(number=7)
    (dead_letter,) = dead.open().sample().dead_letters
    text = "\n".join(dead_letter_lines(dead_letter))
    for line in ("id         fail-7", "outcome    failed", "signature  valid", "args       [7]",
                 "kwargs     {}", "Traceback (most recent call last):"):  # fmt: skip
        assert line in text.splitlines()
    full = dead_letter_as_json(dead_letter, is_full=True)
    assert (full["args"], full["traceback"].splitlines()[0]) == ([7], text.splitlines()[-2])
    assert not {"args", "kwargs", "body", "traceback"} & dead_letter_as_json(dead_letter).keys()


def test_a_body_that_cannot_be_read_is_shown_without_control_characters(dead: Dead) -> None:
    dead.queue.send("{\n\x1b[2J", {})
    (dead_letter,) = dead.open().sample().dead_letters
    lines = list(dead_letter_lines(dead_letter))
    assert lines[-1] == r"body       {\n\x1b[2J"
    assert any(line.startswith("problem    not JSON") for line in lines)
    assert dead_letter_as_json(dead_letter, is_full=True)["args"] is None


def test_a_sample_is_json(dead: Dead) -> None:
    dead.sent_many(2)
    dead_letters = dead.open()
    found = json.loads(json.dumps(sample_as_json(dead_letters, dead_letters.sample())))
    assert (found["dead_letter_queue"], found["sources"]) == (dead.name, [dead.source_name])
    assert [(each["count"], each["function"]) for each in found["groups"]] == [(2, "fail")]
    assert [each["is_from_package"] for each in found["letters"]] == [True, True]


def test_a_report_says_what_is_left() -> None:
    report = SweepReport(
        done=1, looked_at=9, failed=1, reasons={"a": "no"}, not_found=["b"], not_deleted=["c"],
        still_hidden=3, note="SQS says no",
    )  # fmt: skip
    assert list(report_lines(report, verb="redriven", dry_run=False)) == [
        "SQS does not move the letters itself: SQS says no",
        "1 redriven, 9 looked at, 1 stay",
        "  a: no",
        "  b: not found",
        "  c: redriven, but not deleted; discard it",
        "3 letters stay hidden for a time: they could not be released",
    ]
    assert report_as_json(report)["is_complete"] is False


@pytest.mark.parametrize(
    ("report", "dry_run", "line"),
    [
        (SweepReport(done=5, by_sqs=True), False, "5 redriven, 0 stay"),
        (SweepReport(done=5, looked_at=7), True, "5 would be redriven, 7 looked at, 0 stay"),
    ],
)
def test_a_report_without_trouble_is_one_line(
    report: SweepReport, dry_run: bool, line: str
) -> None:
    assert list(report_lines(report, verb="redriven", dry_run=dry_run)) == [line]
