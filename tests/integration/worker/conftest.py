"""A worker's tests talk to SQS through a proxy in which a second of a long poll is a tenth."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import jobs
from tests.conftest import Environment
from tests.proxy import Proxy
from tests.workers import wait_for_threads


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    jobs.calls.clear()
    jobs.release.clear()


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with Proxy(moto, long_poll_second=0.1) as server:
        yield server
        wait_for_threads()


@pytest.fixture
def sqs_env(sqs_env: Environment, proxy: Proxy) -> Environment:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    return sqs_env


@pytest.fixture
def fifo(sqs_env: Environment, queue_name: str) -> None:
    """The queue ``jobs`` is a FIFO queue."""
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}.fifo")
