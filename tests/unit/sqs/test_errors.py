from __future__ import annotations

import pytest

from beanstalk_dispatch.exceptions import SendError, UnknownQueue
from beanstalk_dispatch.sqs.errors import failed_on_missing_queue
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received
from tests.conftest import Environment
from tests.proxy import Proxy, error


def receive(queue: Queue, visibility: int = 30) -> list[Received]:
    return queue.receive(count=10, wait=0, visibility=visibility)


@pytest.mark.parametrize(("code", "is_missing"), [("QueueDoesNotExist", True), ("Other", False)])
def test_a_missing_queue_is_distinguished_from_other_errors(
    sqs_env: Environment, proxy: Proxy, code: str, is_missing: bool
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    proxy.spoil = lambda operation, request: error(400, code)
    with pytest.raises(SendError) as caught:
        receive(queue)
    assert failed_on_missing_queue(caught.value) is is_missing
    assert failed_on_missing_queue(UnknownQueue("none"))
