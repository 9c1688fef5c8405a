from __future__ import annotations

from pathlib import Path

import pytest

from beanstalk_dispatch.deploying.scaling import SCALING_EBEXTENSIONS
from tests.bundles import SCALING, WORKER_OPTIONS, problems_in, write_bundle
from tests.conftest import Environment
from tests.unit.deploying.test_scaling import make


@pytest.fixture(autouse=True)
def _table(env: Environment) -> None:
    env(DISPATCH_TABLE="record=tests.jobs.record")


def replace(file: Path, old: str, new: str) -> None:
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("TargetValue\": 15", "TargetValue\": 12", ""),
        ("TargetValue\": 15", "TargetValue\": 75", "TargetValue is 75; more than 0 and at most 15"),
        ("TargetValue\": 15", "TargetValue\": \"15\"", "TargetValue is 0; more than 0"),
        ("shop-work", "other", "is not what is needed"),
        ("(visible + in_flight)", "visible", "is not what is needed"),
        ("{", "", "is not what is needed"),
    ],
)  # fmt: skip
def test_each_difference_of_the_policy_is_explained(
    tmp_path: Path, is_shared: bool, old: str, new: str, problem: str
) -> None:
    plan = make(is_shared=is_shared)
    path = SCALING if is_shared else SCALING_EBEXTENSIONS
    replace(write_bundle(plan, tmp_path) / path, old, new)
    found = problems_in(plan, tmp_path)
    assert len(found) == bool(problem)
    assert not problem or found[0].startswith(f"{path}: {problem}")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"8"', '"4"', "aws:autoscaling:asg MaxSize is 4, not 8"),
        ('"1"', '"2"', ""),
        ("CPUUtilization", "NetworkOut", "trigger MeasureName is NetworkOut, not CPUUtilization"),
        ("LowerThreshold", "Lower", "trigger LowerThreshold is not set, not 0"),
    ],
)
def test_each_option_that_differs_is_said(tmp_path: Path, old: str, new: str, problem: str) -> None:
    plan = make()
    replace(write_bundle(plan, tmp_path) / WORKER_OPTIONS, old, new)
    found = problems_in(plan, tmp_path)
    assert len(found) == bool(problem)
    assert not problem or found[0].endswith(problem)


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    plan = make()
    (write_bundle(plan, tmp_path) / SCALING).unlink()
    (tmp_path / WORKER_OPTIONS).unlink()
    assert problems_in(plan, tmp_path) == [
        f"{path}: is missing" for path in (SCALING, WORKER_OPTIONS)
    ]


def test_a_shared_bundle_must_not_scale_the_web_environment(tmp_path: Path) -> None:
    write_bundle(make(is_shared=False), tmp_path)
    write_bundle(make(), tmp_path)
    found = problems_in(make(), tmp_path)
    assert any(each.startswith(f"{SCALING_EBEXTENSIONS}: scales the web env") for each in found)
