from __future__ import annotations

import dataclasses

import pytest

from beanstalk_dispatch.deploying import ladder
from beanstalk_dispatch.deploying.ladder import Ladder
from beanstalk_dispatch.exceptions import ConfigurationError


@pytest.mark.parametrize("seconds", [0.5, 60, 240, 3600, 35_950])
def test_each_timeout_is_longer_than_the_one_before(seconds: float) -> None:
    found = Ladder.for_time_limit(seconds)
    steps = list(dataclasses.astuple(found))
    assert steps == sorted(set(steps))
    assert found.task >= seconds
    assert list(found.problems()) == []
    assert found.inactivity is not None
    assert found.inactivity <= ladder.MAX_INACTIVITY_SECONDS


def test_four_minutes_are_the_documentations_example() -> None:
    assert dataclasses.astuple(Ladder.for_time_limit(240)) == (240, 270, 280, 290, 300)


def test_the_daemon_cannot_wait_for_every_task() -> None:
    with pytest.raises(ConfigurationError, match=r"35950 s or less, or run it with beanstalk_wor"):
        Ladder.for_time_limit(35_951)


def test_elastic_beanstalks_defaults_do_not_work_together() -> None:
    defaults = Ladder(task=120, gunicorn=30, nginx=60, inactivity=299, visibility=300)
    first, second = defaults.problems()
    assert first == (
        "the server's graceful timeout, 30 s, is not longer than the longest time limit of a task, "
        "120 s: a deployment kills tasks that are within their limit"
    )
    assert second.startswith("nginx's proxy_read_timeout, 60 s, is not longer than the longest")


def test_a_timeout_that_is_not_known_is_passed_over() -> None:
    (problem,) = Ladder(task=120, nginx=60, visibility=300).problems()
    assert problem.startswith("nginx's proxy_read_timeout, 60 s, is not longer than the longest")
    (problem,) = Ladder(task=50, nginx=60, inactivity=299, visibility=200).problems()
    assert "VisibilityTimeout, 200 s, is not longer than InactivityTimeout, 299 s" in problem


def test_an_outage_uses_up_fewer_receives_than_there_are() -> None:
    pauses = (ladder.MAX_RECEIVES - 1) * ladder.ERROR_VISIBILITY_SECONDS
    assert pauses > ladder.OUTAGE_SECONDS
