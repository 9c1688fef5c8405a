from __future__ import annotations

from beanstalk_dispatch.problems.findings import as_dict, failure, lines, ok, warning

FINDINGS = [ok("a", "works"), warning("b", "odd"), failure("c", "broken", "type this")]


def test_people_get_a_line_for_each_and_one_for_what_to_type() -> None:
    assert list(lines(FINDINGS)) == [
        "ok       a: works",
        "warning  b: odd",
        "failure  c: broken",
        "         → type this",
    ]


def test_programs_get_the_number_of_each_status() -> None:
    found = as_dict(FINDINGS)
    assert (found["ok"], found["warning"], found["failure"]) == (1, 1, 1)
    assert found["findings"][2] == {
        "status": "failure", "topic": "c", "message": "broken", "hint": "type this",
    }  # fmt: skip
