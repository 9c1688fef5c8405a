from __future__ import annotations

import json
from typing import Any

import pytest

from beanstalk_dispatch.problems import lambda_check


@pytest.mark.parametrize(
    ("visibility", "policy", "expected"),
    [
        ("360", {"maxReceiveCount": "5"}, []),
        ("359", {"maxReceiveCount": 5}, ["VisibilityTimeout is 359 s; expected at least 6 times"]),
        ("360", {"maxReceiveCount": 4}, ["maxReceiveCount is 4; expected at least 5"]),
        ("30", None, ["VisibilityTimeout is 30 s", "there is no RedrivePolicy"]),
    ],
)
def test_a_queue_that_does_not_fit_is_explained(
    visibility: str, policy: dict[str, Any] | None, expected: list[str]
) -> None:
    attributes = {"VisibilityTimeout": visibility}
    if policy:
        attributes["RedrivePolicy"] = json.dumps(policy)
    found = list(lambda_check.check("jobs", timeout=60, attributes=attributes))
    expected = expected or ["it fits a function of 60 s"]
    assert len(found) == len(expected)
    assert all(each.msg.startswith(start) for each, start in zip(found, expected, strict=True))
    assert {each.obj for each in found} == {"queue jobs"}
