from __future__ import annotations

import time
from typing import Any

import pytest

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.batch_sender import BATCH_ATTEMPTS, batches
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received, Refused
from beanstalk_dispatch.sqs.timeouts import SHORT_TIMEOUTS, long_poll_timeouts
from tests.batches import Entry
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error


def receive(queue: Queue, visibility: int = 30) -> list[Received]:
    return queue.receive(count=10, wait=0, visibility=visibility)


def test_a_refusal_is_a_send_error_with_its_cause(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    secret = "SignatureDoesNotMatch\nx-amz-security-token:hush"
    proxy.spoil = lambda operation, request: error(403, "AccessDenied", secret)
    with pytest.raises(SendError, match="SendMessage on .*AccessDenied") as caught:
        queue.send("{}", {})
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_lost_connection_is_a_send_error(
    sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        raise ConnectionError

    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    monkeypatch.setattr(proxy, "forward", lose)
    with pytest.raises(SendError, match="SendMessage on .*: ConnectionClosedError: "):
        queue.send("{}", {})
    assert queue.send_batch([Entry(body="{}", send_parameters={})]).unsent.keys() == {0}
    with pytest.raises(SendError, match="ReceiveMessage on .*: ConnectionClosedError: "):
        queue.receive(count=1, wait=0, visibility=30)


def test_a_page_in_place_of_an_answer_is_a_send_error(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    """It is that of a proxy, say. boto3 takes it for an answer without any members."""
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    proxy.spoil = lambda operation, request: (200, "<html>Please log in to the network</html>")
    with pytest.raises(
        SendError, match="UnexpectedAnswer: the answer has no MessageId; another program"
    ):
        queue.send("{}", {})
    with pytest.raises(SendError, match="ReceiveMessage on .*: UnexpectedAnswer: .* is a page"):
        receive(queue)
    sqs_env(DISPATCH_QUEUES=f"other={queue_name}-other")
    with pytest.raises(SendError, match="GetQueueUrl on .*: UnexpectedAnswer: .* no QueueUrl"):
        open_queue("other")


@pytest.mark.parametrize("spoiled", ["CreateQueue", "GetQueueAttributes"])
def test_a_page_in_place_of_the_answer_for_a_new_queue_is_a_send_error(
    sqs_env: Environment, proxy: Proxy, queue_name: str, spoiled: str
) -> None:
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_CREATE_QUEUES="True",
        DISPATCH_QUEUES=f"new={queue_name}-new",
    )
    page = (200, "<html>Please log in to the network</html>")
    proxy.spoil = lambda operation, request: page if operation == spoiled else None
    with pytest.raises(SendError, match="CreateQueue on .*: UnexpectedAnswer: .* has no "):
        open_queue("new")


@pytest.mark.parametrize("answer", [(200, "[]"), (403, "<html>Zur\udcfcck</html>")])
def test_an_answer_that_boto3_cannot_read_is_a_send_error(
    sqs_env: Environment, proxy: Proxy, answer: Answer
) -> None:
    """One is JSON of another service, the other a page in Latin-1."""
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    proxy.spoil = lambda operation, request: answer
    with pytest.raises(SendError, match="SendMessage on "):
        queue.send("{}", {})
    assert queue.send_batch([Entry(body="{}", send_parameters={})]).unsent.keys() == {0}
    with pytest.raises(SendError, match="get_queue_attributes on "):
        queue.request("get_queue_attributes", QueueUrl=queue.url)


def test_nobody_there_is_a_send_error(env: Environment) -> None:
    env(DISPATCH_QUEUES="q=http://127.0.0.1:9/1/q", DISPATCH_SQS_KEY="k", DISPATCH_SQS_SECRET="s")
    with pytest.raises(SendError, match="EndpointConnectionError"):
        open_queue("q").send("{}", {})


def entries(*sizes: int) -> list[Entry]:
    return [Entry(body="x" * size, send_parameters={}) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [
        ([], []),
        ([1] * 10, [10]),
        ([1] * 21, [10, 10, 1]),
        ([600_000, 600_000, 400_000], [1, 2]),
        ([1_048_576, 1], [1, 1]),
    ],
)
def test_batches_keep_both_limits(sizes: list[int], chunks: list[int]) -> None:
    assert [len(chunk) for chunk in batches(entries(*sizes))] == chunks


def test_a_batch_arrives(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    sent = queue.send_batch(entries(*range(1, 13)))
    assert sent.unsent == {}
    assert sent.ids.keys() == set(range(12))
    received = receive(queue) + receive(queue)
    assert sorted(len(each.body) for each in received) == list(range(1, 13))


def partly(*failures: dict[str, str]) -> Any:
    """Answer batch after batch; each dict maps an id to its error code (``!`` for our fault)."""
    answers = iter(failures)

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        assert operation == "SendMessageBatch"
        failed = next(answers, {})
        ids = [entry["Id"] for entry in request["Entries"]]
        return 200, {
            "Successful": [{"Id": i, "MessageId": i, "MD5OfMessageBody": ""} for i in ids
                           if i not in failed],
            "Failed": [{"Id": i, "Code": code.strip("!"), "SenderFault": code.startswith("!")}
                       for i, code in failed.items()],
        }  # fmt: skip

    return spoil


@pytest.fixture
def spoilt(sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    proxy.counts.clear()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # botocore checks each message's MD5; these answers have none
    open_queue("jobs").client.meta.events.unregister(
        "after-call.sqs.SendMessageBatch", unique_id=None
    )
    return proxy


def test_an_entry_with_a_fault_of_sqs_is_sent_again(spoilt: Proxy) -> None:
    spoilt.spoil = partly({"1": "InternalError", "2": "ServiceUnavailable"}, {"2": "InternalError"})
    assert open_queue("jobs").send_batch(entries(1, 1, 1)).unsent == {}
    assert spoilt.counts["SendMessageBatch"] == 3


def test_an_entry_with_a_fault_of_the_sender_is_not_sent_again(spoilt: Proxy) -> None:
    spoilt.spoil = partly({"0": "!InvalidMessageContents", "1": "InternalError"})
    assert open_queue("jobs").send_batch(entries(1, 1)).unsent == {0: "InvalidMessageContents"}
    assert spoilt.counts["SendMessageBatch"] == 2


def test_a_batch_with_nothing_but_faults_of_the_sender_ends_at_once(spoilt: Proxy) -> None:
    spoilt.spoil = partly({"0": "!InvalidMessageContents"})
    assert open_queue("jobs").send_batch(entries(1)).unsent == {0: "InvalidMessageContents"}
    assert spoilt.counts["SendMessageBatch"] == 1


def test_an_entry_refused_at_every_attempt_is_unsent(spoilt: Proxy) -> None:
    spoilt.spoil = partly(*[{"1": "InternalError"}] * 10)
    assert open_queue("jobs").send_batch(entries(1, 1)).unsent == {1: "InternalError"}
    assert spoilt.counts["SendMessageBatch"] == BATCH_ATTEMPTS


def test_after_a_failed_request_the_rest_is_reported_unsent(spoilt: Proxy) -> None:
    spoilt.spoil = lambda operation, request: (
        error(400, "AccessDenied") if request["Entries"][0]["Id"] == "10" else None
    )
    unsent = open_queue("jobs").send_batch(entries(*[1] * 25)).unsent
    assert sorted(unsent) == list(range(10, 25))
    assert "AccessDenied" in unsent[24]
    assert spoilt.counts["SendMessageBatch"] == 2


def test_a_received_message_has_its_attributes(
    sqs_env: Environment,
) -> None:
    queue = open_queue("jobs")
    attribute = {"name": {"DataType": "String", "StringValue": "value"}}
    sent = queue.send("body", {"MessageAttributes": attribute})
    before = time.monotonic()
    (received,) = receive(queue)
    assert (received.message_id, received.body) == (sent, "body")
    assert received.attributes["ApproximateReceiveCount"] == "1"
    assert received.message_attributes == {"name": "value"}
    assert before + 30 - 1 < received.expires <= time.monotonic() + 30
    assert received.is_hidden


def test_visibility_and_deletion(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    queue.send("1", {})
    queue.send("2", {})
    received = receive(queue)
    assert queue.change_visibility_batch(received, [0, 0]) == []
    assert not received[0].is_hidden
    again = receive(queue)
    assert len(again) == 2
    assert queue.delete_batch(again) == []
    assert receive(queue) == []
    assert queue.depth() == 0


def test_refused_entries_are_returned(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    (received,) = receive(queue)
    failed = {"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]}
    proxy.spoil = lambda operation, request: (200, failed)
    expires = received.expires
    refused = Refused(received, "ReceiptHandleIsInvalid", True)
    assert queue.delete_batch([received]) == [refused]
    assert queue.change_visibility_batch([received], [99]) == [refused]
    assert received.expires == expires


@pytest.mark.parametrize("answer", [{}, {"Successful": []}, {"Successful": [], "Failed": []}])
def test_an_entry_missing_in_the_answer_is_refused_for_now(
    sqs_env: Environment, proxy: Proxy, answer: dict[str, Any]
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    (received,) = receive(queue)
    expires = received.expires
    proxy.spoil = lambda operation, request: (200, answer)
    refused = Refused(received, "missing in SQS's answer", False)
    assert queue.delete_batch([received]) == [refused]
    assert queue.change_visibility_batch([received], [99]) == [refused]
    assert received.expires == expires


def test_each_entry_of_an_answer_is_taken_for_itself(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send_batch(entries(1, 1, 1))
    messages: list[Received] = []
    while len(messages) < 3:
        messages += receive(queue)
    proxy.spoil = lambda operation, request: (
        200,
        {
            "Successful": [{"Id": "1"}],
            "Failed": [
                {"Id": "0", "Code": "InternalError", "Message": "later\nhush", "SenderFault": False}
            ],
        },
    )
    assert queue.delete_batch(messages) == [
        Refused(messages[0], "InternalError: later", False),
        Refused(messages[2], "missing in SQS's answer", False),
    ]


@pytest.mark.parametrize("operation", ["receive", "delete_batch", "change_visibility_batch"])
def test_failed_requests_are_send_errors(
    sqs_env: Environment, proxy: Proxy, operation: str
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    messages = receive(queue)
    proxy.spoil = lambda operation, request: error(400, "AccessDenied")
    calls: dict[str, Any] = {
        "receive": lambda: receive(queue),
        "delete_batch": lambda: queue.delete_batch(messages),
        "change_visibility_batch": lambda: queue.change_visibility_batch(messages, [1]),
    }
    with pytest.raises(SendError, match="AccessDenied"):
        calls[operation]()
    assert queue.depth() is None
    assert open_queue("jobs") is queue


@pytest.mark.parametrize("operation", ["receive", "delete_batch", "change_visibility_batch"])
def test_any_error_of_a_request_is_a_send_error(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """botocore raises a bare RuntimeError for credentials that are still expired."""
    queue = open_queue("jobs")
    queue.send("1", {})
    messages = receive(queue)

    def surprise(**kwargs: Any) -> None:
        raise RuntimeError("the refreshed credentials are still expired")

    requests = ("receive_message", "delete_message_batch", "change_message_visibility_batch")
    for timeouts in (long_poll_timeouts(5), SHORT_TIMEOUTS):
        client = queue._client_with(timeouts)
        for request in requests:
            monkeypatch.setattr(client, request, surprise)
    calls: dict[str, Any] = {
        "receive": lambda: receive(queue),
        "delete_batch": lambda: queue.delete_batch(messages),
        "change_visibility_batch": lambda: queue.change_visibility_batch(messages, [1]),
    }
    with pytest.raises(SendError, match="RuntimeError: the refreshed credentials"):
        calls[operation]()
    assert open_queue("jobs") is not queue


def test_a_message_received_again_meanwhile_keeps_its_new_expiry(
    sqs_env: Environment, proxy: Proxy
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    (received,) = receive(queue)

    def received_again(operation: str, request: dict[str, Any]) -> None:
        received.receipt, received.expires = "newer", 5.0

    proxy.spoil = received_again
    queue.change_visibility_batch([received], [99])
    assert received.expires == 5.0


def test_an_entry_missing_from_the_answer_is_unsent(spoilt: Proxy) -> None:
    spoilt.spoil = lambda operation, request: (200, {"Successful": [], "Failed": []})
    sent = open_queue("jobs").send_batch(entries(1, 1))
    assert sent.unsent == {0: "missing in SQS's answer", 1: "missing in SQS's answer"}
    assert not sent.ids


def test_after_an_unsent_entry_a_fifo_queue_gets_none(spoilt: Proxy, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES="jobs=order.fifo", DISPATCH_SQS_ENDPOINT_URL=spoilt.url)
    queue = open_queue("jobs")
    spoilt.spoil = partly({"3": "!Bad"})
    sent = queue.send_batch(
        [
            Entry(
                body="{}", send_parameters={"MessageGroupId": "g", "MessageDeduplicationId": str(n)}
            )
            for n in range(25)
        ]
    )
    assert sorted(sent.unsent) == [3, *range(10, 25)]
    assert sent.unsent[3].startswith("Bad")
    assert sent.unsent[24] == "not tried, because an earlier message was not sent"
