"""An SQS that shows what it got, for calls that are sent together."""

from __future__ import annotations

import pytest

from tests.conftest import Environment
from tests.proxy import Proxy
from tests.recording_sqs import Sqs


@pytest.fixture
def sqs(sqs_env: Environment, proxy: Proxy, queue_name: str) -> Sqs:
    """SQS; the aliases ``jobs`` and ``more`` are standard queues, ``fifo`` is a FIFO queue."""
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_QUEUES=f"jobs={queue_name} more={queue_name}-more fifo={queue_name}.fifo",
        DISPATCH_CREATE_QUEUES=False,
        AWS_MAX_ATTEMPTS=1,
    )
    proxy.spoil = found = Sqs()
    return found
