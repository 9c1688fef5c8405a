from __future__ import annotations

import botocore.session
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from beanstalk_dispatch.exceptions import SendError, UnknownQueue
from beanstalk_dispatch.sqs.error_codes import SCOPES, Scope
from beanstalk_dispatch.sqs.errors import failed_on_missing_queue, scope_of, scope_of_entry
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


def client_error(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "SendMessage")  # type: ignore[arg-type]


def test_every_error_that_aws_describes_for_sqs_is_in_the_table() -> None:
    shapes = botocore.session.get_session().get_service_model("sqs").error_shapes
    assert {each.name for each in shapes} <= SCOPES.keys()


@pytest.mark.parametrize(
    ("code", "status", "scope"),
    [
        ("QueueDoesNotExist", 400, Scope.QUEUE),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, Scope.QUEUE),
        ("AWS.SimpleQueueService.BatchRequestTooLong", 400, Scope.MESSAGE),
        ("InvalidParameterValue", 400, Scope.MESSAGE),
        ("KMS.ThrottlingException", 400, Scope.LATER),
        ("RequestThrottled", 403, Scope.LATER),
        ("InvalidClientTokenId", 403, Scope.EVERYBODY),
        ("New", 400, Scope.MESSAGE),
        ("New", 403, Scope.QUEUE),
        ("New", 429, Scope.LATER),
        ("New", 503, Scope.LATER),
    ],
)
def test_a_code_says_whom_an_error_concerns_and_an_unknown_code_s_status_does(
    code: str, status: int, scope: Scope
) -> None:
    assert scope_of(client_error(code, status)) is scope


def test_whom_an_error_without_an_answer_concerns() -> None:
    assert scope_of(ConnectionClosedError(endpoint_url="http://127.0.0.1:9")) is Scope.LATER
    assert scope_of(RuntimeError("still expired")) is Scope.EVERYBODY
    assert scope_of(UnknownQueue("none")) is Scope.QUEUE
    assert scope_of(SendError("without a cause")) is Scope.LATER
    error = SendError("refused")
    error.__cause__ = client_error("AccessDenied", 403)
    assert scope_of(error) is Scope.QUEUE


@pytest.mark.parametrize(
    ("code", "sender_fault", "scope"),
    [
        ("RequestThrottled", True, Scope.LATER),
        ("New", True, Scope.MESSAGE),
        ("New", False, Scope.LATER),
    ],
)
def test_whom_the_failure_of_an_entry_concerns(code: str, sender_fault: bool, scope: Scope) -> None:
    assert scope_of_entry({"Code": code, "SenderFault": sender_fault}) is scope
