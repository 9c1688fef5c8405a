"""An outbox in the tests' database, and an SQS that shows what it got."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.outbox.sender import SENDER
from tests.conftest import Environment
from tests.proxy import Proxy
from tests.recording_sqs import Sqs


@pytest.fixture
def sqs(sqs_env: Environment, proxy: Proxy, queue_name: str) -> Iterator[Sqs]:
    """SQS; the alias ``jobs`` is a standard queue, ``fifo`` is a FIFO queue."""
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_OUTBOX="always",
        DISPATCH_QUEUES=f"jobs={queue_name} fifo={queue_name}.fifo",
        DISPATCH_CREATE_QUEUES=False,
        AWS_MAX_ATTEMPTS=1,
    )
    proxy.spoil = found = Sqs()
    yield found
    assert SENDER.flush(30)


@pytest.fixture
def no_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed is sent by the test only."""
    monkeypatch.setattr(SENDER, "wake", lambda *_, **__: None)


@pytest.fixture
def no_table(sqs: Sqs) -> Iterator[None]:
    """The database of a project that has not run the migration."""
    table = OutboxMessage._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")
