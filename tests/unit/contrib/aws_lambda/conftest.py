from __future__ import annotations

import pytest

from tests import jobs
from tests.conftest import Environment


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    jobs.calls.clear()


@pytest.fixture
def function(env: Environment) -> Environment:
    """The environment of a function that runs the tests' tasks and sends nothing."""
    env(
        WORKER=True,
        DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail loop=tests.jobs.run_in_steps "
        "exits-hooked=tests.unit.consumers.lambda_.test_batch.ExitsHooked "
        "recorder=tests.jobs.Recorder nap=tests.jobs.nap "
        "slow-hook=tests.unit.consumers.lambda_.test_batch.SlowHook",
        DISPATCH_TASK_TIMEOUT="2m",
    )
    return env
