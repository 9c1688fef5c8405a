"""What the tests of dead letters share, in several rooms."""

from __future__ import annotations

import pytest

from beanstalk_dispatch.workbench import looking, moving, runs
from tests.conftest import Environment
from tests.dead_letters import Dead
from tests.proxy import Proxy


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_WAIT_SECONDS", 0)
    monkeypatch.setattr(looking, "_MAX_REPEATS", 2)
    monkeypatch.setattr(runs, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(runs, "_SLICE_SECONDS", 0.01)
    monkeypatch.setattr(moving, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(moving, "_SLICE_SECONDS", 0.01)
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0
    )


@pytest.fixture
def dead(sqs_env: Environment, short_waits: None, queue_name: str) -> Dead:
    """The dead-letter queue of ``jobs``, where nothing waits for long."""
    return Dead(queue_name)


@pytest.fixture
def spoilt(sqs_env: Environment, proxy: Proxy, dead: Dead) -> Proxy:
    """A proxy in front of the server, once the queues exist."""
    assert dead.source.name
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    return proxy
