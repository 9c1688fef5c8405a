from __future__ import annotations

import pytest
from django.core.checks import Warning as DjangoWarning

from beanstalk_dispatch.problems.findings import as_dict, lines, ok, problem

FINDINGS = [
    ok("a", "works"),
    problem("W112", "b", "odd"),
    problem("E102", "c", "broken", "type this"),
    DjangoWarning("a system check", hint="read", id="beanstalk_dispatch.W007"),
]


def test_people_get_a_line_for_each_and_one_for_what_to_type() -> None:
    assert list(lines(FINDINGS)) == [
        "ok            a: works",
        "warning  W112 b: odd",
        "error    E102 c: broken",
        "              → type this",
        "warning  W007 a system check",
        "              → read",
    ]


def test_programs_get_the_number_of_each_level() -> None:
    found = as_dict(FINDINGS)
    assert (found["ok"], found["warning"], found["error"]) == (1, 2, 1)
    assert found["findings"][2] == {
        "level": "error", "id": "beanstalk_dispatch.E102", "object": "c", "message": "broken",
        "hint": "type this",
    }  # fmt: skip


def test_a_number_without_a_level_is_none() -> None:
    with pytest.raises(KeyError):
        problem("X100", "a", "b")
