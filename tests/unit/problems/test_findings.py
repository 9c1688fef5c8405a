from __future__ import annotations

import pytest
from django.core.checks import Warning as DjangoWarning

from beanstalk_dispatch.problems.findings import as_dict, lines, ok, problem

FINDINGS = [
    ok("a", "works"),
    problem("W112", "b", drain_file="drain"),
    problem("E402", "c", path="x"),
    DjangoWarning("a system check", hint="read", id="beanstalk_dispatch.W007"),
]


def test_people_get_a_line_for_each_and_one_for_what_to_type() -> None:
    assert list(lines(FINDINGS)) == [
        "ok            a: works",
        "warning  W112 b: drain exists: the endpoint answers 503 to new tasks",
        "              → rm drain",
        "error    E402 c: is not executable",
        "              → chmod +x x",
        "warning  W007 a system check",
        "              → read",
    ]


def test_programs_get_the_number_of_each_level() -> None:
    found = as_dict(FINDINGS)
    assert (found["ok"], found["warning"], found["error"]) == (1, 2, 1)
    assert found["findings"][2] == {
        "level": "error", "id": "beanstalk_dispatch.E402", "object": "c",
        "message": "is not executable", "hint": "chmod +x x",
    }  # fmt: skip


def test_a_finding_needs_a_number_of_the_catalogue() -> None:
    with pytest.raises(KeyError):
        problem("X100", "a")
