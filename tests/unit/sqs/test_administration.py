from __future__ import annotations

from typing import Any

import pytest

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.administration import get_attributes, source_queue_names
from beanstalk_dispatch.sqs.errors import missing_permission
from beanstalk_dispatch.sqs.opening import open_beside, open_queue
from beanstalk_dispatch.sqs.queue import Queue
from tests.conftest import Environment
from tests.proxy import Proxy, error

Requests = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def dead(sqs_env: Environment, queue_name: str) -> Queue:
    return open_beside(open_queue("jobs"), f"{queue_name}-dead-letter")


def test_a_queue_beside_another_is_not_looked_up(dead: Queue, queue_name: str) -> None:
    assert dead.url.endswith(f"/{queue_name}-dead-letter")
    assert dead is open_beside(open_queue("jobs"), dead.name)
    dead.send("{}", {})
    assert get_attributes(dead).visible == 1


def test_the_arn_of_a_queue_is_among_its_attributes(dead: Queue) -> None:
    assert get_attributes(dead).arn.endswith(f":{dead.name}")


def test_the_sources_of_a_dead_letter_queue_are_listed(dead: Queue, queue_name: str) -> None:
    assert source_queue_names(dead) == [queue_name]
    assert source_queue_names(open_queue("jobs")) == []


@pytest.fixture
def answered(dead: Queue, proxy: Proxy, sqs_env: Environment) -> tuple[Queue, Any]:
    """The queue, and a function that has the next requests answered; it returns them."""
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_beside(open_queue("jobs"), dead.name)

    def answer(*answers: dict[str, Any]) -> Requests:
        requests: Requests = []
        left = iter(answers)

        def spoil(operation: str, request: dict[str, Any]) -> Any:
            requests.append((operation, request))
            return 200, next(left)

        proxy.spoil = spoil
        return requests

    return queue, answer


def test_every_page_of_the_sources_is_read(answered: tuple[Queue, Any]) -> None:
    queue, answer = answered
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/"
    requests = answer(
        {"queueUrls": [f"{url}one"], "NextToken": "more"}, {"queueUrls": [f"{url}two"]}
    )
    assert source_queue_names(queue) == ["one", "two"]
    assert [request.get("NextToken") for _, request in requests] == [None, "more"]


def test_a_denied_request_names_its_permission(answered: tuple[Queue, Any], proxy: Proxy) -> None:
    queue, _ = answered
    proxy.spoil = lambda operation, request: error(403, "AccessDenied")
    with pytest.raises(SendError, match="PurgeQueue on .*AccessDenied") as caught:
        queue.request("purge_queue", QueueUrl=queue.url)
    assert missing_permission(caught.value) == "sqs:PurgeQueue"
    with pytest.raises(SendError) as caught:
        queue.delete_batch([])
    assert missing_permission(caught.value) == "sqs:DeleteMessage"
    assert missing_permission(SendError("without a cause")) is None
